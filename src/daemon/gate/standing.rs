//! Leases that the kernel holds, for whoever sends answers to look at without asking the gate.
//!
//! The gate alone writes it, and only after the kernel's acknowledgement. What it says may lag behind what the kernel
//! holds, but never the other way round: before the gate begins anything that could take a lease away, it ends the *term*,
//! and with that everything said under it. Time is the only other thing that ends a lease, and each has its end.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use crate::core::doors::Now;
use crate::core::lease::{Acked, HostId, Wanted};
use crate::core::state::{Leased, State};
use crate::policy::name::Name;

/// Parts, each with a lock of its own.
const SHARDS: usize = 16;
/// No term: nothing is said.
const CLOSED: u64 = 0;

/// One address of one host.
struct Held {
    /// The term in which it was said.
    term: u64,
    /// The revision in force then.
    revision: u64,
    /// The names it was given for, each with its end (milliseconds of the gate's clock).
    names: Box<[(Name, u64)]>,
    /// The other names on the way, of which a change of the policy will think.
    links: Box<[Name]>,
    /// When the kernel shuts it, whatever the name.
    until: u64,
}

/// The view; see the module.
pub struct Leases {
    /// The term that is on, or [`CLOSED`].
    term: AtomicU64,
    /// The latest term; written by the gate alone.
    latest: AtomicU64,
    start: Instant,
    shards: [RwLock<HashMap<(HostId, IpAddr), Held>>; SHARDS],
}

impl Leases {
    /// Says nothing yet. `start` is the beginning of the gate's clock.
    pub fn new(start: Instant) -> Self {
        Self { term: AtomicU64::new(CLOSED), latest: AtomicU64::new(CLOSED), start, shards: Default::default() }
    }

    /// Ends the term; to be called before anything is sent to the kernel that may take a lease away.
    pub fn close(&self) {
        self.term.store(CLOSED, Ordering::SeqCst);
    }

    /// Begins another term, of which nothing is said yet, if none is on.
    pub(super) fn open(&self) {
        if self.term.load(Ordering::Relaxed) != CLOSED {
            return;
        }
        let term = self.latest.load(Ordering::Relaxed) + 1;
        self.latest.store(term, Ordering::Relaxed);
        self.term.store(term, Ordering::SeqCst);
    }

    /// The kernel has acknowledged these; from now on it is said. Only what is asked for again: most names are asked for
    /// once. What was said before of others among them is said anew, because a name may have gone from an address.
    pub(super) fn say(&self, state: &State, leased: &Leased, now: Now) {
        if self.term.load(Ordering::Relaxed) == CLOSED {
            return;
        }
        if leased.forgot {
            // Which addresses those names led to is not known, so their answers are noted again.
            self.close();
            self.open();
        }
        for key in &leased.touched {
            let known = self.shard(key).read().unwrap_or_else(PoisonError::into_inner).contains_key(key);
            if known {
                self.publish(state, *key, now);
            }
        }
        for key in &leased.again {
            self.publish(state, *key, now);
        }
    }

    fn publish(&self, state: &State, key: (HostId, IpAddr), now: Now) {
        let held = state.standing(key.0, key.1, now).map(|standing| Held {
            term: self.term.load(Ordering::Relaxed),
            revision: state.revision,
            names: standing.names.iter().map(|(name, end)| (name.clone(), *end)).collect(),
            links: standing.links.iter().cloned().collect(),
            until: standing.until,
        });
        let mut shard = self.shard(&key).write().unwrap_or_else(PoisonError::into_inner);
        match held {
            Some(held) => shard.insert(key, held),
            None => shard.remove(&key),
        };
    }

    /// Forgets what has ended.
    pub fn sweep(&self, now: u64) {
        let term = self.term.load(Ordering::Relaxed);
        for shard in &self.shards {
            let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, held| held.term == term && held.until > now);
        }
    }

    /// See [`crate::core::lease::Leaser::held`].
    pub fn held(&self, wanted: &Wanted<'_>) -> Option<Acked> {
        let term = self.term.load(Ordering::SeqCst);
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let until = now.saturating_add(u64::try_from(wanted.term().as_millis()).unwrap_or(u64::MAX));
        let good = |held: &Held| {
            let end = held.names.iter().find(|(name, _)| name == wanted.name).map(|(_, end)| *end);
            held.term == term
                && held.revision == wanted.revision
                && end.is_some_and(|end| end >= until)
                && held.until > now
                && wanted.links.iter().all(|link| held.links.contains(link))
        };
        let all = term != CLOSED
            && wanted.addresses.iter().all(|address| {
                let key = (wanted.host, *address);
                self.shard(&key).read().unwrap_or_else(PoisonError::into_inner).get(&key).is_some_and(good)
            });
        // A term that ended meanwhile may have ended because of one of these.
        (all && self.term.load(Ordering::SeqCst) == term).then(Acked::by_kernel)
    }

    fn shard(&self, (host, address): &(HostId, IpAddr)) -> &RwLock<HashMap<(HostId, IpAddr), Held>> {
        let last = match address {
            IpAddr::V4(address) => address.octets()[3],
            IpAddr::V6(address) => address.octets()[15] ^ address.octets()[7],
        };
        &self.shards[(usize::from(last) + usize::from(host.0)) % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::core::classes::{Classes, MAX_LINKS};
    use crate::core::lease::LeaseRequest;
    use crate::core::state::{MAX_NAMES, World};
    use crate::policy::parse;

    const POLICY: &str = r#"{ "version": 1, "allow": { "domains": ["*.test.example"] }, "hosts": {
        "a": { "sources": ["192.168.10.10"] },
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
        assert!(
            !bench.lease("a", "one.test.example", &links, 100) && bench.lease("a", "one.test.example", &links, 100)
        );
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
        // Another address of the same name: the same class.
        let links: Vec<Name> = (0..MAX_LINKS).map(|number| name(&format!("l{number}.test.example"))).collect();
        let (one, other) = (name("one.test.example"), addresses(2));
        let (host, ttl) = (bench.host("a"), Duration::from_secs(100));
        let wanted = Wanted { revision: 1, host, name: &one, links: &links, addresses: &other, ttl };
        let leased = bench.state.lease(&[LeaseRequest::from(wanted)], 0);
        bench.leases.say(&bench.state, &leased, 0.into());
        assert!(!bench.held(|wanted| wanted.links = &cdn), "a denial of that name would end nothing");
        bench.lease("a", "one.test.example", &cdn, 100);
        assert!(bench.held(|wanted| wanted.links = &cdn));
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
}
