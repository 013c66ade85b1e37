//! The zones that are served to other name servers: the same records as the printed ones, and at every instant what the
//! policy with its windows says.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use clawgress::plan::rpz::{Action, Image, Served, order, served, zones};
use clawgress::policy::decision::Verdict;
use clawgress::policy::model::Policy;
use clawgress::policy::name::Name;
use clawgress::policy::schedule::Moment;
use clawgress::policy::{parse, reference};

#[allow(dead_code, reason = "the flows of the differential test are not needed here")]
#[path = "differential/random.rs"]
mod random;
use random::Random;

/// Random policies; most have windows.
const POLICIES: u64 = 150;

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn moment(policy: &Policy, utc: DateTime<Utc>) -> Moment {
    Moment::of(policy, utc, chrono_tz::Tz::UTC)
}

/// What a resolver makes of a zone: the closest owner that covers a name (RFC 4592).
fn look_up(image: &BTreeMap<String, Action>, nodes: &BTreeSet<String>, name: &str) -> Option<Action> {
    if let Some(action) = image.get(name) {
        return Some(*action);
    }
    if nodes.contains(name) {
        return None;
    }
    let mut rest = name;
    loop {
        rest = rest.split_once('.').map_or("", |(_, above)| above);
        if rest.is_empty() || nodes.contains(rest) {
            let wildcard = if rest.is_empty() { "*".to_owned() } else { format!("*.{rest}") };
            return image.get(&wildcard).copied();
        }
    }
}

/// A zone, and every name that exists in it.
struct Loaded(BTreeMap<String, Action>, BTreeSet<String>);

impl Loaded {
    fn new(image: &Image) -> Self {
        let records: BTreeMap<String, Action> =
            image.records().map(|(owner, action)| (owner.to_owned(), action)).collect();
        let mut nodes = BTreeSet::new();
        for owner in records.keys() {
            let mut rest = owner.as_str();
            while let Some((_, above)) = rest.split_once('.') {
                nodes.insert(rest.to_owned());
                rest = above;
            }
            nodes.insert(rest.to_owned());
        }
        Self(records, nodes)
    }
}

fn allowed(view: &[&Loaded], name: &str) -> bool {
    let action = view.iter().find_map(|zone| look_up(&zone.0, &zone.1, name));
    action.expect("the last zone has every name") == Action::Passthru
}

fn names(zones: &[Served], random: &mut Random) -> BTreeSet<String> {
    let mut texts = BTreeSet::new();
    for (owner, _) in zones.iter().flat_map(|zone| zone.image.records()) {
        let mut rest = owner.strip_prefix("*.").unwrap_or(owner);
        while rest != "*" {
            texts.extend([rest.to_owned(), format!("kid.{rest}"), format!("two.deep.{rest}")]);
            let Some((_, above)) = rest.split_once('.') else { break };
            rest = above;
        }
    }
    texts.extend((0..30).map(|_| random.name().to_string()));
    texts
}

#[test]
fn what_is_served_means_what_the_policy_means_at_every_instant() {
    let (mut asked, mut closed) = (0, 0);
    for seed in 1..=POLICIES {
        let mut random = Random::new(seed * 31);
        let policy = random.policy();
        let mut utc = at("2026-03-28T22:00:00Z") + TimeDelta::minutes(i64::try_from(seed).unwrap() * 7);
        for _ in 0..4 {
            let moment = moment(&policy, utc);
            let zones = served(&policy, &moment);
            let loaded: BTreeMap<&str, Loaded> =
                zones.iter().map(|zone| (zone.name.as_str(), Loaded::new(&zone.image))).collect();
            let names = names(&zones, &mut random);
            for host in policy.hosts.keys().map(Some).chain([None]) {
                let order = order(&policy, host, true);
                let view: Vec<&Loaded> = order.iter().map(|name| &loaded[name.as_str()]).collect();
                for text in &names {
                    let Some(name) = Name::from_wire_labels(text.split('.').map(str::as_bytes)) else { continue };
                    let timeless = reference::decide_name(&policy, host, Some(&name)).verdict == Verdict::Allow;
                    let expected =
                        reference::decide_name_at(&policy, host, Some(&name), Some(&moment)).verdict == Verdict::Allow;
                    assert_eq!(
                        allowed(&view, text),
                        expected,
                        "{text} for {host:?} at {utc} in {policy:#?}\n{zones:#?}"
                    );
                    asked += 1;
                    closed += usize::from(timeless && !expected);
                }
            }
            utc = moment.next_change(&policy).unwrap_or(utc + TimeDelta::hours(5));
        }
    }
    assert!(asked > 20_000 && closed > 200, "too little was seen: {asked} asked, {closed} closed");
}

#[test]
fn what_is_served_is_what_is_printed() {
    for seed in 1..=POLICIES {
        let policy = Random::new(seed * 17).policy();
        let moment = moment(&policy, at("2026-06-15T10:30:00Z"));
        let printed = zones(&policy, 1, Some(&moment));
        let served = served(&policy, &moment);
        assert_eq!(
            printed.iter().map(|zone| (&zone.view, &zone.name)).collect::<Vec<_>>(),
            served.iter().map(|zone| (&zone.view, &zone.name)).collect::<Vec<_>>()
        );
        for (printed, served) in printed.iter().zip(&served) {
            let records: BTreeMap<&str, &str> = printed
                .text
                .lines()
                .filter(|line| line.contains(" CNAME ") && !line.starts_with(';'))
                .map(|line| (line.split(' ').next().unwrap(), line.split(' ').nth(2).unwrap()))
                .collect();
            let image: BTreeMap<&str, &str> =
                served.image.records().map(|(owner, action)| (owner, action.target())).collect();
            assert_eq!(records, image, "{}", printed.name);
            assert_eq!(served.image.len(), image.len(), "every owner once");
        }
    }
}

#[test]
fn a_window_inside_a_wildcard_closes_its_name_alone() {
    let policy = parse(
        r#"{"version": 1, "time_zone": "UTC", "allow": {"domains": ["*.example.com", "example.org"]},
            "domain_time_windows": {"a.example.com": {"start": "10:00", "end": "11:00"}},
            "hosts": {"night": {"sources": ["192.0.2.1"], "time_window": {"start": "22:00", "end": "23:00"}}}}"#,
    )
    .unwrap();
    let zone = |utc: &str, name: &str| {
        let zones = served(&policy, &moment(&policy, at(utc)));
        let zone = zones.iter().find(|zone| zone.name == name).unwrap().clone();
        zone.image.records().map(|(owner, action)| format!("{owner} {}", action.target())).collect::<Vec<_>>()
    };
    let global = "global.allow.rpz.clawgress.";
    assert_eq!(
        zone("2026-06-15T09:59:59Z", global),
        [
            "*.a.example.com rpz-passthru.",
            "*.example.com rpz-passthru.",
            "a.example.com .",
            "example.org rpz-passthru."
        ]
    );
    assert!(zone("2026-06-15T10:00:00Z", global).contains(&"a.example.com rpz-passthru.".to_owned()));
    assert!(zone("2026-06-15T21:59:59Z", "night.allow.rpz.clawgress.").is_empty());
    assert_eq!(zone("2026-06-15T22:00:00Z", "night.allow.rpz.clawgress.").len(), 4);
}
