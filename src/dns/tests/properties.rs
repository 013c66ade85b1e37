//! Whatever an upstream sends: no panic, and no address that was not leased.

use std::net::IpAddr;

use hickory_proto::op::Message;
use hickory_proto::rr::rdata::svcb::{EchConfigList, IpHint, SvcParamKey, SvcParamValue};
use hickory_proto::rr::rdata::{A, AAAA, HTTPS, SVCB};
use hickory_proto::rr::{RData, Record, RecordType};
use proptest::prelude::*;

use super::doubles::{Table, name};
use super::wire::{a, aaaa, cname, n, question, record, reply, soa};
use crate::core::judge::{AddressVerdict, Judge};
use crate::core::lease::{Acked, HostId};
use crate::dns::filter::{Asked, Outcome, filter};

const NAMES: [&str; 6] = ["allowed.example", "b.example", "c.example", "bad.example", "x.bad.example", "d.example"];
const V4: [&str; 5] = ["192.0.2.1", "192.0.2.2", "10.0.0.1", "172.16.0.1", "192.0.2.13"];
const V6: [&str; 3] = ["2001:db8::1", "2001:db8::2", "::1"];
const KINDS: [RecordType; 7] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::HTTPS,
    RecordType::SVCB,
    RecordType::CNAME,
    RecordType::TXT,
    RecordType::MX,
];

fn table() -> Table {
    Table {
        deny: vec!["bad.example", "*.bad.example"],
        open: vec![IpAddr::from([172, 16, 0, 1])],
        denied: vec![IpAddr::from([192, 0, 2, 13])],
        ..Table::default()
    }
}

fn any_service() -> impl Strategy<Value = SVCB> {
    let hints4 = prop::collection::vec(prop::sample::select(&V4[..]), 0..4);
    let hints6 = prop::collection::vec(prop::sample::select(&V6[..]), 0..3);
    let target = prop_oneof![Just("."), prop::sample::select(&NAMES[..])];
    (0..2_u16, target, hints4, hints6, any::<bool>()).prop_map(|(priority, target, v4, v6, ech)| {
        let v4 = v4.iter().map(|hint| A(hint.parse().unwrap())).collect();
        let v6 = v6.iter().map(|hint| AAAA(hint.parse().unwrap())).collect();
        let mut params = vec![
            (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(v4))),
            (SvcParamKey::Ipv6Hint, SvcParamValue::Ipv6Hint(IpHint(v6))),
        ];
        if ech {
            params.insert(1, (SvcParamKey::EchConfigList, SvcParamValue::EchConfigList(EchConfigList(vec![1]))));
        }
        SVCB::new(priority, n(target), params)
    })
}

fn any_record() -> impl Strategy<Value = Record> {
    let owner = || prop::sample::select(&NAMES[..]);
    let ttl = || prop_oneof![Just(0_u32), 1..100_000_u32];
    prop_oneof![
        (owner(), ttl(), prop::sample::select(&V4[..])).prop_map(|(owner, ttl, address)| a(owner, ttl, address)),
        (owner(), ttl(), prop::sample::select(&V6[..])).prop_map(|(owner, ttl, address)| aaaa(owner, ttl, address)),
        (owner(), ttl(), owner()).prop_map(|(owner, ttl, target)| cname(owner, ttl, target)),
        (owner(), ttl(), any_service()).prop_map(|(owner, ttl, data)| record(owner, ttl, RData::HTTPS(HTTPS(data)))),
        (owner(), ttl(), any_service()).prop_map(|(owner, ttl, data)| record(owner, ttl, RData::SVCB(data))),
        (owner(), ttl(), ttl()).prop_map(|(owner, ttl, minimum)| soa(owner, ttl, minimum)),
    ]
}

/// Addresses that a client could take from records, and whether one of them carries `ech`.
fn carried(records: &[Record]) -> (Vec<IpAddr>, bool) {
    let (mut addresses, mut ech) = (Vec::new(), false);
    for record in records {
        let service = match &record.data {
            RData::A(address) => {
                addresses.push(IpAddr::V4(address.0));
                continue;
            }
            RData::AAAA(address) => {
                addresses.push(IpAddr::V6(address.0));
                continue;
            }
            RData::HTTPS(HTTPS(service)) | RData::SVCB(service) => service,
            _ => continue,
        };
        for (key, value) in &service.svc_params {
            ech |= *key == SvcParamKey::EchConfigList;
            match value {
                SvcParamValue::Ipv4Hint(IpHint(hints)) => addresses.extend(hints.iter().map(|hint| IpAddr::V4(hint.0))),
                SvcParamValue::Ipv6Hint(IpHint(hints)) => addresses.extend(hints.iter().map(|hint| IpAddr::V6(hint.0))),
                _ => {}
            }
        }
    }
    (addresses, ech)
}

/// Filters, and checks everything that must hold whatever came in.
fn check(upstream: &Message, kind: RecordType, age: u32) -> Result<(), TestCaseError> {
    let judge = table();
    let host = HostId(2);
    let allowed = judge.decide_name(host, Some(&name("allowed.example")), chrono::Utc::now());
    let own = n("allowed.example");
    let asked = Asked { name: &own, kind, dnssec_ok: true, host, allowed: &allowed };
    let filtered = match filter(upstream, age, asked, &judge) {
        Outcome::Pass(filtered) => filtered,
        Outcome::Block(decision, _) => {
            prop_assert_ne!(decision.verdict, allowed.verdict);
            return Ok(());
        }
    };
    let (leased, ttl) = (filtered.addresses().clone(), filtered.ttl());
    for &address in &leased {
        prop_assert_eq!(judge.judge_address(host, address), AddressVerdict::Lease);
    }
    let answer = match filtered.release_unleased() {
        Ok(answer) => {
            prop_assert!(leased.is_empty());
            answer
        }
        Err(filtered) => filtered.release(Acked::by_kernel()),
    };
    let (addresses, ech) = carried(answer.records());
    prop_assert!(!ech);
    for address in addresses {
        let open = judge.judge_address(host, address) == AddressVerdict::Open;
        prop_assert!(open || leased.contains(&address), "{} was not leased", address);
    }
    for record in answer.records() {
        prop_assert!(record.ttl <= ttl && ttl <= 3600);
        if let RData::CNAME(target) = &record.data {
            prop_assert!(!target.0.to_ascii().ends_with("bad.example."));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_address_goes_out_unleased(
        records in prop::collection::vec(any_record(), 0..12),
        authorities in prop::collection::vec(any_record(), 0..3),
        kind in prop::sample::select(&KINDS[..]),
        age in 0..4000_u32,
    ) {
        let mut upstream = reply(&question("allowed.example", kind), records);
        upstream.authorities = authorities;
        check(&upstream, kind, age)?;
    }

    #[test]
    fn arbitrary_octets_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..600), kind in prop::sample::select(&KINDS[..])) {
        if let Ok(upstream) = Message::from_vec(&bytes) {
            check(&upstream, kind, 0)?;
        }
    }

    #[test]
    fn damaged_answers_do_no_harm(
        records in prop::collection::vec(any_record(), 0..8),
        kind in prop::sample::select(&KINDS[..]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut bytes = reply(&question("allowed.example", kind), records).to_vec().unwrap();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Ok(upstream) = Message::from_vec(&bytes) {
            check(&upstream, kind, 0)?;
        }
    }

    #[test]
    fn arbitrary_queries_do_no_harm(head in prop::collection::vec(any::<u8>(), 12), body in prop::collection::vec(any::<u8>(), 0..100)) {
        use crate::dns::query::{Transport, parse};
        let mut packet = head;
        packet[2] = 1;
        packet[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 1]);
        packet.extend(body);
        let _ = parse(&packet, Transport::Udp);
    }
}
