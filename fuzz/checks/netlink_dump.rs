//! Any octets as the kernel's dump of our table: reading them always ends, and the same octets say the same.

use clawgress::nft::Held;
use clawgress::plan::ir::{Family, Key, KeyType};

/// Panics where a promise is broken.
pub fn check(data: &[u8]) {
    let held = Held::parse(data);
    assert_eq!(held, Held::parse(data));
    let Some(held) = held else { return };
    for (name, set) in &held.sets {
        let Some(spec) = &set.spec else {
            assert!(set.elements.is_empty(), "{name} is not understood, and yet it has elements");
            continue;
        };
        for key in set.elements.keys() {
            let fits = match key {
                Key::Mark(_) => spec.key == KeyType::Mark,
                Key::Port(_) => spec.key == KeyType::Port,
                Key::Address(address) => spec.key == KeyType::Address(Family::of(*address)) && !spec.interval,
                Key::Range(first, last) => {
                    spec.interval
                        && first <= last
                        && first.is_ipv4() == last.is_ipv4()
                        && spec.key == KeyType::Address(Family::of(*first))
                }
                Key::MarkAddress(_, address) => spec.key == KeyType::MarkAddress(Family::of(*address)),
            };
            assert!(fits, "{name} has {key:?}");
        }
    }
}
