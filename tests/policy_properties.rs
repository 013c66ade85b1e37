//! What holds for every policy and every text: reading never fails in any other way than with diagnostics, and the
//! normal form means the same as what was written.

use clawgress::policy::json::Value as Written;
use clawgress::policy::name::{Name, Pattern};
use clawgress::policy::{
    Policy, digest, document_digest, domain, normalised, not_yet_enforced, parse, parse_with_warnings,
};
use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

fn domain_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]\\.example\\.com",
        "[A-C]\\.Example\\.com\\.?",
        "\\*\\.[a-c]\\.example\\.(com|org)",
        "b[uü]cher\\.example",
        "\\*\\.BÜCHER\\.example",
        "_x[0-9]-y-\\.example\\.net",
        Just("localhost".to_owned()),
    ]
}

fn network_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|a| std::net::Ipv4Addr::from(a).to_string()),
        (any::<u32>(), 0..=32u8).prop_map(|(a, length)| {
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            format!("{}/{length}", std::net::Ipv4Addr::from(a & mask))
        }),
        (any::<u64>(), 0..=64u8).prop_map(|(a, length)| {
            let mask = u64::MAX.checked_shl(64 - u32::from(length)).unwrap_or(0);
            format!("{}/{length}", std::net::Ipv6Addr::from(u128::from(a & mask) << 64))
        }),
        "2001:DB8:0:0::[0-9a-f]{1,4}",
    ]
}

fn object(fields: Vec<(&str, Option<Value>)>) -> Value {
    Value::Object(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect::<Map<_, _>>())
}

fn texts(strategy: impl Strategy<Value = String>) -> impl Strategy<Value = Option<Value>> {
    of(vec(strategy, 0..4).prop_map(|list| json!(list)))
}

fn lists() -> impl Strategy<Value = Option<Value>> {
    let list = select(vec!["domains", "hosts", "rpz", "adblock"])
        .prop_map(|format| json!([{ "name": "a.b_c-1", "file": "/lists/ä b.txt", "format": format }]));
    of(list)
}

fn allow() -> impl Strategy<Value = Option<Value>> {
    of((texts(domain_text()), texts(network_text()), of(vec(1..=u16::MAX, 0..4)), lists()).prop_map(
        |(domains, ips, ports, lists)| {
            object(vec![
                ("domains", domains),
                ("ips", ips),
                ("ports", ports.map(|p| json!(p))),
                ("domain_lists", lists),
            ])
        },
    ))
}

fn deny() -> impl Strategy<Value = Option<Value>> {
    of((texts(domain_text()), texts(network_text()), lists())
        .prop_map(|(domains, ips, lists)| object(vec![("domains", domains), ("ips", ips), ("domain_lists", lists)])))
}

fn window() -> impl Strategy<Value = Value> {
    let time = (0..24u8, 0..60u8, of(0..60u8)).prop_map(|(h, m, s)| match s {
        Some(s) => format!("{h:02}:{m:02}:{s:02}"),
        None => format!("{h:02}:{m:02}"),
    });
    let days = vec(select(vec!["mon", "TUE", "Wed", "thu", "fri", "sat", "sun"]), 1..9);
    prop_oneof![
        days.clone().prop_map(|days| json!({ "days": days })),
        (of(days), time.clone(), time)
            .prop_filter("a window has a length", |(_, start, end)| {
                let full = |time: &str| if time.len() == 5 { format!("{time}:00") } else { time.to_owned() };
                full(start) != full(end)
            })
            .prop_map(|(days, start, end)| object(vec![
                ("days", days.map(|days| json!(days))),
                ("start", Some(json!(start))),
                ("end", Some(json!(end))),
            ])),
    ]
}

fn by_domain(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Option<Value>> {
    // Keys that cannot be the same name twice.
    of(btree_map("[a-e]\\.EXAMPLE\\.com|\\*\\.[a-e]\\.example\\.org\\.", value, 0..4).prop_map(|map| json!(map)))
}

fn limits() -> impl Strategy<Value = Option<Value>> {
    of((1..=1_000_000_000_000u64).prop_map(|kbps| json!({ "egress_kbps": kbps })))
}

fn mode() -> impl Strategy<Value = Option<Value>> {
    of(select(vec![json!("enforce"), json!("monitor")]))
}

fn host() -> impl Strategy<Value = Value> {
    let cap = (1..(1u64 << 53), select(vec!["second", "minute", "hour", "day"]))
        .prop_map(|(bytes, period)| json!({ "bytes": bytes, "period": period }));
    let exfil = by_domain(cap).prop_map(|caps| caps.map(|caps| json!({ "domains": caps })));
    (allow(), deny(), mode(), of(window()), by_domain(window()), limits(), exfil).prop_map(
        |(allow, deny, mode, window, windows, limits, exfil)| {
            object(vec![
                ("allow", allow),
                ("deny", deny),
                ("mode", mode),
                ("time_window", window),
                ("domain_time_windows", windows),
                ("limits", limits),
                ("exfil", exfil),
            ])
        },
    )
}

/// A document that is a valid policy, in any of the ways people may write it.
fn document() -> impl Strategy<Value = Value> {
    let hosts = of(btree_map("[A-Za-z0-9._-]{1,8}", host(), 0..4).prop_map(|mut hosts| {
        for (index, block) in hosts.values_mut().enumerate() {
            let sources = json!([format!("10.0.{index}.1"), format!("2001:DB8:{index}::/48")]);
            block.as_object_mut().unwrap().insert("sources".to_owned(), sources);
        }
        json!(hosts)
    }));
    let scope = of(prop_oneof![
        vec(network_text(), 1..3).prop_map(|sources| json!({ "sources": sources })),
        vec("[a-z]{1,4}[0-9]?", 1..3).prop_map(|interfaces| json!({ "interfaces": interfaces })),
    ]);
    let zone = of(select(vec![json!("UTC"), json!("Europe/Berlin"), json!("America/New_York")]));
    let labels = by_domain("[a-z ü-]{0,8}x".prop_map(Value::String));
    let first = (mode(), zone, scope, allow(), deny(), labels);
    let second = (of(window()), by_domain(window()), limits(), hosts);
    (first, second).prop_map(|((mode, zone, scope, allow, deny, labels), (window, windows, limits, hosts))| {
        object(vec![
            ("hosts", hosts),
            ("version", Some(json!(1))),
            ("mode", mode),
            ("time_zone", zone),
            ("scope", scope),
            ("allow", allow),
            ("deny", deny),
            ("labels", labels),
            ("time_window", window),
            ("domain_time_windows", windows),
            ("limits", limits),
        ])
    })
}

/// The policy's meaning without the places it was written at (`Debug` shows them as bare pointers).
fn meaning(policy: &Policy) -> String {
    let text = format!("{policy:#?}");
    text.lines().filter(|line| !line.trim_start().starts_with("path: ")).collect::<Vec<_>>().join("\n")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_normal_form_means_the_same(document in document()) {
        let policy = parse(&document.to_string()).map_err(|errors| TestCaseError::fail(format!("{errors:#?}")))?;
        let normal = normalised(&policy);
        let again = parse(&normal.to_string()).map_err(|errors| TestCaseError::fail(format!("{errors:#?}")))?;
        prop_assert_eq!(meaning(&again), meaning(&policy));
        prop_assert_eq!(normalised(&again).to_string(), normal.to_string());
        prop_assert_eq!(parse(&normal.to_string()).unwrap(), again.clone());
        prop_assert_eq!(digest(&again), digest(&policy));
        prop_assert_eq!(document_digest(&policy), sha256(&normal.to_string()));
        prop_assert_eq!(not_yet_enforced(&again).len(), not_yet_enforced(&policy).len());
    }

    #[test]
    fn any_text_gets_an_answer(text in any::<String>()) {
        let _ = parse(&text);
        let _ = domain::pattern(&text);
    }

    #[test]
    fn any_entry_gets_an_answer_that_names_its_place(text in any::<String>(), odd in "[-*./:@\\[\\]a-z0-9 ü%]{0,24}") {
        for text in [text, odd] {
            let errors = parse(&json!({
                "version": 1, "time_zone": text, "mode": text,
                "allow": { "domains": [text], "ips": [text], "ports": [text] },
                "scope": { "interfaces": [text] },
                "time_window": { "start": text, "end": text, "days": [text] },
                "labels": { text.clone(): text },
                "hosts": { text.clone(): { "sources": [text] } },
                text.clone(): text,
            }).to_string()).unwrap_err();
            for error in errors {
                prop_assert!(error.path.is_empty() || error.path.starts_with('/'));
                prop_assert!(!error.message.is_empty());
                prop_assert!(error.hint.is_some());
            }
        }
    }

    #[test]
    fn a_damaged_policy_gets_an_answer(document in document(), at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
        let mut bytes = document.to_string().into_bytes();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = with }
        let _ = clawgress::policy::parse::parse_bytes(&bytes);
    }

    #[test]
    fn a_value_in_the_wrong_place_is_found_by_its_path(document in document(), pick in any::<prop::sample::Index>(), odd in select(vec![json!(null), json!(true), json!(-1.5), json!([[]]), json!({"zz": 0}), json!("\u{0}")])) {
        let mut places = Vec::new();
        pointers(&document, String::new(), &mut places);
        let place = pick.get(&places).clone();
        let mut document = document;
        *document.pointer_mut(&place).unwrap() = odd;
        let errors = parse(&document.to_string()).unwrap_err();
        prop_assert!(errors.iter().any(|error| error.path.starts_with(&place)), "{place} in {errors:#?}");
        for error in errors {
            // Every place named exists in the document.
            prop_assert!(document.pointer(&error.path).is_some(), "{}", error.path);
        }
    }

    #[test]
    fn names_are_in_normal_form_and_stay_so(text in domain_text()) {
        let pattern = domain::pattern(&text).unwrap();
        prop_assert_eq!(domain::pattern(&pattern.to_string()).unwrap(), pattern.clone());
        let (Pattern::Exact(name) | Pattern::Below(name)) = pattern;
        let wire = Name::from_wire_labels(name.as_str().split('.').map(str::as_bytes));
        prop_assert_eq!(wire, Some(name));
    }

    #[test]
    fn the_written_document_is_json_as_everybody_reads_it(document in document()) {
        fn same(written: &Written<'_>, value: &Value) -> bool {
            match (written, value) {
                (Written::Null, Value::Null) => true,
                (Written::Bool(a), Value::Bool(b)) => a == b,
                (Written::Number(a), Value::Number(b)) => a == b,
                (Written::String(a), Value::String(b)) => a == b,
                (Written::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(&a, b)),
                (Written::Object(a), Value::Object(b)) => {
                    a.len() == b.len() && a.iter().zip(b).all(|((ka, a), (kb, b))| ka == kb && same(a, b))
                }
                _ => false,
            }
        }
        prop_assert!(same(&Written::read(&document.to_string()).unwrap(), &document));
    }
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|octet| format!("{octet:02x}")).collect()
}

/// Every place below the root, except those that may hold anything.
fn pointers(value: &Value, at: String, places: &mut Vec<String>) {
    if !at.is_empty() {
        places.push(at.clone());
    }
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(map) => map.iter().for_each(|(k, v)| pointers(v, format!("{at}/{}", escaped(k)), places)),
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| pointers(v, format!("{at}/{i}"), places)),
        _ => {}
    }
}

#[test]
fn the_example_policies_are_valid_and_marked() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/policies");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let parsed = parse_with_warnings(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|errors| panic!("{}: {errors:#?}", path.display()));
        assert_eq!(parsed.warnings, [], "{}", path.display());
        let marked = path.to_string_lossy().contains("not-yet-enforceable");
        assert_eq!(!not_yet_enforced(&parsed.policy).is_empty(), marked, "{}", path.display());
        count += 1;
    }
    assert!(count >= 5);
}

#[test]
fn the_policies_of_the_reference_are_valid() {
    let text = include_str!("../docs/policy.md");
    let blocks = text.split("```json\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let policies: Vec<&str> = blocks.filter(|block| block.contains("\"version\"")).collect();
    assert!(policies.len() >= 2);
    for policy in policies {
        let parsed = parse_with_warnings(policy).unwrap_or_else(|errors| panic!("{policy}{errors:#?}"));
        assert_eq!(parsed.warnings, []);
    }
}

#[test]
fn warnings_name_what_has_no_effect() {
    let parsed = parse_with_warnings(
        r#"{"version": 1, "allow": {"domains": ["a.example.com", "*.example.org", "A.example.com"]},
            "labels": {"A.Example.com": "x", "b.example.org": "x", "C.example.com": "x", "*.example.com": "x"},
            "domain_time_windows": {"d.example.com": {"days": ["mon"]}},
            "hosts": {"h": {"sources": ["10.0.0.1"], "allow": {"domains": ["h.example.com"]},
                "exfil": {"domains": {"a.example.com": {"bytes": 1, "period": "day"}, "h.example.com": {"bytes": 1, "period": "day"}}}}}}"#,
    )
    .unwrap();
    let paths: Vec<&str> = parsed.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/allow/domains/2",
            "/labels/C.example.com",
            "/domain_time_windows/d.example.com",
            "/hosts/h/exfil/domains/a.example.com"
        ]
    );
}

#[test]
fn a_digest_is_of_the_meaning() {
    let a = parse(r#"{"version": 1, "allow": {"domains": ["A.example.com."], "ips": ["192.0.2.1"]}}"#).unwrap();
    let b = parse(r#"{"allow": {"ips": ["192.0.2.1/32"], "domains": ["a.example.com"]}, "version": 1}"#).unwrap();
    let c = parse(r#"{"allow": {"ips": ["192.0.2.1/32"]}, "version": 1}"#).unwrap();
    assert_eq!(digest(&a), digest(&b));
    assert_ne!(digest(&a), digest(&c));
    assert_eq!(digest(&parse(r#"{"version": 1}"#).unwrap()), SMALLEST);
}

/// `printf '{"version":1}' | sha256sum`
const SMALLEST: &str = "2430f1a2ad2982d0067885488a4c89e21ad1d7c83b115ba8f1b20acc88dfaea8";

#[test]
fn a_hundred_thousand_entries_are_linear_work() {
    // A debug build takes some seconds for what a release build does in a fraction of one; quadratic work would take
    // minutes in both.
    let domains: Vec<String> = (0..100_000).map(|n| format!("host-{n}.Example-{}.com", n % 977)).collect();
    let ips: Vec<String> = (0..100_000u32).map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()).collect();
    let sources: Vec<String> = (0..100_000u32).map(|n| std::net::Ipv4Addr::from(0x0b00_0000 + n).to_string()).collect();
    let labels: Map<String, Value> = domains.iter().map(|name| (name.clone(), json!("x"))).collect();
    let text = json!({
        "version": 1, "allow": { "domains": domains, "ips": ips }, "labels": labels,
        "hosts": { "h": { "sources": sources } }
    })
    .to_string();
    let start = std::time::Instant::now();
    let parsed = parse_with_warnings(&text).unwrap();
    assert!(parsed.warnings.is_empty());
    assert!(start.elapsed() < std::time::Duration::from_secs(30), "{:?}", start.elapsed());
    eprintln!("400 000 entries: {:?}", start.elapsed());
}
