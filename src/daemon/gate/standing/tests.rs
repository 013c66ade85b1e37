use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::core::classes::{Classes, MAX_LINKS};
use crate::core::lease::LeaseRequest;
use crate::core::state::{MAX_NAMES, World};
use crate::policy::parse;

const POLICY: &str = r#"{ "version": 1, "allow": { "domains": ["*.test.example"] }, "hosts": {
    "a": { "sources": ["192.168.10.10"] },
    "b": { "sources": ["192.168.10.13"] },
    "w": { "sources": ["192.168.10.11"], "time_window": { "start": "00:00", "end": "00:01" } },
    "c": { "sources": ["192.168.10.12"],
        "exfil": { "domains": { "capped.test.example": { "bytes": 1000, "period": "hour" } } } } } }"#;

struct Bench {
    state: State,
    leases: Leases,
    name: Name,
    told: BTreeSet<IpAddr>,
}

fn name(text: &str) -> Name {
    crate::policy::domain::name(text).unwrap()
}

fn addresses(last: u8) -> BTreeSet<IpAddr> {
    BTreeSet::from([IpAddr::from([151, 101, 1, last])])
}

impl Bench {
    fn new() -> Self {
        let policy = parse(POLICY).unwrap();
        let mut state = State::new(Classes::first_of_table(0));
        let pending = state.enforce(&policy, &World::listening(53), 1, 0);
        state.enforced(pending);
        let leases = Leases::new(Instant::now());
        leases.open();
        Self { state, leases, name: name("one.test.example"), told: addresses(1) }
    }

    fn host(&self, host: &str) -> HostId {
        *self.state.hosts.iter().find(|(name, _)| name.as_str() == host).unwrap().1
    }

    /// The gate's work on one request, with a kernel that takes everything; and what is said afterwards.
    fn lease(&mut self, host: &str, text: &str, links: &[Name], ttl: u64) -> bool {
        let name = name(text);
        let told = addresses(1);
        let wanted = Wanted {
            revision: 1,
            host: self.host(host),
            name: &name,
            links,
            addresses: &told,
            ttl: Duration::from_secs(ttl),
        };
        let leased = self.state.lease(&[LeaseRequest::from(wanted)], 0);
        assert!(leased.results[0].is_ok());
        self.leases.say(&self.state, &leased, 0.into());
        self.leases.held(&wanted).is_some()
    }

    /// The first name again, at another address (so it is the same class) and over as many names as a class remembers.
    fn lead_over_many(&mut self, host: &str) {
        let links: Vec<Name> = (0..MAX_LINKS).map(|number| name(&format!("l{number}.test.example"))).collect();
        let (one, told) = (name("one.test.example"), addresses(2));
        let (host, ttl) = (self.host(host), Duration::from_secs(100));
        let wanted = Wanted { revision: 1, host, name: &one, links: &links, addresses: &told, ttl };
        let leased = self.state.lease(&[LeaseRequest::from(wanted)], 0);
        self.leases.say(&self.state, &leased, 0.into());
    }

    fn held<'w>(&'w self, change: impl FnOnce(&mut Wanted<'w>)) -> bool {
        let (revision, host) = (1, self.host("a"));
        let ttl = Duration::from_secs(100);
        let mut wanted = Wanted { revision, host, name: &self.name, links: &[], addresses: &self.told, ttl };
        change(&mut wanted);
        self.leases.held(&wanted).is_some()
    }
}

#[test]
fn it_is_said_from_the_second_time_on() {
    let mut bench = Bench::new();
    assert!(!bench.lease("a", "one.test.example", &[], 100) && bench.lease("a", "one.test.example", &[], 100));
}

#[test]
fn it_is_said_of_that_name_address_host_revision_and_time_only() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.lease("a", "one.test.example", &[], 100);
    }
    assert!(bench.held(|_| {}) && bench.held(|wanted| wanted.ttl = Duration::ZERO));
    let other = name("other.test.example");
    assert!(!bench.held(|wanted| wanted.revision = 2));
    assert!(!bench.held(|wanted| wanted.host = HostId::NOBODY));
    assert!(!bench.held(|wanted| wanted.ttl = Duration::from_secs(102)));
    assert!(!bench.held(|wanted| wanted.links = std::slice::from_ref(&other)), "a denial would not find it");
    let (also, name) = (BTreeSet::from([IpAddr::from([151, 101, 1, 1]), IpAddr::from([151, 101, 1, 2])]), &other);
    assert!(!bench.held(|wanted| wanted.addresses = &also));
    assert!(!bench.held(|wanted| wanted.name = name));
}

#[test]
fn links_that_were_told_are_said() {
    let mut bench = Bench::new();
    let links = [name("cdn.test.example")];
    assert!(!bench.lease("a", "one.test.example", &links, 100) && bench.lease("a", "one.test.example", &links, 100));
    assert!(bench.held(|wanted| wanted.links = &links));
}

#[test]
fn a_name_that_has_gone_from_an_address_is_not_said() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.lease("a", "one.test.example", &[], 100);
    }
    for number in 0..MAX_NAMES {
        assert!(bench.held(|_| {}), "{number} other names have room");
        bench.lease("a", &format!("n{number}.test.example"), &[], 200);
    }
    assert!(!bench.held(|_| {}), "the registry does not know the name any more");
}

#[test]
fn names_on_the_way_that_were_forgotten_are_noted_again() {
    let mut bench = Bench::new();
    let cdn = [name("cdn.test.example")];
    for _ in 0..2 {
        bench.lease("a", "one.test.example", &cdn, 100);
    }
    assert!(bench.held(|wanted| wanted.links = &cdn));
    bench.lead_over_many("a");
    assert!(!bench.held(|wanted| wanted.links = &cdn), "a denial of that name would end nothing");
    bench.lease("a", "one.test.example", &cdn, 100);
    assert!(bench.held(|wanted| wanted.links = &cdn));
}

#[test]
fn names_that_one_host_led_over_take_nothing_from_another() {
    let mut bench = Bench::new();
    let cdn = [name("cdn.test.example")];
    for host in ["a", "b", "a", "b"] {
        bench.lease(host, "one.test.example", &cdn, 100);
    }
    let other = bench.host("b");
    bench.lead_over_many("a");
    assert!(!bench.held(|_| {}), "its own answers are noted again");
    assert!(bench.held(|wanted| wanted.host = other), "they were not about that one");
    bench.leases.sweep(0);
    assert!(bench.held(|wanted| wanted.host = other));
}

#[test]
fn it_is_said_for_as_long_as_an_answer_is_good() {
    let mut bench = Bench::new();
    let at = |bench: &mut Bench, seconds| {
        bench.leases.start = Instant::now().checked_sub(Duration::from_secs(seconds)).unwrap();
    };
    for _ in 0..2 {
        bench.lease("a", "one.test.example", &[], 100);
    }
    at(&mut bench, 30);
    assert!(bench.held(|wanted| wanted.ttl = Duration::from_secs(70)), "it has 71 s left");
    assert!(!bench.held(|wanted| wanted.ttl = Duration::from_secs(72)));
    at(&mut bench, 45);
    assert!(!bench.held(|wanted| wanted.ttl = Duration::from_secs(1)), "an answer opens for a minute at least");
    at(&mut bench, 102);
    assert!(!bench.held(|wanted| wanted.ttl = Duration::ZERO), "it has ended");
}

#[test]
fn a_term_that_ends_takes_everything_with_it() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.lease("a", "one.test.example", &[], 100);
    }
    bench.leases.close();
    assert!(!bench.held(|_| {}));
    bench.leases.open();
    assert!(!bench.held(|_| {}), "the kernel may have lost it meanwhile");
    assert!(bench.lease("a", "one.test.example", &[], 100));
    bench.leases.close();
    assert!(!bench.lease("a", "one.test.example", &[], 100), "between two terms nothing is said");
}

#[test]
fn of_caps_nothing_is_said_and_of_windows_until_they_close() {
    let mut bench = Bench::new();
    assert!(!bench.lease("c", "one.test.example", &[], 100) && !bench.lease("c", "one.test.example", &[], 100));
    // The clocks of this test began at midnight, and the window closes after a minute.
    assert!(!bench.lease("w", "one.test.example", &[], 100) && bench.lease("w", "one.test.example", &[], 100));
    let until = |bench: &Bench, host| {
        let host = bench.host(host);
        bench.state.standing(host, IpAddr::from([151, 101, 1, 1]), 0.into()).unwrap().until
    };
    assert_eq!(until(&bench, "w"), 60_000);
    bench.lease("a", "one.test.example", &[], 100);
    assert_eq!(until(&bench, "a"), 101_000, "a second for the rounding of TTLs");
}

#[test]
fn what_has_ended_is_swept() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        bench.lease("a", "one.test.example", &[], 100);
    }
    let count = |bench: &Bench| bench.leases.shards.iter().map(|shard| shard.read().unwrap().len()).sum::<usize>();
    bench.leases.sweep(100_999);
    assert_eq!(count(&bench), 1);
    bench.leases.sweep(101_000);
    assert_eq!(count(&bench), 0);
}
