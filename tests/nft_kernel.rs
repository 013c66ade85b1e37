//! The kernel driver against a kernel: transactions, reading back, ownership, events.

mod nft_namespace;
mod nft_tables;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clawgress::nft::{ErrorKind, Event, Held, Kernel, Options, Watch};
use clawgress::plan::ir::{
    Action, Base, Chain, ChainType, Cond, Data, DataType, Family, Field, Hook, Key, KeyType, Rule, Set, SetSpec, Value,
    Verdict, proto,
};
use clawgress::plan::ops::{Op, Table, diff};
use clawgress::plan::table::leases;
use clawgress::plan::text::{render, render_rule};
use nft_namespace::{Namespace, kernel, list, load, nft, ready};
use nft_tables::{at, from_nothing, ident};
use proptest::test_runner::{Config, TestRunner};

fn lease(number: u32, class: u32, timeout_ms: u64) -> (Key, Value) {
    let key = Key::MarkAddress(7, std::net::IpAddr::V4((0x0a00_0000 + number).into()));
    (key, Value { data: Data::Mark(class), timeout_ms: Some(timeout_ms), comment: None })
}

/// A kernel with the table and an empty set of leases.
fn with_leases(options: Options) -> Kernel {
    let mut kernel = Kernel::open(options).expect("the kernel's packet filter");
    kernel.commit(&[Op::AddTable, Op::AddSet(ident("dst4"), leases(Family::V4))]).expect("a table");
    kernel
}

fn held(kernel: &mut Kernel) -> Held {
    kernel.read().expect("readable").expect("the table is there")
}

#[test]
fn the_kernel_can_move_between_threads() {
    fn movable<T: Send>() {}
    movable::<Kernel>();
    movable::<Watch>();
}

#[test]
fn a_refused_transaction_changes_nothing_and_names_the_operation() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    let mut kernel = with_leases(Options::default());
    kernel.commit(&[Op::AddElements(ident("dst4"), vec![lease(1, 1, 60_000)])]).unwrap();
    let (listed, generation) = (list(), kernel.generation().unwrap());

    let bad_rule = Rule {
        conds: Vec::new(),
        actions: vec![Action::Vmap(Field::CtMark, ident("nowhere"))],
        comment: String::new(),
    };
    let error = kernel
        .commit(&[
            Op::AddChain(ident("c1"), None),
            Op::AddElements(ident("dst4"), vec![lease(2, 1, 60_000)]),
            Op::AddRule(ident("c1"), bad_rule),
            Op::AddChain(ident("c2"), None),
        ])
        .unwrap_err();
    assert_eq!((error.op_index, error.kind), (Some(2), ErrorKind::Refused), "{error}");
    assert!(error.to_string().contains("ct mark vmap @nowhere"), "{error}");

    let clash = kernel
        .commit(&[Op::AddChain(ident("c1"), None), Op::AddElements(ident("dst4"), vec![lease(1, 2, 60_000)])])
        .unwrap_err();
    assert_eq!(clash.op_index, Some(1), "{clash}");
    assert_eq!(clash.errno(), nix::errno::Errno::EEXIST);

    let long = kernel.commit(&[Op::AddTable, Op::AddChain(ident(&"x".repeat(32)), None)]).unwrap_err();
    assert_eq!((long.op_index, long.errno), (Some(1), 0), "{long}");

    assert_eq!(list(), listed);
    assert_eq!(kernel.generation().unwrap(), generation);
    println!("{error}\n{clash}\n{long}");
}

#[test]
fn a_hundred_thousand_elements_are_one_transaction() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    let mut kernel = with_leases(Options::default());
    let before = kernel.generation().unwrap();
    let leases: Vec<_> = (0..100_000).map(|number| lease(number, number, 3_600_000)).collect();
    let start = Instant::now();
    kernel.commit(&[Op::AddElements(ident("dst4"), leases.clone())]).unwrap();
    println!("100 000 leases added in {:?}", start.elapsed());
    assert_eq!(kernel.generation().unwrap(), before + 1);

    let start = Instant::now();
    kernel.commit(&[Op::PutElements(ident("dst4"), leases)]).unwrap();
    println!("100 000 leases put again in {:?}", start.elapsed());
    assert_eq!(kernel.generation().unwrap(), before + 2);
    let start = Instant::now();
    assert_eq!(kernel.elements("dst4").unwrap().expect("a set").len(), 100_000);
    println!("100 000 leases read in {:?}", start.elapsed());

    println!("one lease put: {}", one_by_one(&mut kernel, 200_000));
    let _watch = Watch::open(kernel.port()).unwrap();
    println!("one lease put, watched: {}", one_by_one(&mut kernel, 210_000));
}

/// Times of 3000 transactions of one element.
fn one_by_one(kernel: &mut Kernel, first: u32) -> String {
    let mut times: Vec<Duration> = (first..first + 3000)
        .map(|number| {
            let ops = [Op::PutElements(ident("dst4"), vec![lease(number, number, 3_600_000)])];
            let start = Instant::now();
            kernel.commit(&ops).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    format!("median {:?}, 99 of 100 below {:?}", times[1500], times[2970])
}

fn put_present_absent_and_expiring(old_kernel: bool) {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    let mut kernel = with_leases(Options { old_kernel, own_table: false });
    assert_eq!(kernel.features().destroy, !old_kernel);
    let set = ident("dst4");
    kernel.commit(&[Op::AddElements(set.clone(), vec![lease(1, 1, 60_000), lease(2, 2, 40)])]).unwrap();
    sleep(Duration::from_millis(80));
    // 1 is there with other data, 2 has expired, 3 never was.
    kernel
        .commit(&[Op::PutElements(set.clone(), vec![lease(1, 9, 90_000), lease(2, 9, 90_000), lease(3, 9, 90_000)])])
        .unwrap();
    let elements = kernel.elements("dst4").unwrap().expect("a set");
    assert_eq!(elements.len(), 3);
    for element in elements.values() {
        assert_eq!(element.value.data, Data::Mark(9));
        assert!(element.left_ms.unwrap() > 80_000, "the timeout is new");
    }
    // Elements that expire at any moment around the transaction.
    for round in 0..200u32 {
        kernel.commit(&[Op::PutElements(set.clone(), vec![lease(9, round, 1 + u64::from(round % 8))])]).unwrap();
        sleep(Duration::from_micros(u64::from(round) * 53 % 5000));
    }
    // Removing what is gone is no error, also in between.
    kernel.commit(&[Op::DelElements(set.clone(), vec![lease(1, 0, 0).0, lease(77, 0, 0).0])]).unwrap();
    assert!(!kernel.elements("dst4").unwrap().expect("a set").contains_key(&lease(1, 0, 0).0));
    // A refusal for another reason is told although an element is absent, too.
    let error =
        kernel.commit(&[Op::PutElements(set, vec![lease(50, 1, 1000)]), Op::FlushChain(ident("nowhere"))]).unwrap_err();
    assert_eq!(error.op_index, Some(1), "{error}");
}

#[test]
fn many_absent_elements_are_put_on_kernels_without_destroy() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    let mut kernel = with_leases(Options { old_kernel: true, own_table: false });
    let leases: Vec<_> = (0..100_000).map(|number| lease(number, number, 3_600_000)).collect();
    let start = Instant::now();
    kernel.commit(&[Op::PutElements(ident("dst4"), leases)]).unwrap();
    println!("100 000 absent leases put without destroy in {:?}", start.elapsed());
    assert_eq!(kernel.elements("dst4").unwrap().expect("a set").len(), 100_000);
}

#[test]
fn elements_are_put_whether_or_not_they_are_there() {
    put_present_absent_and_expiring(false);
}

#[test]
fn elements_are_put_on_kernels_without_destroy() {
    put_present_absent_and_expiring(true);
}

/// Compares what was read with what was written, up to the kernel's tick in timeouts.
fn assert_holds(held: &Held, table: &Table) {
    assert_eq!(held.chains.keys().collect::<Vec<_>>(), table.chains.keys().collect::<Vec<_>>());
    for (name, chain) in &table.chains {
        let found = &held.chains[name];
        assert_eq!((found.base, found.strange), (chain.base, false), "{name}");
        let comments: Vec<&str> = found.rules.iter().map(|rule| rule.comment.as_str()).collect();
        assert_eq!(comments, chain.rules.iter().map(|rule| rule.comment.as_str()).collect::<Vec<_>>());
    }
    assert_eq!(held.sets.keys().collect::<Vec<_>>(), table.sets.keys().collect::<Vec<_>>());
    for (name, set) in &table.sets {
        let found = &held.sets[name];
        assert_eq!(found.spec, Some(set.spec), "{name}");
        assert_eq!(found.elements.keys().collect::<Vec<_>>(), set.elements.keys().collect::<Vec<_>>(), "{name}");
        for (key, value) in &set.elements {
            let mut read = found.elements[key].value.clone();
            if let (Some(read), Some(written)) = (&mut read.timeout_ms, value.timeout_ms) {
                assert!(written - *read < 20, "{written} {read}");
                *read = written;
            }
            assert_eq!(&read, value, "{name}");
            assert_eq!(found.elements[key].left_ms.is_some(), value.timeout_ms.is_some());
        }
    }
}

fn fingerprints(held: &Held) -> BTreeMap<&str, Vec<u64>> {
    held.chains
        .iter()
        .map(|(name, chain)| (&**name, chain.rules.iter().map(|rule| rule.fingerprint).collect()))
        .collect()
}

fn assert_reads_back(table: &Table) {
    let _committed = Namespace::new();
    let mut first = kernel();
    first.commit(&from_nothing(table)).expect("the kernel takes the table");
    let by_netlink = held(&mut first);
    assert_holds(&by_netlink, table);
    assert_eq!(Held::parse(&first.dump().unwrap()).map(|held| held.chains), Some(by_netlink.chains.clone()));
    // nft's own tables read the same, to the octet of each expression.
    let _loaded = Namespace::new();
    load(&render(table));
    let by_text = held(&mut kernel());
    assert_holds(&by_text, table);
    assert_eq!(fingerprints(&by_netlink), fingerprints(&by_text));
}

#[test]
fn what_was_committed_is_read_back() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    let mut watch = Watch::open(0).unwrap();
    assert_eq!(kernel().read().unwrap(), None);
    assert_eq!(nft(&["list", "ruleset"], "").unwrap(), "", "opening leaves nothing behind");
    assert_eq!(watch.try_next().unwrap(), None);
    assert_eq!(kernel().elements("dst4").unwrap(), None);
    assert_reads_back(&nft_tables::everything());
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(64) });
    runner
        .run(&nft_tables::random::table(), |table| {
            assert_reads_back(&table);
            Ok(())
        })
        .unwrap();
}

#[test]
fn rules_that_differ_have_other_fingerprints() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    let table = nft_tables::everything();
    let mut kernel = kernel();
    kernel.commit(&from_nothing(&table)).unwrap();
    let held = held(&mut kernel);
    let mut seen: BTreeMap<u64, String> = BTreeMap::new();
    for (name, chain) in &table.chains {
        for (rule, found) in chain.rules.iter().zip(&held.chains[name].rules) {
            let text = render_rule(rule);
            let text = text.split(" comment ").next().unwrap_or_default().to_owned();
            let first = seen.entry(found.fingerprint).or_insert_with(|| text.clone());
            assert_eq!(first, &text);
        }
    }
}

#[test]
fn a_foreign_change_is_seen_and_an_own_one_is_not() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    let mut kernel = with_leases(Options::default());
    let mut watch = Watch::open(kernel.port()).unwrap();
    kernel.commit(&[Op::PutElements(ident("dst4"), vec![lease(1, 1, 60_000)])]).unwrap();
    load("table inet other { chain c { }\n}\n");
    assert_eq!(watch.try_next().unwrap(), None);

    nft(&["add", "element", "inet", "clawgress", "dst4", "{ 7 . 192.0.2.1 : 5 }"], "").unwrap();
    let Event::Changed(process) = watch.wait().unwrap() else { panic!("a change") };
    assert_eq!(process.name, "nft");
    assert!(process.pid > 0);
    nft(&["flush", "ruleset"], "").unwrap();
    assert!(matches!(watch.wait().unwrap(), Event::Deleted(_)));
    assert_eq!(watch.try_next().unwrap(), None);
}

#[test]
fn lost_events_are_told() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    let mut kernel = with_leases(Options::default());
    // Not the writer's port: its changes count as foreign ones.
    let mut watch = Watch::open(0).unwrap();
    let leases: Vec<_> = (0..400_000).map(|number| lease(number, 1, 3_600_000)).collect();
    let mut careful = Watch::open(kernel.port()).unwrap();
    kernel.commit(&[Op::AddElements(ident("dst4"), leases)]).unwrap();
    let mut lost = false;
    while let Some(event) = watch.try_next().unwrap() {
        lost |= event == Event::Lost;
    }
    assert!(lost);
    assert_eq!(careful.try_next().unwrap(), None, "own changes take no room");
}

#[test]
fn an_owned_table_survives_others_and_its_owner() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    let options = Options { own_table: true, old_kernel: false };
    let mut owner = with_leases(options);
    if !owner.features().owner {
        eprintln!("\n*** SKIPPED: this kernel has no tables with owners that persist (Linux 6.9) ***\n");
        return;
    }
    let refused = nft(&["delete", "table", "inet", "clawgress"], "").unwrap_err();
    assert!(refused.contains("not permitted"), "{refused}");
    nft(&["flush", "ruleset"], "").unwrap();
    let second = Kernel::open(options).unwrap().commit(&[Op::AddTable]).unwrap_err();
    assert_eq!(second.kind, ErrorKind::NotPermitted, "{second}");
    // The owner may say again that the table is to be there.
    owner.commit(&[Op::AddTable]).unwrap();
    assert!(held(&mut owner).owned);

    drop(owner);
    let mut next = Kernel::open(options).unwrap();
    assert!(held(&mut next).sets.contains_key("dst4"), "the table outlives its owner");
    next.commit(&[Op::AddTable]).unwrap();
    nft(&["delete", "table", "inet", "clawgress"], "").unwrap_err();
    next.commit(&[Op::DelTable]).unwrap();

    load("table inet clawgress { chain c { }\n}\n");
    let plain = next.commit(&[Op::AddTable]).unwrap_err();
    assert_eq!(plain.kind, ErrorKind::NotAdoptable, "{plain}");
    // Without owning, the plain table is fine.
    kernel().commit(&[Op::AddTable, Op::DelChain(ident("c"))]).unwrap();
}

#[test]
fn foreign_notrack_and_flowtables_are_found() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    let mut kernel = with_leases(Options::default());
    load("table ip other { chain c { type filter hook prerouting priority raw; ip saddr 192.0.2.1 accept; }\n}\n");
    assert!(!kernel.foreign_notrack().unwrap());
    assert_eq!(kernel.foreign_flowtables().unwrap(), Vec::new());
    load("table ip6 other { chain c { type filter hook prerouting priority raw; tcp dport 1 notrack; }\n}\n");
    assert!(kernel.foreign_notrack().unwrap());
    let flowtable = "table inet other { flowtable f { hook ingress priority 0; devices = { lo }; }\n}\n";
    match nft(&["-f", "-"], flowtable) {
        Ok(_) => {
            let found = kernel.foreign_flowtables().unwrap();
            assert_eq!((found[0].name.as_str(), &found[0].devices[..]), ("f", &["lo".to_owned()][..]));
        }
        Err(complaint) => eprintln!("\n*** SKIPPED in part: no flowtables on this kernel: {complaint} ***\n"),
    }
}

#[test]
fn without_rights_the_message_says_what_to_do() {
    if !ready() {
        return;
    }
    let outcome = std::thread::spawn(|| {
        let _namespace = Namespace::new();
        // SAFETY: the bare system call gives up the rights of this thread only, which ends with the closure.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) }, 0);
        Kernel::open(Options::default()).map(|_| ())
    });
    let error = outcome.join().unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotPermitted);
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}

#[test]
fn a_comment_of_any_length_allowed_fits() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    let mut kernel = with_leases(Options::default());
    let (key, mut value) = lease(1, 1, 60_000);
    value.comment = Some(Arc::from("x".repeat(200)));
    kernel.commit(&[Op::AddElements(ident("dst4"), vec![(key, value.clone())])]).unwrap();
    assert_eq!(kernel.elements("dst4").unwrap().expect("a set")[&key].value, value);
    value.comment = Some(Arc::from("x".repeat(201)));
    let error = kernel.commit(&[Op::PutElements(ident("dst4"), vec![(key, value)])]).unwrap_err();
    assert!(error.to_string().contains("shorten"), "{error}");

    let range = |first, last| {
        (Key::Range(at(first), at(last)), Value { comment: Some("r".repeat(200).into()), ..Value::plain(Data::None) })
    };
    let spec =
        SetSpec { key: KeyType::Address(Family::V4), data: DataType::None, interval: true, ..leases(Family::V4) };
    let spec = SetSpec { timeout: false, size: None, ..spec };
    let elements = BTreeMap::from([range("10.0.0.0", "10.255.255.255"), range("11.0.0.0", "255.255.255.255")]);
    let set = Set { spec, elements: elements.clone().into() };
    let chain = Chain { base: None, rules: vec![nft_tables::rule(Vec::new(), vec![Action::Verdict(Verdict::Drop)])] };
    let table = Table {
        sets: BTreeMap::from([(ident("r"), set.clone())]),
        chains: BTreeMap::from([(ident("c"), chain)]),
        ..Table::default()
    };
    kernel.commit(&diff(&Table::default(), &table).into_ops()).unwrap();
    let found = kernel.elements("r").unwrap().expect("a set");
    let found: BTreeMap<Key, Value> = found.into_iter().map(|(key, element)| (key, element.value)).collect();
    assert_eq!(found, elements);
}

#[test]
fn counters_are_read_and_leave_fingerprints_alone() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    nft_namespace::loopback_up();
    let mut kernel = kernel();
    let spec = SetSpec {
        key: KeyType::Mark,
        data: DataType::Verdict,
        interval: false,
        timeout: true,
        counter: true,
        size: Some(64),
    };
    let value = Value { comment: Some("unmarked".into()), ..Value::plain(Data::Verdict(Verdict::Accept)) };
    let set = Set { spec, elements: [(Key::Mark(0), value)].into_iter().collect() };
    let rule = nft_tables::rule(
        vec![Cond::Proto(proto::UDP), Cond::Dport(9)],
        vec![Action::Counter, Action::Vmap(Field::CtMark, ident("up"))],
    );
    let base = Base { kind: ChainType::Filter, hook: Hook::Output, priority: 0 };
    let table = Table {
        sets: BTreeMap::from([(ident("up"), set)]),
        chains: BTreeMap::from([(ident("out"), Chain { base: Some(base), rules: vec![rule] })]),
        ..Table::default()
    };
    kernel.commit(&from_nothing(&table)).unwrap();
    let before = held(&mut kernel);
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..3 {
        socket.send_to(&[0; 72], "127.0.0.1:9").unwrap();
    }
    let after = held(&mut kernel);
    assert_eq!(fingerprints(&before), fingerprints(&after));
    assert!(list().contains("counter packets 3 bytes 300"), "{}", list());
    let element = &after.sets["up"].elements[&Key::Mark(0)];
    assert_eq!((element.packets, element.bytes), (3, 300));
    assert_eq!(element.value.comment.as_deref(), Some("unmarked"));
}
