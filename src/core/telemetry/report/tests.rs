use super::*;

fn tally() -> Tally {
    let mut tally = Tally::default();
    let sent = Counts { bytes_up: 1000, bytes_down: 5000, packets_up: 10, packets_down: 4, ..Counts::default() };
    let asked = Counts { queries: 1, allows: 1, ..Counts::default() };
    let refused = Counts { queries: 1, denies: 1, ..Counts::default() };
    tally.count(&"a".into(), Some(&"api.example.com".into()), &sent);
    tally.count(&"a".into(), Some(&"api.example.com".into()), &asked);
    tally.count(&"*".into(), Some(&"pastebin.com".into()), &refused);
    tally.count(&"a".into(), Some(&"10.10.168.192.in-addr.arpa".into()), &refused);
    tally.reasons.insert("not-allowlisted".into(), 2);
    tally.reasons.insert("no-lease".into(), 7);
    tally
}

fn made(view: &View) -> Result<Report, Unseen> {
    let hosts = BTreeMap::from([("a".to_owned(), vec!["192.168.10.10/32".to_owned()]), ("b".to_owned(), Vec::new())]);
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let cap = CapUse {
        host: "a".into(),
        domain: "api.example.com".into(),
        bytes: 1_048_576,
        period: "hour".into(),
        used: 1000,
        remaining: 1_047_576,
        resets_at: now,
    };
    let tally = tally();
    let facts = Facts {
        window: Window::Hour,
        since: now,
        now,
        revision: Some(7),
        tally: &tally,
        hosts: &hosts,
        caps: &[cap],
        label: &|name| (name == "api.example.com").then(|| "llm-provider".into()),
        trouble: Vec::new(),
    };
    report(&facts, view)
}

#[test]
fn the_report_is_the_object_of_the_contract() {
    let value = serde_json::to_value(made(&View::All).unwrap()).unwrap();
    let api = serde_json::json!({ "bytes_up": 1000, "bytes_down": 5000, "packets_up": 10, "packets_down": 4,
        "queries": 1, "allows": 1, "denies": 0, "label": "llm-provider" });
    let zero = serde_json::json!({ "bytes_up": 0, "bytes_down": 0, "packets_up": 0, "packets_down": 0, "queries": 0,
        "allows": 0, "denies": 0, "domains": {}, "caps": {} });
    assert_eq!(
        value,
        serde_json::json!({ "window": "1h", "since": "2027-01-15T08:00:00Z", "generated_at": "2027-01-15T08:00:00Z",
            "revision": 7,
            "usage": { "bytes_up": 1000, "bytes_down": 5000, "packets_up": 10, "packets_down": 4, "queries": 3,
                       "allows": 1, "denies": 9 },
            "agents": {
                "a": { "bytes_up": 1000, "bytes_down": 5000, "packets_up": 10, "packets_down": 4, "queries": 2,
                       "allows": 1, "denies": 1, "domains": { "api.example.com": api },
                       "caps": { "api.example.com": { "bytes": 1_048_576, "period": "hour", "used": 1000,
                                 "remaining": 1_047_576, "resets_at": "2027-01-15T08:00:00Z" } } },
                "*": { "bytes_up": 0, "bytes_down": 0, "packets_up": 0, "packets_down": 0, "queries": 1,
                       "allows": 0, "denies": 1, "domains": {}, "caps": {} },
                "b": zero },
            "domains": { "api.example.com": api },
            "denies": { "by_reason": { "not-allowlisted": 2, "no-lease": 7 },
                        "by_domain": { "pastebin.com": 1, "10.10.168.192.in-addr.arpa": 1 } } })
    );
    let back: Report = serde_json::from_value(value).unwrap();
    assert_eq!(back, made(&View::All).unwrap());
}

#[test]
fn views_are_parts() {
    let agent = made(&View::Agent("a".into())).unwrap();
    assert!(agent.usage.is_none() && agent.domains.is_none() && agent.agents.unwrap().len() == 1);
    let domain = made(&View::Domain("api.example.com".into())).unwrap();
    assert_eq!(domain.domains.unwrap()["api.example.com"].counts.bytes_up, 1000);
    assert_eq!(domain.agents.unwrap().into_keys().collect::<Vec<_>>(), ["a"]);
    assert!(made(&View::Domain("pastebin.com".into())).is_ok(), "tried is seen");
    let unseen = made(&View::Agent("nobody".into())).unwrap_err().to_string();
    assert_eq!(unseen, "nothing was seen of an agent named nobody in the last 1h");
    made(&View::Domain("elsewhere.example".into())).unwrap_err();
    let denies = made(&View::Denies).unwrap();
    assert!(denies.agents.is_none() && denies.denies.is_some());
}

#[test]
fn an_export_hides_addresses_unless_told_otherwise() {
    let told = serde_json::to_string(&made(&View::Export { redact: true }).unwrap()).unwrap();
    assert!(!told.contains("192") && !told.contains("in-addr.arpa") && told.contains("\"redacted\":true"), "{told}");
    assert!(told.contains("pastebin.com") && told.contains("\"(reverse look-ups)\":1"), "{told}");
    let whole = made(&View::Export { redact: false }).unwrap();
    assert_eq!(whole.export.unwrap().sources["a"], ["192.168.10.10/32"]);
    assert_eq!(whole.denies.unwrap().by_domain["10.10.168.192.in-addr.arpa"], 1);
}

#[test]
fn statistics_have_the_top_of_each_list() {
    let mut tally = tally();
    for number in 0..30 {
        let counts = Counts { queries: number, denies: number, ..Counts::default() };
        tally.count(&"b".into(), Some(&format!("n{number}.example").into()), &counts);
    }
    let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    let stats = stats(&tally, now, now, None);
    assert_eq!(stats.top_denied.len(), TOP);
    assert!(stats.top_denied.values().all(|count| *count >= 20), "{:?}", stats.top_denied);
    assert_eq!(stats.top_agents.keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(stats.usage_24h.denies, 9);
}
