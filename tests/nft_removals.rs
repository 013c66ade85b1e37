//! What removed elements had counted, as the kernel tells it: to the one writer of an owned table, or to whoever listens.

mod nft_namespace;
mod nft_tables;

use std::os::fd::AsFd as _;

use clawgress::nft::{Kernel, Options, Removal, Removals};
use clawgress::plan::ir::{Data, Family, Key, Value, Verdict};
use clawgress::plan::ops::Op;
use clawgress::plan::table::{CLASSES, leases};
use nft_namespace::{Namespace, listeners, nft, ready};
use nft_tables::ident;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The longest there is.
fn comment() -> String {
    "x".repeat(200)
}

fn marks(numbers: impl IntoIterator<Item = u32>) -> Vec<(Key, Value)> {
    let value = Value { data: Data::Verdict(Verdict::Accept), timeout_ms: None, comment: Some(comment().into()) };
    numbers.into_iter().map(|number| (Key::Mark(number), value.clone())).collect()
}

fn lease(number: u32) -> (Key, Value) {
    let key = Key::MarkAddress(7, std::net::IpAddr::V4((0x0a00_0000 + number).into()));
    (key, Value { data: Data::Mark(number), timeout_ms: Some(60_000), comment: None })
}

/// An owned table with both sets in a namespace of its own, and who hears what its writer removes.
fn telling() -> Option<(Namespace, Kernel, Removals)> {
    if !ready() {
        return None;
    }
    let namespace = Namespace::new();
    let mut kernel = Kernel::open(Options { own_table: true, old_kernel: false }).expect("the kernel's packet filter");
    if !kernel.features().owner {
        eprintln!("\n*** SKIPPED: this kernel has no tables with owners that persist (Linux 6.9) ***\n");
        return None;
    }
    let (removals, teller) = Removals::of_writer().expect("a descriptor");
    kernel.tell(teller).expect("the right to enlarge a buffer");
    kernel
        .commit(&[Op::AddTable, Op::AddSet(ident("up"), CLASSES), Op::AddSet(ident("dst4"), leases(Family::V4))])
        .expect("a table");
    Some((namespace, kernel, removals))
}

fn rings(removals: &Removals) -> bool {
    let mut descriptors = [PollFd::new(removals.as_fd(), PollFlags::POLLIN)];
    poll(&mut descriptors, PollTimeout::ZERO).expect("it can be polled") > 0
}

/// The numbers of removed elements, sorted, each of `up` with a comment and nothing counted; other events as words.
fn heard(removals: &mut Removals) -> (Vec<u32>, Vec<&'static str>) {
    let (mut numbers, mut words) = (Vec::new(), Vec::new());
    removals
        .take(|removal| match removal {
            Removal::Element { map, mark, element } => {
                assert_eq!(
                    (map.as_str(), element.packets, element.value.comment.as_deref()),
                    ("up", 0, Some(&*comment()))
                );
                numbers.push(mark);
            }
            Removal::Table => words.push("table"),
            Removal::Lost => words.push("lost"),
        })
        .expect("it can be heard");
    numbers.sort_unstable();
    (numbers, words)
}

#[test]
fn the_writer_of_an_owned_table_hears_what_it_removes_and_nothing_else() {
    let Some((_namespace, mut kernel, mut removals)) = telling() else { return };
    assert!(!rings(&removals), "nothing was removed");
    let put = |list| Op::PutElements(ident("up"), list);
    kernel.commit(&[put(marks(0..9)), Op::AddElements(ident("dst4"), (0..9).map(lease).collect())]).expect("elements");
    assert!(!rings(&removals), "what was not there was not removed");

    kernel.commit(&[put(marks([3]))]).expect("another element in its place");
    assert!(rings(&removals));
    assert_eq!(heard(&mut removals), (vec![3], vec![]));
    assert!(!rings(&removals) && heard(&mut removals).0.is_empty(), "told once");

    let leases = (0..4).map(|number| lease(number).0).collect();
    let gone = [Key::Mark(1), Key::Mark(77), Key::Mark(2)].to_vec();
    kernel.commit(&[Op::DelElements(ident("dst4"), leases), Op::DelElements(ident("up"), gone)]).expect("removed");
    assert_eq!(heard(&mut removals), (vec![1, 2], vec![]));

    let refused = [Op::DelElements(ident("up"), vec![Key::Mark(4)]), Op::DelSet(ident("nowhere"))];
    kernel.commit(&refused).expect_err("there is no such set");
    assert_eq!(heard(&mut removals), (vec![], vec![]), "a refused transaction removed nothing");

    kernel.commit(&[Op::FlushSet(ident("up"))]).expect("emptied");
    assert_eq!(heard(&mut removals), (vec![0, 3, 4, 5, 6, 7, 8], vec![]));
    kernel.commit(&[Op::AddTable, Op::DelTable, Op::AddTable]).expect("anew");
    assert_eq!(heard(&mut removals), (vec![], vec!["table"]));
    assert_eq!(listeners(), 0, "the kernel writes no messages for others");
}

#[test]
fn all_elements_that_count_can_be_removed_at_once_and_none_is_lost() {
    let Some((_namespace, mut kernel, mut removals)) = telling() else { return };
    // As many as there are classes, in two maps.
    let all: Vec<u32> = (0..262_144).collect();
    kernel.commit(&[Op::AddElements(ident("up"), marks(all.clone()))]).expect("elements");
    kernel.commit(&[Op::DelElements(ident("up"), all.iter().copied().map(Key::Mark).collect())]).expect("removed");
    let (numbers, words) = heard(&mut removals);
    assert!(numbers == all, "{} of {}", numbers.len(), all.len());
    assert_eq!(words, Vec::<&str>::new());
}

/// Whoever reads while a transaction goes on sees elements gone that nobody has told of yet.
#[test]
fn what_a_reading_misses_is_told_or_known_to_be_untold() {
    let Some((_namespace, mut kernel, mut removals)) = telling() else { return };
    kernel.commit(&[Op::AddElements(ident("up"), marks(0..100_000))]).expect("elements");
    let mut reader = Kernel::open(Options::default()).expect("a reader");
    let gone = [Op::DelElements(ident("up"), (0..100_000).map(Key::Mark).collect())];
    let untold = std::thread::scope(|scope| {
        scope.spawn(move || kernel.commit(&gone).expect("removed"));
        let mut untold = 0;
        loop {
            let mut there = 0;
            reader.counts("up", |_, _| there += 1).expect("a reading");
            let settled = removals.are_settled();
            let told = heard(&mut removals).0.len();
            assert!(there > 0 || told > 0 || !settled, "neither told nor known to be untold");
            if told > 0 {
                return untold;
            }
            untold += usize::from(there == 0);
        }
    });
    println!("{untold} readings saw no element before that was told");
}

#[test]
fn who_listens_to_anybody_hears_of_others_too() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    let mut kernel = Kernel::open(Options::default()).expect("the kernel's packet filter");
    kernel.commit(&[Op::AddTable, Op::AddSet(ident("up"), CLASSES)]).expect("a table");
    kernel.commit(&[Op::AddElements(ident("up"), marks(1..4))]).expect("elements");
    let mut removals = Removals::of_anybody().expect("the right to listen");
    assert_eq!(listeners(), 1);
    kernel.commit(&[Op::DelElements(ident("up"), vec![Key::Mark(1)])]).expect("removed");
    nft(&["flush", "map", "inet", "clawgress", "up"], "").expect("emptied");
    nft(&["delete", "table", "inet", "clawgress"], "").expect("removed");
    assert_eq!(heard(&mut removals), (vec![1, 2, 3], vec!["table"]));
}
