//! Makes the seeds that are not text or have sums: `UPDATE_SEEDS=1 cargo test --test fuzz_smoke seeds` (as root, for the kernel's).

use std::collections::BTreeMap;
use std::fs;

use clawgress::core::classes::Classes;
use clawgress::core::state::{State, World};
use clawgress::nft::{Kernel, Options};
use clawgress::plan::ir::{Action, Cond, Data, Key, Set, Value};
use clawgress::plan::ops::{Op, Table, diff};
use clawgress::policy::model::Period;
use clawgress::policy::parse;
use clawgress::store::ledger::Entry;
use clawgress::store::ledger::journal::{Sum, write as lines};
use hickory_proto::op::{Edns, Message, OpCode, Query};
use hickory_proto::rr::rdata::svcb::{
    Alpn, EchConfigList, IpHint, Mandatory, SVCB, SvcParamKey as K, SvcParamValue as V,
};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HTTPS, MX, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use crate::dns_filter::ASKED;
use crate::root;

fn name(text: &str) -> Name {
    Name::from_ascii(text).expect("a name")
}

fn write(target: &str, file: &str, octets: &[u8]) {
    let directory = root().join("fuzz/seeds").join(target);
    fs::create_dir_all(&directory).expect("the tree is writable");
    fs::write(directory.join(file), octets).expect("the tree is writable");
}

#[test]
fn seeds_are_made_on_demand() {
    if std::env::var_os("UPDATE_SEEDS").is_some() {
        queries();
        answers();
        ledgers();
        dumps();
        copies();
    }
}

fn queries() {
    let wire = |text: &str, kind, change: &dyn Fn(&mut Message)| {
        let mut message = Message::query();
        message.metadata.id = 0x1234;
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name(text), kind));
        change(&mut message);
        message.to_vec().expect("a wire form")
    };
    let edns = |version: u8| {
        move |message: &mut Message| {
            let mut edns = Edns::new();
            edns.set_max_payload(1232).set_version(version).set_dnssec_ok(true);
            message.set_edns(edns);
        }
    };
    let plain = &|_: &mut Message| {};
    for (file, choice, octets) in [
        ("allowed", 1, wire("Allowed.Example.", RecordType::A, plain)),
        ("denied", 1, wire("x.bad.allowed.example.", RecordType::AAAA, plain)),
        ("service", 0x82, wire("_sip._tcp.allowed.example.", RecordType::SRV, &edns(0))),
        ("nothing-allowed", 0, wire("allowed.example.", RecordType::A, &edns(0))),
        ("any", 0x82, wire("allowed.example.", RecordType::ANY, &edns(0))),
        ("transfer", 0x81, wire("allowed.example.", RecordType::AXFR, plain)),
        ("edns-1", 1, wire("allowed.example.", RecordType::A, &edns(1))),
        ("outside", 3, wire("allowed.example.", RecordType::A, plain)),
        ("notify", 1, wire("allowed.example.", RecordType::SOA, &|m| m.metadata.op_code = OpCode::Notify)),
        ("root", 1, wire(".", RecordType::NS, &edns(0))),
    ] {
        write("dns_query", file, &[&[choice][..], &octets].concat());
    }
}

fn answers() {
    let record = |owner: &str, data| Record::from_rdata(name(owner), 300, data);
    let a = |owner: &str, text: &str| record(owner, RData::A(A(text.parse().expect("an address"))));
    let aaaa = |owner: &str, text: &str| record(owner, RData::AAAA(AAAA(text.parse().expect("an address"))));
    let alias = |owner: &str, to: &str| record(owner, RData::CNAME(CNAME(name(to))));
    let service = |priority, target: &str| {
        let params = vec![
            (K::Mandatory, V::Mandatory(Mandatory(vec![K::Alpn, K::Ipv4Hint]))),
            (K::Alpn, V::Alpn(Alpn(vec!["h2".to_owned()]))),
            (K::Ipv4Hint, V::Ipv4Hint(IpHint(vec![A::new(151, 101, 0, 1), A::new(192, 168, 10, 1)]))),
            (K::EchConfigList, V::EchConfigList(EchConfigList(vec![0, 1, 2, 3]))),
            (K::Ipv6Hint, V::Ipv6Hint(IpHint(vec![AAAA::new(0x2606, 0x4700, 0, 0, 0, 0, 0, 1)]))),
        ];
        SVCB::new(priority, name(target), params)
    };
    let soa = SOA::new(name("ns.example."), name("root.example."), 1, 3600, 600, 86400, 60);
    let cases: Vec<(&str, u8, Vec<Record>)> = vec![
        ("address", 0, vec![a(ASKED, "151.101.0.1"), a(ASKED, "10.1.2.3"), a(ASKED, "192.168.10.1")]),
        ("address6", 1, vec![aaaa(ASKED, "2606:4700::34"), aaaa(ASKED, "::ffff:10.0.0.1"), aaaa(ASKED, "fd00:1::1")]),
        (
            "chain",
            0,
            vec![
                alias(ASKED, "a.cdn.example."),
                alias("a.cdn.example.", "b.cdn.example."),
                a("b.cdn.example.", "151.101.0.2"),
            ],
        ),
        ("loop", 0, vec![alias(ASKED, "a.cdn.example."), alias("a.cdn.example.", ASKED)]),
        ("chain-to-denied", 0, vec![alias(ASKED, "x.bad.example."), a("x.bad.example.", "151.101.0.2")]),
        ("watched", 0x40, vec![alias(ASKED, "x.bad.example."), a("x.bad.example.", "10.0.0.1")]),
        ("https", 0x82, vec![record(ASKED, RData::HTTPS(HTTPS(service(1, "."))))]),
        ("https-elsewhere", 2, vec![record(ASKED, RData::HTTPS(HTTPS(service(0, "a.cdn.example."))))]),
        ("service", 3, vec![record(ASKED, RData::SVCB(service(1, ASKED)))]),
        ("alias-asked", 4, vec![alias(ASKED, "x.bad.example."), alias(ASKED, "cdn.example.")]),
        ("text", 5, vec![record(ASKED, RData::TXT(TXT::new(vec!["v=1".to_owned(), "x".repeat(80)])))]),
        (
            "mail",
            6,
            vec![
                record(ASKED, RData::MX(MX::new(10, name("mail.bad.example.")))),
                record(ASKED, RData::MX(MX::new(20, name("mail.example.")))),
            ],
        ),
        ("srv", 7, vec![record(ASKED, RData::SRV(SRV::new(1, 2, 443, name("a.cdn.example."))))]),
        ("nothing", 1, vec![]),
    ];
    for (file, choice, records) in cases {
        let mut message = Message::response(7, OpCode::Query);
        message.queries.push(Query::query(name(ASKED), RecordType::A));
        message.answers = records;
        message.authorities.push(record("example.", RData::SOA(soa.clone())));
        let octets = message.to_vec().expect("a wire form");
        write("dns_filter", file, &[&[choice, 3][..], &octets].concat());
    }
}

fn ledgers() {
    let entry = |number: u32, period, granted| Entry {
        number,
        host: "agent-1".to_owned(),
        domain: format!("*.n{number}.example.com"),
        period,
        start: "2026-11-20T10:00:00Z".parse().expect("a time"),
        granted,
        carried: granted / 2,
        passed: u64::MAX,
        merged4: 1,
        merged6: 0,
    };
    let journal = |entries: &[Entry]| {
        let (text, _) = lines(entries, Sum::FIRST).expect("lines");
        [b"{\"ledger\":1}\n", &text[..]].concat()
    };
    let caps = Period::ALL.map(|period| entry(period.word().len() as u32, period, 65_536));
    let torn = journal(&caps);
    for (file, octets) in [
        ("nothing", journal(&[])),
        ("one", journal(&caps[..1])),
        ("again", journal(&[entry(1, Period::Day, 1), entry(2, Period::Hour, 2), entry(1, Period::Day, u64::MAX)])),
        ("torn", torn[..torn.len() - 9].to_vec()),
        ("of-a-later-version", b"{\"ledger\":2}\n{}\n".to_vec()),
        ("highest-number", journal(&[entry(u32::MAX - 1, Period::Second, 0)])),
    ] {
        write("ledger", file, &octets);
    }
}

fn dumps() {
    let world = World { guarded: ["lan1".to_owned()].into(), ..World::listening(53) };
    let policy = r#"{ "version": 1, "scope": { "sources": ["192.168.10.0/24", "fd00:10::/64"] },
        "allow": { "ips": ["93.184.216.0/24", "2606:4700::1"] }, "deny": { "ips": ["0.0.0.0/8", "255.255.255.0/24"] },
        "hosts": { "a": { "sources": ["192.168.10.10"] } } }"#;
    let pending = State::new(Classes::first_of_table(0)).enforce(&parse(policy).expect("a policy"), &world, 1, 0);
    let mut whole = Table::default();
    clawgress::plan::apply::apply(&mut whole, &pending.delta.clone().into_ops()).expect("a legal transaction");
    write("netlink_dump", "whole", &dump(&whole));
    // Small ones: the shorter the input, the more of it a change reaches.
    let sets = |keep: &dyn Fn(&str, &Set) -> bool| {
        let sets = whole.sets.iter().filter(|(name, set)| keep(name, set)).map(|(name, set)| {
            let plain = set.elements.iter().filter(|(_, value)| !matches!(value.data, Data::Verdict(_)));
            let elements: BTreeMap<Key, Value> = plain.map(|(key, value)| (*key, value.clone())).collect();
            (name.clone(), Set { spec: set.spec, elements: elements.into() })
        });
        Table { sets: sets.collect(), ..Table::default() }
    };
    write("netlink_dump", "nothing", &dump(&Table::default()));
    write("netlink_dump", "ranges", &dump(&sets(&|_, set| set.spec.interval)));
    write("netlink_dump", "plain", &dump(&sets(&|_, set| !set.spec.interval && !set.spec.counter)));
    let mut chains = whole.clone();
    chains.sets.clear();
    for chain in chains.chains.values_mut() {
        chain.rules.retain(|rule| {
            let alone = |cond: &Cond| !matches!(cond, Cond::In { .. });
            let ends = |action: &Action| {
                matches!(action, Action::Counter | Action::SetMark(_) | Action::Redirect(_) | Action::Reset)
            };
            rule.conds.iter().all(alone) && rule.actions.iter().all(ends)
        });
    }
    chains.chains.retain(|_, chain| chain.base.is_some() || !chain.rules.is_empty());
    write("netlink_dump", "chains", &dump(&chains));
}

/// Copies of packets, as linux/netfilter/nfnetlink_log.h lays them out.
fn copies() {
    let attribute = |kind: u16, value: &[u8]| {
        let mut out = [(value.len() as u16 + 4).to_ne_bytes(), kind.to_ne_bytes()].concat();
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    };
    let message = |number: u32, prefix: &str, packet: &[u8]| {
        let body = [
            vec![2, 0, 0x4e, 0x31],
            attribute(1, &[8, 0, 2, 0]),
            attribute(10, &[prefix.as_bytes(), &[0]].concat()),
            attribute(4, &3u32.to_be_bytes()),
            attribute(5, &4u32.to_be_bytes()),
            attribute(12, &number.to_be_bytes()),
            attribute(9, packet),
        ]
        .concat();
        let mut out = (body.len() as u32 + 16).to_ne_bytes().to_vec();
        out.extend((4u16 << 8).to_ne_bytes());
        out.extend([0; 10]);
        [out, body].concat()
    };
    let v4 = |protocol: u8, rest: &[u8]| {
        let head = [0x45, 0, 0, 40, 0, 1, 0, 0, 64, protocol, 0, 0, 192, 168, 10, 10, 93, 184, 216, 34];
        [&head[..], rest].concat()
    };
    let v6 = |next: u8, rest: &[u8]| {
        let mut head = vec![0x60, 0, 0, 0, 0, 20, next, 64];
        head.extend([0xfd; 16]);
        head.extend([0x26; 16]);
        head.extend(rest);
        head
    };
    let ports = [0x9c, 0x40, 1, 0xbb, 0, 0, 0, 0];
    let extensions = [&[60, 0, 0, 0, 0, 0, 0, 0][..], &[44, 0, 1, 4, 0, 0, 0, 0], &[17, 0, 0, 1, 0, 0, 0, 9], &ports];
    write("nflog", "tcp", &message(0, "b_port", &v4(6, &ports)));
    write("nflog", "reply", &message(7, "b_lease reply", &v4(17, &ports)));
    write("nflog", "extensions", &message(1, "b_denied", &v6(0, &extensions.concat())));
    write("nflog", "echo", &message(u32::MAX, "b_special", &v6(58, &[128, 0, 0, 0])));
    write("nflog", "two", &[message(3, "passed", &v4(6, &ports)), message(9, "strange", &v4(1, &[8]))].concat());
    write("nflog", "packet-alone", &v6(43, &[6, 1, 0, 0]));
}

/// What the kernel says of a table, in a namespace of its own.
fn dump(table: &Table) -> Vec<u8> {
    std::thread::scope(|scope| {
        let work = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("root makes a namespace");
            let mut kernel = Kernel::open(Options::default()).expect("the kernel's packet filter");
            let ops = [vec![Op::AddTable], diff(&Table::default(), table).into_ops()].concat();
            kernel.commit(&ops).expect("a table");
            kernel.dump().expect("a dump")
        };
        scope.spawn(work).join().expect("a dump")
    })
}
