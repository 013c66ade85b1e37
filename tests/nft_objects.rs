//! Quotas and counters as the kernel keeps them: what a raised limit keeps, when the kernel tells that one is used up.

mod nft_namespace;
mod nft_tables;

use std::collections::BTreeMap;
use std::net::UdpSocket;

use clawgress::nft::{Event, HeldObject, Kernel, Watch};
use clawgress::plan::ir::{Action, Base, Chain, ChainType, Cond, Hook, Object, ObjectKind, Rule, Verdict, proto};
use clawgress::plan::ops::{Op, Table, diff};
use nft_namespace::{Namespace, kernel, ready};
use nft_tables::{from_nothing, ident, rule};

/// Octets of an IP packet that carries a datagram of [`DATAGRAM`] octets.
const PACKET: u64 = 100;
const DATAGRAM: usize = 72;

/// Datagrams to the discard port are charged to `spent`, and dropped once it is over.
fn table(limit: u64) -> Table {
    let base = Base { kind: ChainType::Filter, hook: Hook::Output, priority: 0 };
    let discard = || vec![Cond::Proto(proto::UDP), Cond::Dport(9)];
    let over = discard().into_iter().chain([Cond::OverQuota(ident("spent"))]).collect();
    let rules: Vec<Rule> = vec![
        rule(over, vec![Action::CountIn(ident("refused")), Action::Verdict(Verdict::Drop)]),
        rule(discard(), vec![Action::CountIn(ident("passed"))]),
    ];
    Table {
        chains: BTreeMap::from([(ident("out"), Chain { base: Some(base), rules })]),
        objects: BTreeMap::from([
            (ident("spent"), Object::Quota { limit, used: 0 }),
            (ident("refused"), Object::COUNTER),
            (ident("passed"), Object::COUNTER),
        ]),
        ..Table::default()
    }
}

fn send(packets: usize) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..packets {
        // A dropped datagram is an error to its sender.
        let _ = socket.send_to(&[0; DATAGRAM], "127.0.0.1:9");
    }
}

fn counted(kernel: &mut Kernel, name: &str) -> u64 {
    match kernel.object(name, ObjectKind::Counter).unwrap() {
        Some(HeldObject::Counter { packets, bytes }) => {
            assert_eq!(bytes, packets * PACKET);
            packets
        }
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_quota_charges_refused_packets_too_and_keeps_its_use_when_raised() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    nft_namespace::loopback_up();
    let mut kernel = kernel();
    kernel.commit(&from_nothing(&table(3 * PACKET))).unwrap();
    send(5);
    assert_eq!((counted(&mut kernel, "passed"), counted(&mut kernel, "refused")), (3, 2));
    let spent = |kernel: &mut Kernel| kernel.object("spent", ObjectKind::Quota).unwrap();
    assert_eq!(spent(&mut kernel), Some(HeldObject::Quota { limit: 3 * PACKET, used: 3 * PACKET }));

    // Five packets were charged, so of nine four are left.
    kernel.commit(&[Op::SetQuota(ident("spent"), 9 * PACKET)]).unwrap();
    send(6);
    assert_eq!((counted(&mut kernel, "passed"), counted(&mut kernel, "refused")), (7, 4));

    let all: BTreeMap<_, _> = kernel.objects().unwrap().into_iter().collect();
    assert_eq!(all.len(), 3);
    let held = kernel.read().unwrap().expect("the table");
    assert_eq!(held.objects, all);

    // Rules go before what they name.
    let nothing = diff(&table(9 * PACKET), &Table::default());
    kernel.commit(&nothing.into_ops()).unwrap();
    assert_eq!(kernel.objects().unwrap(), []);
}

#[test]
fn the_kernel_tells_once_that_a_quota_is_used_up_and_again_after_it_was_raised() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    nft_namespace::loopback_up();
    let mut kernel = kernel();
    kernel.commit(&from_nothing(&table(PACKET))).unwrap();
    let mut watch = Watch::open(kernel.port()).unwrap();
    send(4);
    assert_eq!(watch.wait().unwrap(), Event::UsedUp(ident("spent")));
    assert_eq!(watch.try_next().unwrap(), None);
    kernel.commit(&[Op::SetQuota(ident("spent"), 6 * PACKET)]).unwrap();
    send(1);
    assert_eq!(watch.try_next().unwrap(), None, "five of six");
    send(3);
    assert_eq!(watch.wait().unwrap(), Event::UsedUp(ident("spent")));
    assert_eq!(watch.try_next().unwrap(), None);
}
