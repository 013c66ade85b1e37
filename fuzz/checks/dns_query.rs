//! Any octets as a client's packet: an answer is a message that fits, only allowed names go upstream, and the quick way
//! gives the same octets as the long one.
//!
//! The first octet chooses the client and the transport; the rest is the packet.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use clawgress::core::classes::Classes;
use clawgress::core::state::{State, World};
use clawgress::dns::trial::{Taken, Trial};
use clawgress::plan::snapshot::Snapshot;
use clawgress::policy::decision::Verdict;
use clawgress::policy::model::Policy;
use clawgress::policy::name::Name;
use clawgress::policy::{parse, reference};
use hickory_proto::op::Message;
use hickory_proto::rr::RecordType;

const POLICY: &str = r#"{ "version": 1, "scope": { "sources": ["192.168.0.0/16", "fd00::/16"] },
    "allow": { "domains": ["allowed.example", "*.allowed.example", "_sip._tcp.allowed.example"] },
    "deny": { "domains": ["bad.allowed.example", "*.bad.allowed.example"] },
    "hosts": { "none": { "sources": ["192.168.10.10"], "allow": { "domains": [] } } } }"#;
/// A host with nothing, a source in no host, the same over IPv6, and somebody out of scope.
const CLIENTS: [&str; 4] = ["192.168.10.10", "192.168.11.10", "fd00::1", "45.60.255.2"];

struct Bench {
    policy: Policy,
    trial: Trial<Snapshot>,
}

/// The policy, compiled once.
fn bench() -> &'static Bench {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    BENCH.get_or_init(|| {
        let policy = parse(POLICY).expect("a policy");
        let world = World::listening(53);
        let snapshot = State::new(Classes::first_of_table(0)).enforce(&policy, &world, 1, 0).snapshot;
        Bench { policy, trial: Trial::new(Arc::clone(&snapshot)).expect("an upstream") }
    })
}

/// Panics where a promise is broken.
pub fn check(data: &[u8]) {
    let [choice, packet @ ..] = data else { return };
    let bench = bench();
    let source: IpAddr = CLIENTS[usize::from(*choice) % CLIENTS.len()].parse().expect("an address");
    let tcp = choice & 0x80 != 0;
    let taken = bench.trial.take(packet, source, Some("lan1"), tcp);
    if !tcp && let Some(quick) = bench.trial.quick(packet, source, Some("lan1")) {
        assert_eq!(taken, Taken::Answered(quick), "both ways give the same answer");
    }
    match taken {
        Taken::Dropped => assert!(packet.len() < 12 || packet[2] & 0x80 != 0, "a query without an answer"),
        Taken::Answered(answer) => answered(packet, &answer, tcp),
        Taken::LookedUp => {
            let message = Message::from_vec(packet).expect("what is looked up was read");
            assert_eq!(message.queries.len(), 1);
            let question = &message.queries[0];
            let name = Name::from_wire_labels(question.name.iter());
            let host = reference::host_of(&bench.policy, source);
            let decision = reference::decide_name(&bench.policy, host, name.as_ref());
            assert_eq!(decision.verdict, Verdict::Allow, "{name:?} goes upstream for {source}");
            assert!(reference::in_scope(&bench.policy, source, "lan1"), "{source} is served");
        }
    }
}

fn answered(packet: &[u8], answer: &[u8], tcp: bool) {
    assert_eq!(answer.get(..2), packet.get(..2), "the client's number");
    assert!(answer[2] & 0x80 != 0, "a response");
    let read = Message::from_vec(answer).unwrap_or_else(|e| panic!("the answer is no message: {e} {answer:02x?}"));
    let told = |kind| matches!(kind, RecordType::A | RecordType::AAAA | RecordType::HTTPS | RecordType::SVCB);
    assert!(!read.answers.iter().any(|record| told(record.record_type())), "addresses out of nothing");
    let room = if tcp { usize::from(u16::MAX) } else { 1232 };
    let plain = packet.len() >= 12 && packet[10..12] == [0, 0];
    assert!(answer.len() <= if plain && !tcp { 512 } else { room }, "{} octets", answer.len());
}
