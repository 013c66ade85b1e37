//! Lists of names in files: the forms that people publish them in, with their quirks, and what is kept of each.

use std::collections::BTreeMap;
use std::net::IpAddr;

use clawgress::policy::lists::{Aside, Contents, CopyReader, Fault, MAX_BYTES, MAX_LINE, MAX_RULES, Reader, Refused};
use clawgress::policy::model::ListFormat;
use clawgress::policy::name::Name;
use proptest::prelude::*;

fn read(format: ListFormat, octets: &[u8]) -> Contents {
    let mut reader = Reader::new(format, octets.len() as u64, MAX_RULES);
    reader.feed(octets).expect("a list");
    reader.finish().expect("a list")
}

fn file(format: ListFormat, name: &str) -> Contents {
    let path = format!("{}/tests/policy_lists/{name}", env!("CARGO_MANIFEST_DIR"));
    read(format, &std::fs::read(path).expect("a list beside this file"))
}

fn name(text: &str) -> Name {
    Name::from_wire_labels(text.split('.').map(str::as_bytes)).expect("a name")
}

/// Line, a sign for exceptions, and pattern of each rule.
fn rules(contents: &Contents) -> Vec<String> {
    let sign = |exception| if exception { "-" } else { "" };
    let names = contents.entries().map(|entry| format!("{} {}{}", entry.line, sign(entry.exception), entry.pattern));
    let nets =
        contents.networks().map(|network| format!("{} {}{}", network.line, sign(network.exception), network.net));
    names.chain(nets).collect()
}

fn told(contents: &Contents) -> Vec<(u32, Fault)> {
    contents.report().told.clone()
}

#[test]
fn names_one_a_line() {
    let list = file(ListFormat::Domains, "domains.txt");
    let label = "a".repeat(63);
    let expected = [
        "6 bad.example",
        "8 *.tracker.example",
        "9 tracker.example",
        "10 xn--bcher-kva.example",
        "12 _dmarc.bad.example",
        &format!("13 {label}.example"),
        "23 last.example",
    ];
    assert_eq!(rules(&list), expected);
    assert_eq!(
        told(&list),
        [
            (14, Fault::TooLong),
            (15, Fault::PublicSuffix),
            (16, Fault::EveryName),
            (17, Fault::Wildcard),
            (18, Fault::Address),
            (19, Fault::MoreWords),
            (20, Fault::NotAName),
            (21, Fault::NotAName),
            (22, Fault::NotAName),
        ]
    );
    assert_eq!(list.report().to_string(), "7 names, 2 written twice, 9 rejected");
    assert_eq!(list.report().lines, 23);
}

#[test]
fn hosts_files() {
    let list = file(ListFormat::Hosts, "hosts.txt");
    let expected = [
        "11 ads.example",
        "12 ads2.example",
        "12 ads3.example",
        "13 ads4.example",
        "14 ads6.example",
        "15 ads_5.example",
        "19 good.example",
    ];
    assert_eq!(rules(&list), expected);
    let faults = [(16, Fault::Wildcard), (17, Fault::NoName), (18, Fault::NoAddress), (19, Fault::NotAName)];
    assert_eq!(told(&list), faults);
    assert_eq!((list.report().skipped, list.report().duplicates, list.report().rejected), (9, 1, 4));
}

#[test]
fn addresses_of_hosts_files_may_be_short() {
    let list =
        read(ListFormat::Hosts, b"0 a.example\n127.1 b.example\n127.0.1 c.example\n10.16777215 d.example\n0 0\n");
    assert_eq!(rules(&list), ["1 a.example", "2 b.example", "3 c.example", "4 d.example"]);
    assert_eq!((list.report().rejected, list.report().skipped), (0, 1));
    let numbered = b"1 a.example\n256.1 b.example\n127.0.65536 c.example\n10.16777216 d.example\n127. e.example\n\
        1.2.3.4.5 f.example\n.1 g.example\n1.+2 h.example\n0x7f.1 i.example\n";
    let list = read(ListFormat::Hosts, numbered);
    assert!(told(&list).iter().all(|(_, fault)| *fault == Fault::NoAddress), "{:?}", told(&list));
    assert_eq!((list.len(), list.report().rejected), (0, 9));
}

#[test]
fn response_policy_zones() {
    let list = file(ListFormat::Rpz, "zone.rpz");
    let expected = [
        "10 nxdomain.example",
        "11 *.nxdomain.example",
        "12 nodata.example",
        "13 drop.example",
        "14 -pass.nxdomain.example",
        "15 -oldpass.nxdomain.example",
        "17 garden.example",
        "18 sink.example",
        "20 absolute.example",
        "33 und_er.example",
        "38 deep.example.sub",
        "23 192.0.2.0/24",
        "24 -192.0.2.9/32",
        "25 2001:db8:1::/48",
    ];
    assert_eq!(rules(&list), expected);
    let report = list.report();
    let asides: Vec<(Aside, u32, u32)> = report.asides.iter().map(|(aside, (n, line))| (*aside, *n, *line)).collect();
    assert_eq!(
        asides,
        [
            (Aside::ClientIp, 1, 27),
            (Aside::NsIp, 1, 29),
            (Aside::NsDname, 2, 28),
            (Aside::TcpOnly, 1, 16),
            (Aside::Rewrite, 3, 17),
        ]
    );
    assert_eq!(
        told(&list),
        [
            (21, Fault::OutsideZone),
            (26, Fault::Network),
            (31, Fault::EveryName),
            (32, Fault::PublicSuffix),
            (34, Fault::NotAName),
            (35, Fault::NoRecord),
            (36, Fault::Directive),
        ]
    );
    assert_eq!(report.to_string(), "9 names, 2 exceptions, 3 networks, 2 written twice, 5 not enforceable, 7 rejected");
    let remarks = report.remarks("/zone");
    assert!(
        remarks.iter().any(|r| r.starts_with("/zone line 28: 2 rpz-nsdname triggers (not enforced")),
        "{remarks:?}"
    );
    assert!(!remarks.iter().any(|r| r.contains("norecord")), "a report repeats nothing of a file: {remarks:?}");
}

#[test]
fn a_zone_blocks_and_passes_by_its_own_words() {
    let list = file(ListFormat::Rpz, "zone.rpz");
    let line = |found: Option<clawgress::policy::lists::Entry>| found.map(|entry| entry.line);
    for (asked, denied, allowed) in [
        ("nxdomain.example", Some(10), None),
        ("x.y.nxdomain.example", Some(11), None),
        ("pass.nxdomain.example", None, Some(14)),
        // The exception is for that one name.
        ("x.pass.nxdomain.example", Some(11), None),
        ("garden.example", Some(17), None),
        ("tcp.example", None, None),
        ("elsewhere.example", None, None),
    ] {
        assert_eq!(line(list.denies(&name(asked))), denied, "{asked}");
        assert_eq!(line(list.allows(&name(asked))), allowed, "{asked}");
    }
    let denies = |text: &str| list.denies_address(text.parse::<IpAddr>().unwrap()).map(|network| network.line);
    assert_eq!(denies("192.0.2.1"), Some(23));
    assert_eq!(denies("192.0.2.9"), None, "the longer prefix passes");
    assert_eq!(denies("2001:db8:1:2::3"), Some(25));
    assert_eq!(denies("2001:db8:2::3"), None);
}

#[test]
fn filter_lists_of_ad_blockers() {
    let list = file(ListFormat::Adblock, "filter.txt");
    let expected = [
        "3 ads.example",
        "3 *.ads.example",
        "8 -ads2.example",
        "8 -*.ads2.example",
        "5 ads3.example",
        "5 *.ads3.example",
        "6 *.cdn.example",
        "7 -good.ads.example",
        "7 -*.good.ads.example",
        "20 xn--bcher-kva.example",
        "20 *.xn--bcher-kva.example",
    ];
    assert_eq!(rules(&list), expected);
    assert_eq!(told(&list), [(18, Fault::Address), (19, Fault::PublicSuffix)]);
    let report = list.report();
    let counts: Vec<u32> = report.asides.values().map(|(count, _)| *count).collect();
    assert_eq!(report.asides.keys().copied().collect::<Vec<_>>(), [Aside::Options, Aside::Cosmetic, Aside::Url]);
    assert_eq!(counts, [2, 2, 5]);
    assert!(list.denies(&name("x.ads.example")).is_some() && list.denies(&name("x.good.ads.example")).is_none());
    assert!(list.allows(&name("ads.example")).is_some() && list.allows(&name("ads2.example")).is_none());
}

#[test]
fn a_bracket_that_stays_open_does_not_swallow_the_file() {
    let mut zone = String::from("@ SOA a. b. ( 1 2 3 4 5\n");
    zone.extend((0..100).map(|n| format!("n{n}.example CNAME .\n")));
    let list = read(ListFormat::Rpz, zone.as_bytes());
    assert_eq!(told(&list), [(1, Fault::Bracket)]);
    assert_eq!(list.report().names, 100, "those within its reach count for themselves: {}", list.report());
    // Also where the file ends before, and where lines within its reach have brackets.
    let list = read(
        ListFormat::Rpz,
        b"x.example ( CNAME .\na.example CNAME .\ny.example (\nb.example CNAME .\nc.example CNAME .",
    );
    assert_eq!(rules(&list), ["2 a.example", "4 b.example", "5 c.example"]);
    assert_eq!(told(&list), [(1, Fault::Bracket), (3, Fault::Bracket)]);
    let list =
        read(ListFormat::Rpz, b"x.example ( CNAME .\na.example CNAME .\nb.example TXT \"open\nc.example CNAME .");
    assert_eq!(rules(&list), ["2 a.example", "4 c.example"]);
    assert_eq!(told(&list), [(1, Fault::Bracket), (3, Fault::Bracket)]);
    let list = read(ListFormat::Rpz, b"a.example CNAME . )\nb.example CNAME .\nc.example TXT \"open\n(");
    assert_eq!(rules(&list), ["2 b.example"]);
    assert_eq!(told(&list), [(1, Fault::Bracket), (3, Fault::Bracket), (4, Fault::Bracket)]);
}

#[test]
fn a_quote_in_a_string_does_not_end_it() {
    let list = read(
        ListFormat::Rpz,
        br#"a.example TXT "say \"hi"
b.example TXT "\\" "("
c.example TXT "\" ; ( "
"#,
    );
    assert_eq!(rules(&list), ["1 a.example", "2 b.example", "3 c.example"]);
    assert_eq!(list.report().rejected, 0);
}

#[test]
fn zones_with_and_without_an_origin() {
    for zone in [
        "a.example CNAME .\n",
        "a.example. CNAME .\n",
        "$ORIGIN .\na.example CNAME .\n",
        "$ORIGIN rpz.local.\na.example CNAME .\n",
        "@ SOA a. b. 1 2 3 4 5\na.example CNAME .\n",
        "rpz.local. SOA a. b. 1 2 3 4 5\na.example.rpz.local. CNAME .\n",
        "$ORIGIN rpz.local.\n@ SOA a. b. 1 2 3 4 5\n$ORIGIN example.rpz.local.\na CNAME .\n",
        "$ORIGIN .\nrpz.local SOA a. b. 1 2 3 4 5\na.example.rpz.local CNAME .\n",
        "$ORIGIN rpz.local.\na.example. CNAME .\n",
    ] {
        let list = read(ListFormat::Rpz, zone.as_bytes());
        assert!(list.denies(&name("a.example")).is_some() && list.len() == 1, "{zone}: {:?}", rules(&list));
        assert_eq!(list.report().rejected, 0, "{zone}");
    }
}

#[test]
fn what_is_no_list_is_refused() {
    for (octets, words) in [
        (&b"\x1f\x8b\x08 and so on"[..], "compressed"),
        (b"\xff\xfea\0.\0b\0", "UTF-16"),
        (b"PK\x03\x04", "compressed"),
        (b"BZh91AY&SY", "compressed"),
        (b"7z\xbc\xaf\x27\x1c", "compressed"),
    ] {
        let refused = Reader::new(ListFormat::Domains, 0, 1).feed(octets).unwrap_err();
        assert!(refused.to_string().contains(words), "{refused}");
    }
    let mut reader = Reader::new(ListFormat::Domains, 0, 1);
    reader.feed(b"a.example\n").unwrap();
    assert_eq!(reader.feed(b"b.example\n"), Err(Refused::TooMany));
    let mut reader = Reader::new(ListFormat::Domains, 0, 1);
    let comment = vec![b'#'; 1 << 20];
    let pieces = (0..).take_while(|_| reader.feed(&comment).is_ok()).count();
    assert_eq!(pieces as u64, MAX_BYTES >> 20);
}

#[test]
fn a_line_without_end_is_one_line() {
    let long = [&b"a.example\n"[..], &vec![b'x'; MAX_LINE + 1], b"\nb.example\r\n", &vec![b'#'; MAX_LINE]].concat();
    for pieces in [long.len(), 1000] {
        let mut reader = Reader::new(ListFormat::Domains, 0, MAX_RULES);
        long.chunks(pieces).for_each(|piece| reader.feed(piece).unwrap());
        let list = reader.finish().unwrap();
        assert_eq!(rules(&list), ["1 a.example", "3 b.example"]);
        assert_eq!((told(&list), list.report().lines), (vec![(2, Fault::LongLine)], 4));
    }
}

#[test]
fn only_the_first_mistakes_are_told() {
    let text: String = (0..1000).map(|n| format!("no name {n}\n")).collect();
    let list = read(ListFormat::Domains, text.as_bytes());
    assert_eq!((list.report().told.len(), list.report().rejected), (10, 1000));
    assert!(list.report().is_misread() && list.is_empty());
    let remarks = list.report().remarks("/x");
    assert_eq!(remarks.last().map(String::as_str), Some("/x: 990 more lines or names that mean nothing"));
}

#[test]
fn a_copy_is_the_list() {
    for (format, file_name) in [
        (ListFormat::Domains, "domains.txt"),
        (ListFormat::Hosts, "hosts.txt"),
        (ListFormat::Rpz, "zone.rpz"),
        (ListFormat::Adblock, "filter.txt"),
    ] {
        let list = file(format, file_name);
        let mut copy = Vec::new();
        list.write_copy(&mut copy).unwrap();
        let restore = |copy: &[u8], digest: &str| {
            let mut reader = CopyReader::default();
            copy.chunks(7).for_each(|piece| reader.feed(piece).unwrap());
            reader.finish(digest)
        };
        let again = restore(&copy, list.digest()).expect("a copy");
        assert_eq!((rules(&again), again.report()), (rules(&list), list.report()));
        assert_eq!(again, list);
        // Not an octet of it can change unseen.
        for at in 0..copy.len() {
            let mut wrong = copy.clone();
            wrong[at] ^= 1;
            assert!(restore(&wrong, list.digest()).is_none(), "{}", String::from_utf8_lossy(&wrong));
        }
        assert!(restore(&copy[..copy.len() / 2], list.digest()).is_none());
    }
}

#[test]
fn a_comment_more_is_no_other_list_and_a_name_more_is() {
    let digest = |text: &str| read(ListFormat::Domains, text.as_bytes()).digest().to_owned();
    assert_eq!(digest("# one\na.example\n"), digest("# two\r\na.example"));
    assert_ne!(digest("a.example\n"), digest("a.example\nb.example\n"));
    assert_ne!(digest("a.example\n"), digest("\na.example\n"), "lines are told, so they count");
}

/// Names and lines from a small universe, so that they meet.
fn line() -> impl Strategy<Value = String> {
    let name = "(([ab]|ü)[.]){0,3}(example|test[.]org|co[.]uk)";
    prop_oneof![
        name.prop_map(|name| name),
        name.prop_map(|name| format!("*.{name}")),
        name.prop_map(|name| format!("||{name}^")),
        name.prop_map(|name| format!("@@||{name}^")),
        name.prop_map(|name| format!("0.0.0.0 {name} *.{name}")),
        (name, prop_oneof!["[.]", "[*][.]", "rpz-passthru[.]", "x[.]example[.]"])
            .prop_map(|(name, target)| format!("*.{name} 5m CNAME {target}")),
        (name, prop_oneof!["[.]", "rpz-passthru[.]"]).prop_map(|(name, target)| format!("{name} CNAME {target}")),
        Just("8.0.0.0.93.rpz-ip CNAME .".to_owned()),
        Just("16.0.0.184.93.rpz-ip CNAME rpz-passthru.".to_owned()),
        Just("$ORIGIN a.example.".to_owned()),
        "[ -~]{0,20}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_table_finds_what_a_search_from_front_to_back_finds(
        lines in prop::collection::vec(line(), 0..60),
        format in prop::sample::select(ListFormat::ALL.to_vec()),
        asked in prop::collection::vec("(([abc]|xn--tda)[.]){0,4}(example|test[.]org|uk)", 20),
        pieces in 1..50usize,
    ) {
        let text = lines.join("\n");
        let list = read(format, text.as_bytes());
        let mut reader = Reader::new(format, 0, MAX_RULES);
        text.as_bytes().chunks(pieces).for_each(|piece| reader.feed(piece).unwrap());
        prop_assert_eq!(&reader.finish().unwrap(), &list);
        let entries: Vec<_> = list.entries().collect();
        prop_assert_eq!(entries.len() as u32, list.report().names + list.report().exceptions);
        let unique: BTreeMap<_, _> = entries.iter().map(|entry| (entry.pattern.clone(), entry)).collect();
        prop_assert_eq!(unique.len(), entries.len());
        for asked in asked {
            let asked = name(&asked);
            let closest = entries.iter().filter(|e| e.pattern.matches(&asked)).max_by_key(|e| e.pattern.closeness());
            prop_assert_eq!(list.closest(&asked), closest.cloned());
            let by_hand = closest.filter(|entry| !entry.exception);
            prop_assert_eq!(list.denies(&asked), by_hand.cloned());
        }
        for address in ["93.184.216.34", "93.1.1.1", "10.0.0.1"] {
            let address: IpAddr = address.parse().unwrap();
            let longest = list.networks().filter(|n| n.net.contains(&address)).max_by_key(|n| n.net.prefix_len());
            prop_assert_eq!(list.denies_address(address), longest.filter(|network| !network.exception));
        }
    }
}
