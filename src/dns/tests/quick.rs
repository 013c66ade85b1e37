//! The quick way against the long way: the same octets, the same records of what was decided.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::svcb::{IpHint, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, HTTPS, MX, SVCB, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use proptest::prelude::*;

use super::doubles::{Kernel, Table};
use super::wire::{a, aaaa, cname, n, plain_question, question, record, reply, soa};
use crate::core::lease::{Acked, HostId};
use crate::core::observe::{Answered, Observer};
use crate::dns::arrivals::Arrivals;
use crate::dns::budget::Budget;
use crate::dns::counters::Counters;
use crate::dns::flights::Flying;
use crate::dns::pending::Pending;
use crate::dns::query::Transport;
use crate::dns::quick::{Landing, Quick, Turn};
use crate::dns::resolver::Resolver;
use crate::dns::service::{Client, Service, Step};
use crate::dns::upstream::{Lookup, Pool};
use crate::dns::{OutOfScope, Upstream};
use crate::policy::decision::{Decision, Reason, Verdict};
use crate::policy::model::Mode;

/// What an observer was told, but for the leases, which one of the two ways makes.
type Told = (u64, HostId, IpAddr, String, Option<IpAddr>, bool, Decision);

#[derive(Default)]
struct Notes(Mutex<Vec<Told>>);

impl Observer for Notes {
    fn answered(&self, query: Answered<'_>) {
        let Answered { revision, client, source, name, address, leased: _, tcp, decision } = query;
        let told = (revision, client, source, name.to_owned(), address, tcp, decision.clone());
        self.0.lock().unwrap().push(told);
    }
}

impl Notes {
    fn take(&self) -> Vec<Told> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Both {
    service: Arc<Service<Table, Kernel>>,
    notes: Arc<Notes>,
    runtime: tokio::runtime::Runtime,
    _flying: Flying,
}

impl Both {
    fn new(table: Table) -> Self {
        Self::within(Budget::new(None), table)
    }

    fn within(budget: Budget, table: Table) -> Self {
        let counters = Arc::new(Counters::default());
        // Nobody is there: what is not in the cache fails soon.
        let upstream = Upstream::plain((Ipv4Addr::LOCALHOST, 9).into());
        let pool = Pool::new(&[upstream], Arc::clone(&counters), || Err("not encrypted".to_owned())).unwrap();
        let (notes, leaser) = (Arc::new(Notes::default()), Arc::new(Kernel::default()));
        leaser.holds.store(true, Ordering::Relaxed);
        let service = Arc::new(Service {
            judge: Arc::new(ArcSwapOption::new(Some(Arc::new(table)))),
            leaser,
            resolver: Resolver::new(pool, Arc::clone(&counters), 1).unwrap(),
            pending: Pending::default(),
            budget,
            counters,
            out_of_scope: OutOfScope::Refuse,
            observer: Arc::clone(&notes) as Arc<dyn Observer>,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let inside = runtime.enter();
        let flying = service.resolver.flights.start(|inbox| Arrivals::opening(&service, inbox, &[])).unwrap();
        drop(inside);
        Self { service, notes, runtime, _flying: flying }
    }

    fn knows(&self, name: &str, kind: RecordType, dnssec_ok: bool, message: &Message, age: u64) {
        let lookup = Lookup { name: n(name), kind, dnssec_ok };
        let then = Instant::now().checked_sub(Duration::from_secs(age)).unwrap();
        self.service.resolver.cache.put(&lookup, &Arc::new(message.clone()), 100, then);
    }

    fn quick(&self, packet: &[u8], source: IpAddr) -> (Quick, Vec<u8>, Vec<Told>) {
        let _inside = self.runtime.enter();
        let mut out = Vec::new();
        let way = Turn::begin(&self.service).answer(packet, source, Some("lo"), &mut out);
        (way, out, self.notes.take())
    }

    fn long(&self, packet: &[u8], source: IpAddr) -> (Vec<u8>, Vec<Told>) {
        let client = Client { source, interface: Some("lo".into()) };
        let _inside = self.runtime.enter();
        let answer = match self.service.take(packet, client, Transport::Udp, None) {
            Step::Drop => Vec::new(),
            Step::Ready(bytes) => bytes,
            Step::Later(work) => self.runtime.block_on(work),
        };
        (answer, self.notes.take())
    }

    /// Whether the quick way answered; if so, as the long one does.
    fn agree(&self, packet: &[u8], source: IpAddr) -> bool {
        let (way, quick, told) = self.quick(packet, source);
        if !matches!(way, Quick::Told) {
            assert!(!matches!(way, Quick::Dropped) && told.is_empty(), "nothing happened yet: {told:?}");
            return false;
        }
        let (long, told_long) = self.long(packet, source);
        assert_eq!(quick, long, "\n{:?}\n{:?}", Message::from_vec(&quick), Message::from_vec(&long));
        assert_eq!(told, told_long);
        true
    }
}

impl Both {
    /// Whether an answer that waited for the kernel goes the quick way; if so, as the long one does.
    fn agree_once_held(&self, packet: &[u8], source: IpAddr) -> bool {
        let inside = self.runtime.enter();
        let mut out = Vec::new();
        let mut turn = Turn::begin(&self.service);
        let Quick::Waits(_, Some(stored)) = turn.answer(packet, source, Some("lo"), &mut out) else {
            self.notes.take();
            return false;
        };
        out.clear();
        let Landing::Leases(request, decided) = turn.land(packet, source, Some("lo"), &stored, &mut out) else {
            panic!("nothing has changed since it had to wait");
        };
        assert!(!request.addresses.is_empty() && self.notes.take().is_empty(), "nothing is told before it is held");
        out.clear();
        assert!(turn.tell_leased(packet, &decided, &stored, Acked::by_kernel(), &mut out));
        drop((turn, inside));
        let told = self.notes.take();
        let (long, told_long) = self.long(packet, source);
        assert_eq!(out, long, "\n{:?}\n{:?}", Message::from_vec(&out), Message::from_vec(&long));
        assert_eq!(told, told_long);
        true
    }
}

const AGENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn table() -> Table {
    Table { deny: vec!["bad.example", "*.bad.example"], ..Table::default() }
}

#[test]
fn what_is_blocked_or_cached_goes_the_quick_way() {
    let both = Both::new(table());
    let name = "www.wild.example";
    let chain = vec![cname(name, 50, "b.example"), cname("b.example", 70, "cdn.wild.example")];
    let chain: Vec<Record> = chain.into_iter().chain([a("cdn.wild.example", 60, "192.0.2.7")]).collect();
    let mut nothing = reply(&question(name, RecordType::AAAA), vec![]);
    nothing.authorities = vec![soa("example", 600, 30)];
    both.knows(name, RecordType::A, false, &reply(&question(name, RecordType::A), chain), 20);
    both.knows(name, RecordType::AAAA, false, &nothing, 3);
    both.knows(
        name,
        RecordType::TXT,
        false,
        &reply(
            &question(name, RecordType::TXT),
            vec![record(name, 90, RData::TXT(TXT::new(vec!["words".to_owned()])))],
        ),
        0,
    );
    let told = |name, kind| both.agree(&question(name, kind).to_vec().unwrap(), AGENT);
    assert!(told("evil.example", RecordType::A) && told("bad.example", RecordType::ANY));
    assert!(told(name, RecordType::A) && told(name, RecordType::AAAA) && told(name, RecordType::TXT));
    assert!(!told(name, RecordType::MX), "not in the cache");
    assert!(both.agree(&plain_question("Evil.exAmple", RecordType::A).to_vec().unwrap(), AGENT));
    assert!(!told("evil.invalid", RecordType::A) && !told("*.evil.example", RecordType::A));
    let (way, ..) = both.quick(&question("evil.example", RecordType::A).to_vec().unwrap(), [127, 9, 0, 1].into());
    assert!(matches!(way, Quick::Long(None)), "out of scope");
}

#[test]
fn nothing_unleased_goes_the_quick_way() {
    let both = Both::new(Table { denied: vec![[192, 0, 2, 13].into()], open: vec![[10, 0, 0, 1].into()], ..table() });
    for (name, addresses) in [
        ("one.wild.example", &["192.0.2.7"][..]),
        ("two.wild.example", &["192.0.2.13"]),
        ("open.wild.example", &["10.0.0.1"]),
        ("some.wild.example", &["10.0.0.1", "192.0.2.7"]),
        ("more.wild.example", &["192.0.2.7", "10.0.0.1"]),
    ] {
        let records = addresses.iter().map(|address| a(name, 60, address)).collect();
        let answer = reply(&question(name, RecordType::A), records);
        both.knows(name, RecordType::A, false, &answer, 0);
    }
    let told = |name| both.agree(&question(name, RecordType::A).to_vec().unwrap(), AGENT);
    assert!(told("one.wild.example"));
    assert!(!told("two.wild.example"), "the address is denied");
    assert!(!told("some.wild.example") && !told("more.wild.example"), "not all of it needs a lease");
    both.service.leaser.holds.store(false, Ordering::Relaxed);
    assert!(!told("one.wild.example"), "the kernel may have lost it");
    let packet = question("one.wild.example", RecordType::A).to_vec().unwrap();
    assert!(both.agree_once_held(&packet, AGENT), "it waits for the kernel");
    assert!(told("open.wild.example"), "the policy itself opens it");
    both.service.leaser.holds.store(true, Ordering::Relaxed);
    let with = |change: fn(&mut Table)| {
        let mut other = table();
        change(&mut other);
        both.service.judge.store(Some(Arc::new(other)));
        told("one.wild.example")
    };
    assert!(!with(|table| table.mode = Mode::Monitor), "nothing is enforced");
    assert!(with(|table| table.deny.push("one.wild.example")), "it is blocked now");
    assert!(with(|_| {}));
    both.service.judge.store(None);
    assert!(!told("one.wild.example"), "no policy is in force");
}

#[test]
fn types_that_only_unpoliced_clients_get_stay_in_the_cache() {
    let both = Both::new(table());
    let name = "one.wild.example";
    both.knows(
        name,
        RecordType::ANY,
        false,
        &reply(&question(name, RecordType::ANY), vec![a(name, 60, "192.0.2.7")]),
        0,
    );
    assert!(!both.agree(&question(name, RecordType::ANY).to_vec().unwrap(), AGENT));
    let (answer, _) = both.long(&question(name, RecordType::ANY).to_vec().unwrap(), AGENT);
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!((answer.metadata.response_code, answer.answers.len()), (ResponseCode::NoError, 1));
    assert_eq!(answer.answers[0].record_type(), RecordType::HINFO);
}

#[test]
fn a_popular_answer_is_asked_for_again_before_it_ends() {
    let both = Both::new(table());
    let name = "one.wild.example";
    both.knows(name, RecordType::A, false, &reply(&question(name, RecordType::A), vec![a(name, 100, "192.0.2.7")]), 95);
    let packet = question(name, RecordType::A).to_vec().unwrap();
    let begun = || both.service.counters.prefetched.load(Ordering::Relaxed);
    for (asked, expected) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
        assert!(matches!(both.quick(&packet, AGENT).0, Quick::Told));
        assert_eq!(begun(), expected, "asked {asked} times");
    }
}

#[test]
fn over_the_budget_nothing_is_answered_and_all_is_told() {
    let both = Both::within(Budget::new(std::num::NonZeroU32::new(1)), table());
    let packet = question("evil.example", RecordType::A).to_vec().unwrap();
    let ways: Vec<_> = (0..5).map(|_| both.quick(&packet, AGENT)).collect();
    let found: Vec<&Quick> = ways.iter().map(|(way, ..)| way).collect();
    let refuse = Some(crate::dns::budget::Grant::Refuse);
    assert!(
        matches!(found[..], [Quick::Told, Quick::Told, Quick::Long(grant), Quick::Dropped, Quick::Dropped] if *grant == refuse)
    );
    let (.., told) = &ways[3];
    let [(revision, host, source, name, address, tcp, decision)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(
        (*revision, *host, *source, name.as_str(), *address, *tcp),
        (1, HostId(2), AGENT, "evil.example", None, false)
    );
    assert_eq!((decision.verdict, decision.reason), (Verdict::Block, Reason::RateLimited));
    assert_eq!(decision.host.as_ref().map(|host| host.as_str()), Some("agent-1"));
}

const NAMES: [&str; 5] = ["www.wild.example", "WWW.wild.example", "b.example", "x.bad.example", "cdn.wild.example"];
const KINDS: [RecordType; 6] =
    [RecordType::A, RecordType::AAAA, RecordType::HTTPS, RecordType::CNAME, RecordType::MX, RecordType::TXT];

fn any_record() -> impl Strategy<Value = Record> {
    let owner = || prop_oneof![4 => Just(NAMES[0]), 1 => prop::sample::select(&NAMES[..])];
    let ttl = || prop_oneof![1 => Just(0_u32), 5 => 30..100_000_u32];
    let v4 = || prop_oneof![4 => 1..9_u8, 1 => Just(13_u8)].prop_map(|last| format!("192.0.2.{last}"));
    let service = (owner(), prop::collection::vec(v4(), 0..3)).prop_map(|(target, hints)| {
        let hints = hints.iter().map(|hint| A(hint.parse().unwrap())).collect();
        SVCB::new(1, n(target), vec![(SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(hints)))])
    });
    prop_oneof![
        4 => (owner(), ttl(), v4()).prop_map(|(owner, ttl, address)| a(owner, ttl, &address)),
        2 => (owner(), ttl()).prop_map(|(owner, ttl)| aaaa(owner, ttl, "2001:db8::1")),
        2 => (owner(), ttl(), owner()).prop_map(|(owner, ttl, target)| cname(owner, ttl, target)),
        1 => (owner(), ttl(), service).prop_map(|(owner, ttl, data)| record(owner, ttl, RData::HTTPS(HTTPS(data)))),
        1 => (owner(), ttl(), owner()).prop_map(|(owner, ttl, to)| record(owner, ttl, RData::MX(MX::new(1, n(to))))),
        1 => (owner(), ttl(), "[a-z]{1,90}").prop_map(|(owner, ttl, text)| record(owner, ttl, RData::TXT(TXT::new(vec![text])))),
    ]
}

/// A query as a program might send it, in any spelling, and sometimes damaged.
fn any_query(kind: RecordType) -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        4 => Just("www.wild.example".to_owned()),
        1 => Just("WwW.wild.exaMple".to_owned()),
        1 => "[a-zA-Z0-9_-]{1,20}(\\.[a-z]{1,63}){1,3}",
        1 => "[a-z]{1,40}\\.(invalid|clawgress\\.invalid)",
    ];
    let edns =
        prop_oneof![Just(None), (prop::sample::select(&[0_u16, 512, 600, 4096][..]), any::<bool>()).prop_map(Some)];
    let damage = prop_oneof![5 => Just(None), 1 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(Some)];
    (name, edns, any::<[bool; 2]>(), damage).prop_map(move |(name, edns, [rd, cd], damage)| {
        let mut message = plain_question("x", kind);
        message.queries[0].set_name(Name::from_labels(name.split('.').map(str::as_bytes)).unwrap());
        message.metadata.recursion_desired = rd;
        message.metadata.checking_disabled = cd;
        if let Some((size, dnssec_ok)) = edns {
            let mut own = hickory_proto::op::Edns::new();
            own.set_max_payload(size);
            own.set_dnssec_ok(dnssec_ok);
            message.edns = Some(own);
        }
        let mut bytes = message.to_vec().unwrap();
        if let Some((place, value)) = damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn both_ways_give_the_same_octets(
        (kind, packet) in prop::sample::select(&KINDS[..]).prop_flat_map(|kind| (Just(kind), any_query(kind))),
        records in prop::collection::vec(any_record(), 0..9),
        proof in prop::option::of((0..90_u32, 0..90_u32)),
        nothing in prop::bool::weighted(0.1),
        age in 0..40_u64,
        deny in prop::collection::btree_set(prop::sample::select(&["x.bad.example", "*.wild.example", "b.example"][..]), 0..2),
        denied in any::<bool>(),
        // The policy opens addresses up to this one by itself.
        open in prop_oneof![Just(0_u8), Just(9), 1..9_u8],
    ) {
        let both = Both::new(Table {
            deny: BTreeSet::into_iter(deny).collect(),
            denied: if denied { vec![[192, 0, 2, 13].into()] } else { vec![] },
            open: (1..=open).map(|last| [192, 0, 2, last].into()).collect(),
            ..Table::default()
        });
        let mut upstream = reply(&question(NAMES[0], kind), records);
        if nothing {
            upstream.metadata.response_code = ResponseCode::NXDomain;
        }
        upstream.authorities.extend(proof.map(|(ttl, minimum)| soa("example", ttl, minimum)));
        for dnssec_ok in [false, true] {
            both.knows(NAMES[0], kind, dnssec_ok, &upstream, age);
        }
        both.agree(&packet, AGENT);
        both.service.leaser.holds.store(false, Ordering::Relaxed);
        both.agree_once_held(&packet, AGENT);
    }
}
