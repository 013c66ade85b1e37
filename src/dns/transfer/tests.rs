//! Questions and answers as octets; hickory-proto reads what we write.

use std::sync::Arc;

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use proptest::prelude::*;

use super::answer::Answer;
use super::request::{AXFR, IN, IXFR, NOTIFY, SOA, TSIG, read, wire_name};
use super::tsig::Signer;
use super::*;
use crate::plan::rpz::{Action, Image, Served};

const NOW: u64 = 1_800_000_000;
const PEER: &str = "192.0.2.53";
const UNSIGNED: &str = "192.0.2.54";
const ZONE: &str = "global.allow.rpz.clawgress.";

fn key(name: &str, secret: &str) -> Key {
    Key::new(name, Algorithm::Sha256, &data_encoding::BASE64.encode(secret.as_bytes())).unwrap()
}

fn good() -> Key {
    key("Transfer.Example", "sixteen octets and more")
}

fn image(count: usize) -> Image {
    let owners: Vec<String> = (0..count).map(|number| format!("*.n{number}.example.org")).collect();
    let action = |number: usize| if number.is_multiple_of(3) { Action::Nxdomain } else { Action::Passthru };
    Image::from_records(owners.iter().enumerate().map(|(number, owner)| (owner.as_str(), action(number))))
}

fn edition(image: Image) -> Edition {
    Edition::first(Served { view: "*".into(), name: ZONE.into(), image }, 100)
}

fn transfers() -> Transfers {
    let secondary = |address: &str, key, views: Option<&[&str]>| Secondary {
        address: SocketAddr::new(address.parse().unwrap(), 53),
        key,
        views: views.map(|views| views.iter().map(|view| (*view).to_owned()).collect()),
    };
    let secondaries = vec![
        secondary(PEER, Some(good()), None),
        secondary(UNSIGNED, None, Some(&["agent-1"])),
        secondary("192.0.2.55", Some(good()), None),
    ];
    let transfers = Transfers::new(secondaries, Limits::default());
    transfers.refuse(vec!["192.0.2.55/32".parse().unwrap()]);
    transfers
}

fn serving(edition: Edition) -> Transfers {
    let transfers = transfers();
    let own = Served { view: "agent-1".into(), name: "agent-1.allow.rpz.clawgress.".into(), image: image(1) };
    transfers.publish(&[Arc::new(edition), Arc::new(Edition::first(own, 5))]);
    transfers
}

/// A question; `serial`: of the SOA record in the authority section.
fn question(kind: u16, zone: &str, serial: Option<u32>) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, u8::from(serial.is_some()), 0, 0];
    message.extend(wire_name(zone).unwrap());
    message.extend(kind.to_be_bytes());
    message.extend(IN.to_be_bytes());
    if let Some(serial) = serial {
        message.extend([0xc0, 12, 0, 6, 0, 1, 0, 0, 0, 0, 0, 22, 0, 0]);
        message.extend(serial.to_be_bytes());
        message.extend([0; 16]);
    }
    message
}

/// Signed at a time; gives the signature as well.
fn signed(mut message: Vec<u8>, key: &Key, at: u64) -> (Vec<u8>, Vec<u8>) {
    let mac = Signer::fresh(key).sign(&mut message, at);
    (message, mac)
}

fn ask(transfers: &Transfers, message: &[u8], source: &str, tcp: bool) -> Vec<Vec<u8>> {
    match transfers.answer(message, source.parse().unwrap(), tcp, NOW) {
        Answer::Nothing => Vec::new(),
        Answer::One(message) => vec![message],
        Answer::Zone(mut transfer) => {
            let mut messages = Vec::new();
            while let Some(mut message) = transfer.stream.next() {
                if let Some(signer) = &mut transfer.signer {
                    signer.sign(&mut message, NOW);
                }
                messages.push(message);
            }
            messages
        }
    }
}

/// The records of the answers, as text: owner, and serial or target.
fn records(messages: &[Vec<u8>]) -> Vec<String> {
    let mut out = Vec::new();
    for wire in messages {
        assert!(wire.len() < 17_000, "{} octets", wire.len());
        let message = Message::from_vec(wire).unwrap();
        assert_eq!(message.metadata.response_code, ResponseCode::NoError);
        assert!(message.metadata.authoritative && message.metadata.id == 0x1234);
        for record in &message.answers {
            // As sent: shown to people, a name may be in Unicode.
            let name = record.name.to_ascii();
            out.push(match &record.data {
                RData::SOA(soa) => format!("{name} SOA {}", soa.serial),
                RData::NS(_) => format!("{name} NS"),
                RData::CNAME(target) => format!("{name} {}", target.0.to_ascii()),
                other => panic!("{other:?}"),
            });
        }
    }
    out
}

/// The code of an answer and the error in its TSIG record.
fn code(answer: &[Vec<u8>]) -> (u8, Option<u16>) {
    let [answer] = answer else { panic!("{} answers", answer.len()) };
    let read = read(answer).unwrap();
    (read.code, read.signature.map(|signature| signature.error))
}

fn lines(image: &Image) -> Vec<String> {
    image.records().map(|(owner, action)| format!("{owner}.{ZONE} {}", action.target())).collect()
}

#[test]
fn a_transfer_has_every_record_between_two_soas() {
    let edition = edition(image(20_000));
    let transfers = serving(edition.clone());
    let (question, _) = signed(question(AXFR, ZONE, None), &good(), NOW);
    let messages = ask(&transfers, &question, PEER, true);
    assert!(messages.len() > 20, "{} messages", messages.len());
    let soa = format!("{ZONE} SOA 100");
    let expected =
        [soa.clone(), format!("{ZONE} NS")].into_iter().chain(lines(&edition.image)).chain([soa]).collect::<Vec<_>>();
    assert_eq!(records(&messages), expected);
}

#[test]
fn every_message_is_signed_over_the_one_before() {
    let transfers = serving(edition(image(5_000)));
    let key = good();
    let (question, mac) = signed(question(AXFR, ZONE, None), &key, NOW);
    let secret = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"sixteen octets and more");
    let mut before = mac;
    let messages = ask(&transfers, &question, PEER, true);
    for (index, message) in messages.iter().enumerate() {
        let (begins, mac) = last_record(message);
        // Written out anew from RFC 8945 sections 4.3.3 and 5.3.1.
        let mut over = vec![0, 32];
        over.extend(&before);
        over.extend(&message[..10]);
        over.extend([message[10], message[11] - 1]);
        over.extend(&message[12..begins]);
        if index == 0 {
            over.extend(b"\x08transfer\x07example\0\0\xff\0\0\0\0\x0bhmac-sha256\0");
        }
        over.extend(&NOW.to_be_bytes()[2..]);
        over.extend([1, 44]);
        if index == 0 {
            over.extend([0; 4]);
        }
        ring::hmac::verify(&secret, &over, mac).unwrap_or_else(|_| panic!("message {index}"));
        before = mac.to_vec();
    }
    assert!(messages.len() > 3);
}

/// Where the signature's record begins, and the signature. It is the last record, and its length is known: name, head,
/// algorithm, time and fudge, signature with length, number, error, other.
fn last_record(message: &[u8]) -> (usize, &[u8]) {
    let begins = message.len() - (18 + 10 + 13 + 8 + 34 + 2 + 2 + 2);
    assert_eq!(&message[begins..begins + 20], b"\x08transfer\x07example\0\0\xfa");
    (begins, &message[begins + 18 + 10 + 13 + 8 + 2..][..32])
}

#[test]
fn differences_are_sent_where_they_are_known() {
    let old = edition(Image::from_records([("a", Action::Passthru), ("b", Action::Passthru)]));
    let middle = old.follow(Image::from_records([("b", Action::Nxdomain), ("c", Action::Passthru)]), 101);
    let new = middle.follow(Image::from_records([("b", Action::Nxdomain)]), 102);
    let transfers = serving(new);
    let from = |serial: u32, tcp: bool| {
        let (question, _) = signed(question(IXFR, ZONE, Some(serial)), &good(), NOW);
        records(&ask(&transfers, &question, PEER, tcp)).iter().map(|line| line.replace(ZONE, "@")).collect::<Vec<_>>()
    };
    let soa = |serial: u32| format!("@ SOA {serial}");
    let step1 = ["a.@ rpz-passthru.", "b.@ rpz-passthru."].map(str::to_owned);
    let step2 = ["b.@ .", "c.@ rpz-passthru."].map(str::to_owned);
    let last = vec![soa(101), "c.@ rpz-passthru.".to_owned(), soa(102), soa(102)];
    let all = [vec![soa(102), soa(100)], step1.to_vec(), vec![soa(101)], step2.to_vec(), last.clone()].concat();
    assert_eq!(from(100, true), all);
    assert_eq!(from(101, true), [vec![soa(102)], last].concat());
    assert_eq!(from(99, true), [soa(102), "@ NS".into(), "b.@ .".into(), soa(102)], "not known: the whole zone");
    // Who has it, or more, is told so; by datagram everybody is told the serial.
    for (serial, tcp) in [(102, true), (103, true), (100, false), (99, false), (102, false)] {
        assert_eq!(from(serial, tcp), [soa(102)], "{serial} {tcp}");
    }
}

#[test]
fn only_secondaries_with_their_key_get_anything() {
    let transfers = serving(edition(image(3)));
    let (key, other, named) =
        (good(), key("transfer.example", "another secret of octets"), key("other.", "sixteen octets and more"));
    let axfr = || question(AXFR, ZONE, None);
    let from = |message: &[u8], source: &str| code(&ask(&transfers, message, source, true));
    let sign = |key: &Key, at| signed(axfr(), key, at).0;
    assert_eq!(from(&sign(&key, NOW), PEER), (0, Some(0)));
    assert_eq!(from(&sign(&key, NOW - 300), PEER), (0, Some(0)));
    assert_eq!(from(&axfr(), PEER), (5, None), "unsigned");
    assert_eq!(from(&axfr(), "198.51.100.1"), (5, None), "a stranger");
    assert_eq!(from(&sign(&key, NOW), "198.51.100.1"), (5, None), "a stranger who knows the key");
    assert_eq!(from(&sign(&named, NOW), PEER), (9, Some(17)), "BADKEY");
    assert_eq!(from(&sign(&other, NOW), PEER), (9, Some(16)), "BADSIG");
    assert_eq!(from(&sign(&key, NOW), "192.0.2.55"), (5, None), "an agent, whatever it can sign");
    for at in [NOW - 301, NOW + 301] {
        let (message, mac) = signed(axfr(), &key, at);
        let answers = ask(&transfers, &message, PEER, true);
        assert_eq!(code(&answers), (9, Some(18)), "BADTIME");
        let signature = read(&answers[0]).unwrap().signature.unwrap();
        assert_eq!((signature.time, signature.other.as_slice()), (at, &NOW.to_be_bytes()[2..]));
        assert_eq!(tsig::verify(&answers[0], &signature, &key, Some(&mac), at), Ok(()), "this refusal is signed");
    }
    // Some signatures that are none.
    let mut short = sign(&key, NOW);
    let begins = read(&short).unwrap().signature.unwrap().begins;
    let mac_length = short.len() - 6 - 32 - 2;
    short[mac_length + 1] = 8;
    short.drain(mac_length + 2 + 8..mac_length + 2 + 32);
    let data_length = begins + wire_name("transfer.example").unwrap().len() + 8;
    short[data_length + 1] -= 24;
    assert_eq!(from(&short, PEER), (1, None), "cut off to less than ten octets");
    // Class and time to live of the record are no part of what the hash is over (RFC 8945 section 4.2).
    let right = sign(&key, NOW);
    let head = read(&right).unwrap().signature.unwrap().begins + wire_name("transfer.example").unwrap().len();
    for (place, value) in [(head + 3, 1), (head + 2, 1), (head + 4, 1), (head + 7, 1)] {
        let mut other = right.clone();
        other[place] = value;
        assert_eq!(ask(&transfers, &other, PEER, true)[0][3] & 15, 1, "octet {place}");
    }
}

#[test]
fn a_secondary_has_the_zones_of_its_views_and_no_others() {
    let transfers = serving(edition(image(3)));
    let from = |kind, zone: &str, tcp| code(&ask(&transfers, &question(kind, zone, None), UNSIGNED, tcp)).0;
    assert_eq!(from(AXFR, "agent-1.allow.rpz.clawgress", true), 0);
    assert_eq!(from(AXFR, "AGENT-1.Allow.rpz.clawgress", true), 0, "case does not matter");
    assert_eq!(from(SOA, "agent-1.allow.rpz.clawgress", false), 0);
    assert_eq!(from(AXFR, ZONE, true), 9);
    assert_eq!(from(SOA, ZONE, false), 5);
    assert_eq!(from(AXFR, "example.org", true), 9);
    assert_eq!(from(1, "agent-1.allow.rpz.clawgress", true), 5, "records are not looked up here");
    assert_eq!(from(AXFR, "agent-1.allow.rpz.clawgress", false), 1, "no transfer by datagram");
    assert_eq!(from(IXFR, "agent-1.allow.rpz.clawgress", true), 1, "no serial");
    let mut notify = question(SOA, ZONE, None);
    notify[2] = NOTIFY << 3;
    assert_eq!(code(&ask(&transfers, &notify, UNSIGNED, false)).0, 4);
    let mut answer = question(SOA, ZONE, None);
    answer[2] = 0x80;
    assert!(ask(&transfers, &answer, UNSIGNED, false).is_empty(), "an answer is not answered");
}

#[test]
fn before_there_is_a_policy_the_answer_is_that_we_cannot_tell() {
    let transfers = transfers();
    let (question, _) = signed(question(SOA, ZONE, None), &good(), NOW);
    assert_eq!(code(&ask(&transfers, &question, PEER, false)), (2, Some(0)));
}

#[test]
fn who_asks_with_the_serial_has_the_zone() {
    let transfers = serving(edition(image(3)));
    let confirmed = || transfers.report()[0].zones.iter().find(|zone| zone.zone == ZONE).unwrap().confirmed;
    let send = |serial| ask(&transfers, &signed(question(IXFR, ZONE, Some(serial)), &good(), NOW).0, PEER, false);
    send(99);
    assert_eq!(confirmed(), None);
    send(100);
    assert_eq!(confirmed(), Some(100));
    assert_eq!(transfers.report()[0].trouble, None);
    // Somebody who has more than there is will never follow: that must be told.
    send(101);
    assert_eq!(confirmed(), Some(100));
    assert!(transfers.report()[0].trouble.as_ref().unwrap().what.contains("newer than ours"));
}

#[test]
fn secrets_are_checked_and_not_shown() {
    let made =
        |secret: &str| Key::new("a.", Algorithm::Sha512, secret).map(|_| ()).unwrap_or_else(|why| panic!("{why}"));
    made("c2l4dGVlbiBvY3RldHMgYW5kIG1vcmU=\n");
    assert!(Key::new("a.", Algorithm::Sha256, "no base 64!").unwrap_err().contains("base 64"));
    assert!(Key::new("a.", Algorithm::Sha256, "c2hvcnQ=").unwrap_err().contains("short"));
    assert!(Key::new("a..b", Algorithm::Sha256, "c2l4dGVlbiBvY3RldHMgYW5kIG1vcmU=").is_err());
    assert!(!format!("{:?}", good()).contains("sixteen"));
}

proptest! {
    #[test]
    fn any_zone_comes_through(
        owners in proptest::collection::btree_map("(\\*\\.)?([a-z0-9][a-z0-9_-]{0,20}\\.){0,4}[a-z]{1,10}", any::<bool>(), 0..400)
    ) {
        let action = |pass: bool| if pass { Action::Passthru } else { Action::Nxdomain };
        let image = Image::from_records(owners.iter().map(|(owner, pass)| (owner.as_str(), action(*pass))));
        let expected = lines(&image);
        let transfers = serving(edition(image));
        let (question, _) = signed(question(AXFR, ZONE, None), &good(), NOW);
        let records = records(&ask(&transfers, &question, PEER, true));
        prop_assert_eq!(&records[2..records.len() - 1], &expected[..]);
    }

    /// No octet under the signature can be another one.
    #[test]
    fn a_changed_question_is_not_admitted(place in any::<proptest::sample::Index>(), change in 1..=255_u8) {
        let transfers = serving(edition(image(1)));
        let (mut message, _) = signed(question(AXFR, ZONE, None), &good(), NOW);
        let place = place.index(message.len());
        let before = read(&message).unwrap();
        message[place] ^= change;
        let answers = ask(&transfers, &message, PEER, true);
        // The number of the message is not signed but its copy is, and names may change case: it is the same question.
        let same = read(&message).is_ok_and(|after| request::Asked { id: before.id, ..after } == before);
        if !same {
            for answer in &answers {
                prop_assert!(answer[3] & 15 != 0, "octet {} changed and it was answered", place);
            }
        }
    }

    /// So that nobody is flooded with answers to questions that others sent in its name.
    #[test]
    fn a_stranger_gets_no_more_than_was_sent(
        labels in proptest::collection::vec("[a-z]{1,30}", 0..4),
        tail in proptest::collection::vec(prop_oneof![Just(0xc0_u8), Just(0), Just(12), 0..12_u8, any::<u8>()], 0..60),
        kinds in proptest::collection::vec(prop_oneof![Just(250_u16), Just(41), any::<u16>()], 0..3),
        id in any::<u16>(),
    ) {
        let transfers = serving(edition(image(1)));
        let mut message = question(AXFR, &format!("{}a", labels.iter().map(|label| format!("{label}.")).collect::<String>()), None);
        message[..2].copy_from_slice(&id.to_be_bytes());
        let mut forged = message.clone();
        for kind in kinds {
            // The key's name and the algorithm point to the name asked for.
            let data = [&[0xc0, 12][..], &[0; 8], &[0, 16], &[7; 16], &[0, 0, 0, 0, 0, 0]].concat();
            message.extend([0xc0, 12].into_iter().chain(kind.to_be_bytes()).chain([0, 255, 0, 0, 0, 0, 0, data.len() as u8]));
            message.extend(data);
            message[11] += 1;
        }
        forged.truncate(12);
        forged.extend(&tail);
        for message in [message, forged] {
            for answer in ask(&transfers, &message, "198.51.100.1", false) {
                prop_assert!(answer.len() <= message.len(), "{} for {}", answer.len(), message.len());
            }
        }
    }

    #[test]
    fn no_octets_make_it_stumble(octets in proptest::collection::vec(any::<u8>(), 0..200), tail in any::<bool>()) {
        let transfers = serving(edition(image(1)));
        let mut message = if tail { signed(question(IXFR, ZONE, Some(3)), &good(), NOW).0 } else { Vec::new() };
        let keep = message.len().saturating_sub(octets.len());
        message.truncate(keep);
        message.extend(octets);
        for answer in ask(&transfers, &message, PEER, true) {
            prop_assert!(answer.len() >= 12 && answer[2] & 0x80 != 0);
        }
    }
}

#[test]
fn hickory_reads_our_signature_record() {
    let (message, _) = signed(question(SOA, ZONE, None), &good(), NOW);
    let read = Message::from_vec(&message).unwrap();
    assert_eq!(read.queries[0].query_type(), RecordType::SOA);
    assert_eq!(super::request::read(&message).unwrap().signature.unwrap().original_id, 0x1234);
    assert_eq!(u16::from(RecordType::TSIG), TSIG);
}

#[test]
fn a_datagram_without_a_signature_does_not_say_what_a_secondary_has() {
    let transfers = serving(edition(image(1)));
    let peer = transfers.peers.iter().find(|peer| peer.key.is_none()).unwrap();
    let question = question(IXFR, "agent-1.allow.rpz.clawgress.", Some(5));
    ask(&transfers, &question, UNSIGNED, false);
    assert_eq!(peer.untold().len(), 1, "it is told of the zone still");
    ask(&transfers, &question, UNSIGNED, true);
    assert_eq!(peer.untold().len(), 0, "over a connection it is believed");
}
