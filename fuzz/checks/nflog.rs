//! Any octets as copies of packets from the kernel: reading them always ends, and says only what such a packet can have.

use clawgress::nft::nflog::{Headers, headers, parse};
use clawgress::plan::ir::proto;
use clawgress::plan::table::refusals::{Origin, REFUSALS};

/// Panics where a promise is broken.
pub fn check(data: &[u8]) {
    let copies: Vec<_> = parse(data).collect();
    assert_eq!(copies, parse(data).collect::<Vec<_>>());
    for copied in copies.into_iter().filter_map(|(_, copied)| copied) {
        if let Origin::Refused(place) = copied.origin {
            assert!(place < REFUSALS.len());
        }
        plausible(&copied.headers);
    }
    // The packet alone is where strangers choose the octets.
    if let Some(found) = headers(data) {
        plausible(&found);
        assert!(data.len() >= if found.source.is_ipv4() { 20 } else { 40 }, "addresses of a header that is not there");
        // What stands behind the ports and types changes nothing.
        assert_eq!(headers(&[data, &[0xff; 4]].concat()).map(|more| more.source), Some(found.source));
    }
}

fn plausible(headers: &Headers) {
    assert_eq!(headers.source.is_ipv4(), headers.destination.is_ipv4());
    assert!(headers.ports.is_none() || matches!(headers.protocol, proto::TCP | proto::UDP), "{headers:?}");
    assert!(headers.icmp.is_none() || matches!(headers.protocol, proto::ICMP | proto::ICMPV6), "{headers:?}");
}
