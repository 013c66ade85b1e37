//! The exported zones, read by the rules of RFC 4592 and in their order, decide as the reference evaluator does, for
//! many random policies. `rpz_peers` shows with real resolvers that these rules are the ones in use.

use std::collections::{BTreeMap, BTreeSet};

use clawgress::plan::rpz::{Zone, order, zones};
use clawgress::policy::decision::Verdict;
use clawgress::policy::name::Name;
use clawgress::policy::reference;

#[allow(dead_code, reason = "the flows of the differential test are not needed here")]
#[path = "differential/random.rs"]
mod random;
use random::Random;

const POLICIES: u64 = 1000;

/// A zone as a resolver sees it: its records, and all names that exist because of them.
struct Loaded {
    records: BTreeMap<String, String>,
    existing: BTreeSet<String>,
}

impl Loaded {
    fn new(zone: &Zone) -> Self {
        let mut records = BTreeMap::new();
        let mut existing = BTreeSet::new();
        let mut last = String::new();
        for line in zone.text.lines().filter(|line| line.contains(" CNAME ")) {
            let mut fields = line.split(' ');
            let (owner, target) = (fields.next().unwrap().to_owned(), fields.nth(1).unwrap().to_owned());
            assert!(last < owner, "sorted, and one record for each owner: {}", zone.text);
            last.clone_from(&owner);
            let mut rest = owner.as_str();
            while let Some((_, above)) = rest.split_once('.') {
                existing.insert(rest.to_owned());
                rest = above;
            }
            existing.insert(rest.to_owned());
            records.insert(owner, target);
        }
        Self { records, existing }
    }

    /// The target of the record for `name`: its own, else that of the wildcard at the closest name that exists.
    fn find(&self, name: &str) -> Option<&str> {
        if self.existing.contains(name) {
            return self.records.get(name).map(String::as_str);
        }
        let mut rest = name;
        let wildcard = loop {
            match rest.split_once('.') {
                Some((_, above)) if self.existing.contains(above) => break format!("*.{above}"),
                Some((_, above)) => rest = above,
                None => break "*".to_owned(),
            }
        };
        self.records.get(&wildcard).map(String::as_str)
    }
}

fn name(text: &str) -> Name {
    Name::from_wire_labels(text.split('.').map(str::as_bytes)).unwrap()
}

#[test]
fn zones_in_their_order_decide_as_the_policy() {
    let mut seen = [0, 0];
    for seed in 1..=POLICIES {
        let mut random = Random::new(seed * 31);
        let policy = random.policy();
        let loaded: BTreeMap<String, Loaded> =
            zones(&policy, seed, None).iter().map(|zone| (zone.name.clone(), Loaded::new(zone))).collect();
        let mut questions: BTreeSet<String> = ["com", "org", "nowhere", "x.nowhere.org"].map(str::to_owned).into();
        for owner in loaded.values().flat_map(|zone| &zone.existing).filter(|owner| !owner.starts_with('*')) {
            questions.extend([owner.clone(), format!("kid.{owner}"), format!("two.deep.{owner}")]);
        }
        questions.extend((0..20).map(|_| random.name().to_string()));
        for host in [None].into_iter().chain(policy.hosts.keys().map(Some)) {
            for question in &questions {
                let order = order(&policy, host, false);
                let found = order.iter().find_map(|zone| loaded[zone].find(question));
                let allowed = match found {
                    Some("rpz-passthru.") => true,
                    Some(".") => false,
                    other => panic!("{question} for {host:?} ends in {other:?}"),
                };
                let due = reference::decide_name(&policy, host, Some(&name(question))).verdict == Verdict::Allow;
                assert_eq!(allowed, due, "{question} for {host:?} in {policy:#?}");
                seen[usize::from(due)] += 1;
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 10_000), "too little was asked: {seen:?}");
}
