//! The reader of dumps takes any octets: arbitrary ones, and real dumps with octets changed.

mod nft_namespace;
mod nft_tables;

use clawgress::nft::Held;
use nft_namespace::{Namespace, kernel, ready};
use nft_tables::{everything, from_nothing};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn arbitrary_octets_are_read(octets in vec(any::<u8>(), 0..600)) {
        let _ = Held::parse(&octets);
    }
}

#[test]
fn changed_dumps_are_read() {
    if !ready() {
        return;
    }
    let _namespace = Namespace::new();
    let mut kernel = kernel();
    kernel.commit(&from_nothing(&everything())).expect("a table");
    let dump = kernel.dump().expect("a dump");
    assert!(Held::parse(&dump).is_some_and(|held| !held.sets.is_empty()));

    // Starts of ranges without an end between them, also at address zero.
    assert!(Held::parse(&[&dump[..], &dump].concat()).is_some());

    let places = vec((0..dump.len(), any::<u8>()), 1..20);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(1000)
    });
    let complete = std::cell::Cell::new(0u32);
    runner
        .run(&(places, 0..dump.len()), |(changes, end)| {
            let mut octets = dump.clone();
            for (place, octet) in changes {
                octets[place] = octet;
            }
            let whole = Held::parse(&octets).is_some_and(|held| held.sets.len() > 5);
            complete.set(complete.get() + u32::from(whole));
            let _ = Held::parse(&octets[..end]);
            Ok(())
        })
        .unwrap();
    assert!(complete.get() > 100, "most changes leave the framing whole: {complete:?}");
}
