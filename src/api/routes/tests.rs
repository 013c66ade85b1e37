use super::*;
use crate::core::telemetry::Window;
use crate::daemon::protocol::ViewWord;

fn made(name: &str, body: &str) -> Result<Request, Vec<String>> {
    let route = ROUTES.iter().find(|route| route.name == name).unwrap();
    let mut fields = Fields::read(body).unwrap();
    fields.expect(route.fields);
    let request = (route.request)(&mut fields);
    match fields.finish() {
        Ok(()) => Ok(request.expect("a request, or a mistake")),
        Err(mistakes) => Err(mistakes.iter().map(ToString::to_string).collect()),
    }
}

#[test]
fn a_body_becomes_the_request_that_the_tool_sends() {
    let policy = "{\"version\":1}\n".to_owned();
    for (name, body, request) in [
        ("status", "{}", Request::Status {}),
        ("health", "{}", Request::Health {}),
        ("telemetry", "{}", Request::Telemetry(Telemetry::default())),
        (
            "telemetry",
            r#"{"view": "agent", "target": "a", "window": "24h"}"#,
            Request::Telemetry(Telemetry {
                view: Some(ViewWord::Agent),
                target: Some("a".into()),
                window: Some(Window::Day),
                no_redact: false,
            }),
        ),
        ("stats", "{}", Request::Stats {}),
        (
            "policy",
            r#"{"policy": {"version":1}, "confirm_seconds": 5, "expect_revision": 0}"#,
            Request::Import { policy: policy.clone(), expect_revision: Some(0), confirm_seconds: Some(5) },
        ),
        ("policy", r#"{"policy": {"version":1}, "apply": false}"#, Request::Store { policy, expect_revision: None }),
        ("rollback", r#"{"revision": 3}"#, Request::Rollback { revision: Some(3), expect_revision: None }),
        ("confirm", "{}", Request::Confirm { revision: None }),
        ("log", "{}", Request::Log { follow: false, filter: Filter::default() }),
        (
            "plan",
            r#"{"policy": {"version":1}, "hours": 7}"#,
            Request::Plan { policy: "{\"version\":1}\n".to_owned(), hours: Some(7) },
        ),
    ] {
        assert_eq!(made(name, body).unwrap(), request, "{body}");
    }
    let asked = made("explain", r#"{"source": "fd00::1", "ip": "1.1.1.1", "port": 443, "protocol": "udp"}"#);
    let Ok(Request::Explain(asked)) = asked else { panic!("{asked:?}") };
    let wanted = made("log", r#"{"host": "a", "action": "block", "since": "2027-01-15T08:00:00Z", "limit": 5}"#);
    let Ok(Request::Log { follow: false, filter }) = wanted else { panic!("{wanted:?}") };
    assert_eq!((filter.host.as_deref(), filter.limit), (Some("a"), Some(5)));
    assert!(filter.action.is_some() && filter.since.is_some() && filter.text.is_none());
    assert_eq!((asked.port, asked.protocol), (Some(443), Some(Transport::Udp)));
}

#[test]
fn what_makes_no_sense_is_told() {
    for (name, body, told) in [
        ("policy", r#"{"policy": {}, "apply": false, "confirm_seconds": 5}"#, "/confirm_seconds: nothing is applied"),
        ("policy", r#"{"policy": {}, "confirm_seconds": 0}"#, "/confirm_seconds: should be a number of seconds, 1 to "),
        ("policy", r#"{"apply": true}"#, "/policy: is missing"),
        ("explain", r#"{"source": "x"}"#, "/source: should be an IP address"),
        ("explain", r#"{"source": "1.1.1.1", "port": 0}"#, "/port: should be a port"),
        ("explain", r#"{"source": "1.1.1.1", "protocol": "icmp"}"#, "/protocol: should be \"tcp\" or \"udp\""),
        ("telemetry", r#"{"view": "agent"}"#, "/target: say which agent"),
        ("telemetry", r#"{"window": "2h"}"#, "/window: should be \"1m\""),
        ("telemetry", r#"{"no_redact": true}"#, "/no_redact: only an export"),
        ("rollback", r#"{"revision": "3"}"#, "/revision: should be the number of a revision"),
        ("log", r#"{"limit": 10001}"#, "/limit: should be a number, 1 to 10000"),
        ("log", r#"{"action": "refuse"}"#, "/action: should be \"allow\", \"block\" or \"monitor\""),
        ("log", r#"{"follow": true}"#, "/follow: unknown field"),
        ("plan", r#"{"hours": 1}"#, "/policy: is missing"),
        ("plan", r#"{"policy": {}, "hours": 0}"#, "/hours: should be a number, 1 to 8784"),
        ("status", r#"{"verbose": true}"#, "/verbose: unknown field; known here: key"),
    ] {
        let mistakes = made(name, body).unwrap_err();
        assert!(mistakes.len() == 1 && mistakes[0].starts_with(told), "{body}: {mistakes:?}");
    }
}

#[test]
fn names_are_paths() {
    let names: std::collections::BTreeSet<&str> = ROUTES.iter().map(|route| route.name).collect();
    assert_eq!(names.len(), ROUTES.len());
    assert!(names.iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase())));
}

proptest::proptest! {
    /// Bodies of known names and odd values: a request or a mistake, and never neither.
    #[test]
    fn no_body_leaves_a_call_without_an_answer(
        entries in proptest::collection::vec((
            proptest::sample::select(vec![
                "policy", "apply", "expect_revision", "confirm_seconds", "revision", "source", "domain", "ip", "port",
                "protocol", "at", "host", "action", "text", "since", "limit", "hours", "key", "polcy", "", "~/",
            ]),
            proptest::sample::select(vec![
                "null", "true", "false", "0", "1", "-1", "1.5", "99999999999999999999", "\"\"", "\"tcp\"",
                "\"1.1.1.1\"", "\"fd00::1\"", "\"a.example.com\"", "\"2026-11-20T09:00:00+01:00\"", "{}", "[]",
                "{\"version\": 1}",
            ]),
        ), 0..6)
    ) {
        let body: Vec<String> = entries.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
        let body = format!("{{{}}}", body.join(", "));
        for route in ROUTES {
            let mut fields = Fields::read(&body).unwrap();
            fields.take_key();
            fields.expect(route.fields);
            let request = (route.request)(&mut fields);
            proptest::prop_assert_eq!(fields.finish().is_ok() && request.is_none(), false, "{} {}", route.name, body);
        }
    }
}
