//! Any octets as an upstream's answer: nothing goes out that is neither leased nor open, and what goes out is a message.
//!
//! The first octet chooses the type asked for and the host, the second the age; the rest is the message.

use std::sync::{Arc, OnceLock};

use clawgress::core::classes::Classes;
use clawgress::core::state::{State, World};
use clawgress::dns::filter::{Asked, Outcome, filter};
use clawgress::dns::trial;
use clawgress::plan::ids::HostId;
use clawgress::plan::snapshot::{AddressVerdict, Snapshot};
use clawgress::policy::decision::Verdict;
use clawgress::policy::name::Name;
use clawgress::policy::parse;
use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name as WireName, RData, RecordType};

/// What `b` may ask is enforced, what `m` may ask is only watched.
const POLICY: &str = r#"{ "version": 1,
    "allow": { "domains": ["allowed.example", "*.allowed.example"], "ips": ["10.1.0.0/16", "fd00:1::/32"] },
    "deny": { "domains": ["bad.example", "*.bad.example"], "ips": ["93.184.216.0/24", "2606:4700:bad::/48"] },
    "hosts": { "b": { "sources": ["192.168.10.10"] },
               "m": { "sources": ["192.168.11.10"], "mode": "monitor" } } }"#;
const KINDS: [RecordType; 8] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::HTTPS,
    RecordType::SVCB,
    RecordType::CNAME,
    RecordType::TXT,
    RecordType::MX,
    RecordType::SRV,
];
/// The name whose answers are filtered; it is on the allowlist.
pub const ASKED: &str = "allowed.example.";
/// The longest time for which an answer may be remembered, seconds (SPEC section 2, meaning 7).
const MAX_TTL: u32 = 3600;

struct Bench {
    snapshot: Arc<Snapshot>,
    enforced: HostId,
    watched: HostId,
}

/// The policy, compiled once.
fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        let policy = parse(POLICY).expect("a policy");
        let mut state = State::new(Classes::first_of_table(0));
        let world = World { own: ["45.60.255.1".parse().expect("an address")].into(), ..World::listening(53) };
        let pending = state.enforce(&policy, &world, 1, 0);
        let snapshot = pending.snapshot.clone();
        state.enforced(pending);
        let id = |word: &str| *state.hosts.iter().find(|(name, _)| name.as_str() == word).expect("a host").1;
        Bench { snapshot, enforced: id("b"), watched: id("m") }
    })
}

/// Panics where a promise is broken.
pub fn check(data: &[u8]) {
    let [choice, age, rest @ ..] = data else { return };
    let Ok(upstream) = Message::from_vec(rest) else { return };
    // Others are not taken for answers at all.
    if upstream.metadata.message_type != MessageType::Response || upstream.metadata.op_code != OpCode::Query {
        return;
    }
    let bench = bench();
    let kind = KINDS[usize::from(*choice) % KINDS.len()];
    let watched = choice & 0x40 != 0;
    let host = if watched { bench.watched } else { bench.enforced };
    let age = u32::from(*age) * 20;
    let name = WireName::from_ascii(ASKED).expect("a name");
    let question = question(&name, kind);

    let whole = trial::unpoliced(&question, &upstream, age).expect("the question is one");
    fits(&whole);

    let policy_name = Name::from_wire_labels(name.iter());
    let allowed = bench.snapshot.decide_name(host, policy_name.as_ref());
    assert_eq!(allowed.verdict, Verdict::Allow);
    let asked = Asked { name: &name, kind, dnssec_ok: choice & 0x80 != 0, host, allowed: &allowed };
    let filtered = match filter(&upstream, age, asked, &*bench.snapshot) {
        Outcome::Pass(filtered) => filtered,
        Outcome::Block(decision, subject) => {
            assert_eq!(decision.verdict, Verdict::Block, "{subject}");
            return;
        }
    };
    assert!(filtered.ttl() <= MAX_TTL);
    assert!(!filtered.tells_ech(), "ech stays here");
    for address in filtered.addresses() {
        assert_eq!(bench.snapshot.judge_address(host, *address), AddressVerdict::Lease, "{address} cannot be leased");
    }
    for address in filtered.told() {
        let open = bench.snapshot.judge_address(host, address) == AddressVerdict::Open;
        assert!(watched || open || filtered.addresses().contains(&address), "{address} is told and not leased");
    }
    for link in filtered.links().iter().filter(|_| !watched) {
        assert_eq!(bench.snapshot.denied_link(host, link), None, "the chain leads over a denied name");
    }
    if let Ok(answer) = filtered.release_unleased() {
        for record in answer.records() {
            assert!(record.ttl <= MAX_TTL);
            if let (RData::CNAME(target), false) = (&record.data, watched) {
                let link = Name::from_wire_labels(target.0.iter());
                let denied = link.and_then(|link| bench.snapshot.denied_link(host, &link));
                assert_eq!(denied, None, "an alias to a denied name is told");
            }
        }
        fits(&trial::filtered(&question, answer).expect("the question is one"));
    }
}

fn question(name: &WireName, kind: RecordType) -> Vec<u8> {
    let mut question = Message::query();
    question.add_query(Query::query(name.clone(), kind));
    question.to_vec().expect("a question has a wire form")
}

/// A client without EDNS gets at most 512 octets, and they are a message.
fn fits(answer: &[u8]) {
    assert!(answer.len() <= 512, "{} octets", answer.len());
    let read = Message::from_vec(answer);
    assert!(read.is_ok(), "the answer is no message: {read:?} {answer:02x?}");
}
