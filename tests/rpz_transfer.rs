//! Other name servers follow the zones: real ones transfer them, are told of changes, and answer as the policy says.
//!
//! Everything stays on the loopback interface, at ports that are free. `dig` (package `bind9-dnsutils`) reads transfers
//! and checks their signatures with BIND's code; Unbound follows without signatures, which is all that it can; BIND
//! (`bind9`), Knot DNS (`knot`) and PowerDNS Recursor (`pdns-recursor`) follow with them, the last without NOTIFY. One that
//! is missing is skipped loudly; with `CI=true` that is a failure, but for those whose service takes port 53 (see `tests/rpz_peers.rs`).

#[path = "rpz_transfer/primary.rs"]
mod primary;
#[allow(dead_code, reason = "each test program uses a part")]
#[path = "resolvers/mod.rs"]
mod resolvers;
#[path = "rpz_transfer/tools.rs"]
mod tools;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use clawgress::dns::transfer::Limits;
use clawgress::plan::rpz::{Action, Image};
use primary::{ALLOW, Primary, SECRET, Who};
use resolvers::{Asked, Peer, program};
use tools::{dig, wait};

/// What comes and what goes, under which serial.
const CHANGES: [(u32, &str, &str); 2] =
    [(2000, "b.example.org", "a.example.org"), (3000, "c.example.org", "b.example.org")];

fn images(names: &[&str]) -> Image {
    Image::from_records(names.iter().map(|name| (*name, Action::Passthru)))
}

/// A zone so large that its differences are smaller.
fn among_many(name: &str) -> Image {
    let many: Vec<String> = (0..2000).map(|number| format!("n{number}.example.org")).collect();
    images(&many.iter().map(String::as_str).chain([name]).collect::<Vec<_>>())
}

#[test]
fn dig_reads_signed_transfers_and_takes_no_other_signature() {
    let Some(dig_binary) = program("dig", "bind9-dnsutils", false) else { return };
    let primary = Primary::start(&[Who::signed(Ipv4Addr::LOCALHOST, 9)], Limits::default());
    let names: Vec<String> = (0..3000).map(|number| format!("n{number}.example.org")).collect();
    primary.publish(1000, images(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    let run = |arguments: &[&str], key: Option<&str>| {
        dig(
            &dig_binary,
            primary.address,
            arguments,
            key.map(|secret| format!("hmac-sha256:transfer:{secret}")).as_deref(),
        )
    };
    let whole = run(&[ALLOW, "AXFR"], Some(SECRET));
    assert_eq!(whole.matches("rpz-passthru.").count(), 3000, "{}", &whole[..whole.len().min(2000)]);
    assert!(!whole.contains("could not be validated") && whole.contains("TSIG"), "BIND takes every signature");
    assert_eq!(whole.matches("\tSOA\t").count(), 2);

    primary.publish(1001, images(&names[1..].iter().map(String::as_str).collect::<Vec<_>>()));
    let steps = run(&[ALLOW, "IXFR=1000"], Some(SECRET));
    assert!(!steps.contains("could not be validated"), "{steps}");
    assert_eq!((steps.matches("\tSOA\t").count(), steps.matches("rpz-passthru.").count()), (4, 1), "{steps}");
    assert!(steps.contains("n0.example.org.global.allow.rpz.clawgress."), "{steps}");
    let soa = run(&[ALLOW, "SOA", "+notcp"], Some(SECRET));
    assert!(soa.contains(" 1001 60 60 86400 10") && !soa.contains("could not"), "{soa}");

    // By a wrong key, by none.
    let wrong = run(&[ALLOW, "AXFR"], Some("YW5vdGhlciBzZWNyZXQgYWx0b2dldGhlciE="));
    assert!(wrong.contains("Transfer failed") && !wrong.contains("passthru"), "{wrong}");
    let soa = run(&[ALLOW, "SOA"], Some("YW5vdGhlciBzZWNyZXQgYWx0b2dldGhlciE="));
    assert!(soa.contains("status: NOTAUTH") && soa.contains("BADSIG"), "{soa}");
    let unsigned = run(&[ALLOW, "AXFR"], None);
    assert!(unsigned.contains("Transfer failed") && !unsigned.contains("passthru"), "{unsigned}");
    assert!(run(&[ALLOW, "SOA"], None).contains("status: REFUSED"));
    // What went wrong last is told, and nobody answers NOTIFY here either.
    let told = || {
        run(&[ALLOW, "SOA"], Some("YW5vdGhlciBzZWNyZXQgYWx0b2dldGhlciE="));
        primary.transfers.report()[0].trouble.as_ref().is_some_and(|trouble| trouble.what.contains("BADSIG"))
    };
    assert!((0..5).any(|_| told()), "{:?}", primary.transfers.report()[0].trouble);
    // An agent, with the right key.
    primary.transfers.refuse(vec!["127.0.0.0/8".parse().unwrap()]);
    let agent = run(&[ALLOW, "AXFR"], Some(SECRET));
    assert!(agent.contains("Transfer failed") && !agent.contains("passthru"), "{agent}");
    assert!(primary.transfers.report()[0].is_agent);
}

/// What a peer answers to an agent once it follows.
fn follows(peer: &mut Peer, primary: &Primary) {
    // BIND answers unfiltered until it has all zones.
    wait("the zones are there", peer, |peer| peer.ask("elsewhere.test") == Asked::NoName);
    wait("the zones are there", peer, |peer| peer.ask("a.example.org") == Asked::Address);
    assert_eq!(peer.ask("b.example.org"), Asked::NoName);
    // The zones ask once a minute by themselves; what comes sooner comes by NOTIFY. Twice, because the first may still be
    // told with what was told while the peer started.
    for (serial, here, gone) in CHANGES {
        let start = Instant::now();
        primary.publish(serial, images(&[here]));
        wait("it follows a change", peer, |peer| peer.ask(here) == Asked::Address);
        assert!(start.elapsed() < Duration::from_secs(50), "it was told, and did not have to ask");
        wait("what went is gone", peer, |peer| peer.ask(gone) == Asked::NoName);
        wait("its state is known", peer, |_| primary.known() == (Some(serial), Some(serial)));
    }
}

#[test]
fn unbound_follows_a_change_by_notify() {
    let Some(binary) = program("unbound", "unbound", false) else { return };
    let (primary, setup) = Primary::with_one(Who::unsigned, images(&["a.example.org"]));
    follows(&mut Peer::unbound(&binary, tempfile::tempdir().unwrap(), &setup), &primary);
}

#[test]
fn bind_follows_a_change_by_notify_and_signs() {
    let Some(binary) = program("named", "bind9", true) else { return };
    let (primary, setup) = Primary::with_one(Who::signed, images(&["a.example.org"]));
    follows(&mut Peer::bind(&binary, tempfile::tempdir().unwrap(), &setup), &primary);
}

/// It signs, takes differences, and asks by itself: this version passes over NOTIFY of such zones.
#[test]
fn powerdns_recursor_follows_by_asking_and_signs() {
    let Some(binary) = program("pdns_recursor", "pdns-recursor", true) else { return };
    let (primary, setup) = Primary::with_one(Who::signed, among_many("a.example.org"));
    let mut peer = Peer::recursor(&binary, tempfile::tempdir().unwrap(), &setup, 1);
    wait("the zones are there", &mut peer, |peer| peer.ask("a.example.org") == Asked::Address);
    assert_eq!(peer.ask("b.example.org"), Asked::NoName);
    assert_eq!(peer.ask("elsewhere.test"), Asked::NoName);
    for (serial, here, gone) in CHANGES {
        primary.publish(serial, among_many(here));
        wait("it follows a change", &mut peer, |peer| peer.ask(here) == Asked::Address);
        wait("what went is gone", &mut peer, |peer| peer.ask(gone) == Asked::NoName);
        wait("its state is known", &mut peer, |_| primary.known().0 == Some(serial));
    }
    let log = peer.log();
    let step = log.lines().filter(|line| line.contains(r#"additions="1""#) && line.contains(r#"removals="1""#));
    assert_eq!(step.count(), 2, "differences came, not whole zones: {log}");
}

/// It filters nothing itself: it has the zones and serves them on, by differences that it was told of.
#[test]
fn knot_dns_follows_by_notify_and_signs() {
    let Some(binary) = program("knotd", "knot", true) else { return };
    let (primary, setup) = Primary::with_one(Who::signed, among_many("a.example.org"));
    let mut peer = Peer::knot(&binary, tempfile::tempdir().unwrap(), &setup);
    let has = |peer: &Peer, name: &str| match peer.ask(&format!("{name}.{}", ALLOW.trim_end_matches('.'))) {
        Asked::Address => Some(true),
        Asked::NoName => Some(false),
        Asked::Other => None,
    };
    wait("the zones are there", &mut peer, |peer| has(peer, "a.example.org") == Some(true));
    assert_eq!(has(&peer, "b.example.org"), Some(false));
    for (serial, here, gone) in CHANGES {
        let start = Instant::now();
        primary.publish(serial, among_many(here));
        wait("it follows a change", &mut peer, |peer| has(peer, here) == Some(true));
        assert!(start.elapsed() < Duration::from_secs(50), "it was told, and did not have to ask");
        assert_eq!(has(&peer, gone), Some(false));
        wait("its state is known", &mut peer, |_| primary.known() == (Some(serial), Some(serial)));
    }
    let log = peer.log();
    let took = |kind: &str| {
        let of_zone = log.lines().filter(|line| line.contains(ALLOW) && line.contains(kind));
        of_zone.filter(|line| line.contains("finished")).count()
    };
    assert_eq!((took("AXFR, incoming"), took("IXFR, incoming")), (1, 2), "differences came, not whole zones: {log}");
}

#[test]
fn a_large_zone_comes_through() {
    let Some(dig_binary) = program("dig", "bind9-dnsutils", false) else { return };
    let primary = Primary::start(&[Who::signed(Ipv4Addr::LOCALHOST, 9)], Limits::default());
    let names: Vec<String> = (0..250_000).map(|number| format!("n{number}.example-{}.org", number % 977)).collect();
    primary.publish(1000, Image::from_records(names.iter().map(|name| (name.as_str(), Action::Passthru))));
    let start = Instant::now();
    let whole = dig(&dig_binary, primary.address, &[ALLOW, "AXFR"], Some(&format!("hmac-sha256:transfer:{SECRET}")));
    eprintln!("250 000 records by AXFR, signed, read by dig: {:?}", start.elapsed());
    assert_eq!(whole.matches("rpz-passthru.").count(), names.len());
    assert!(!whole.contains("could not be validated"));
}

/// A transfer that is asked for and not read.
fn stalled(primary: &Primary) -> TcpStream {
    let mut stream = TcpStream::connect(primary.address).unwrap();
    let mut question = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ALLOW.trim_end_matches('.').split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.bytes());
    }
    question.extend([0, 0, 252, 0, 1]);
    stream.write_all(&u16::try_from(question.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&question).unwrap();
    stream
}

#[test]
fn a_slow_reader_holds_nothing_up_and_reads_the_zone_it_began_with_or_is_cut_off() {
    let Some(dig_binary) = program("dig", "bind9-dnsutils", false) else { return };
    let limits = Limits { transfers: 2, stall: Duration::from_secs(20), ..Limits::default() };
    // Both ask from the same address; the slow one needs no key.
    let who = [Who::unsigned(Ipv4Addr::LOCALHOST, 8), Who::signed(Ipv4Addr::LOCALHOST, 9)];
    let primary = Primary::start(&who, limits);
    let names: Vec<String> = (0..400_000).map(|number| format!("n{number}.example.org")).collect();
    primary.publish(1000, Image::from_records(names.iter().map(|name| (name.as_str(), Action::Passthru))));
    let mut slow = [stalled(&primary), stalled(&primary)];
    // A swap while both are under way; others read the new zone at once.
    let mut begun = [0; 2];
    slow[0].read_exact(&mut begun).unwrap();
    primary.publish(1001, images(&["new.example.org"]));
    let key = format!("hmac-sha256:transfer:{SECRET}");
    let other = dig(&dig_binary, primary.address, &[ALLOW, "AXFR"], Some(&key));
    assert!(other.contains("new.example.org") && other.contains(" 1001 60"), "{other}");
    // It reads on: all of it is the zone that it began with.
    let mut rest = begun.to_vec();
    let deadline = Instant::now() + Duration::from_secs(120);
    slow[0].set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let soa = |serial: u32| [&serial.to_be_bytes()[..], &60_u32.to_be_bytes()[..]].concat();
    let ends = |rest: &[u8]| rest.windows(8).filter(|window| *window == soa(1000)).count();
    let mut seen = ends(&rest);
    while seen < 2 && Instant::now() < deadline {
        let count = slow[0].read(&mut buffer).unwrap();
        assert!(count > 0, "the transfer was cut short after {} octets", rest.len());
        let from = rest.len().saturating_sub(7);
        rest.extend(&buffer[..count]);
        seen += ends(&rest[from..]);
    }
    assert_eq!(seen, 2, "first and last record");
    assert!(!rest.windows(16).any(|window| window == b"\x03new\x07example\x03org"), "no record of the newer zone");
    // The other never reads, and is cut off.
    let report = || primary.transfers.report();
    let end = Instant::now() + Duration::from_secs(90);
    let cut =
        || report().iter().any(|peer| peer.trouble.as_ref().is_some_and(|told| told.what.contains("does not read")));
    while !cut() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(cut(), "{:?}", report());
}

#[test]
fn notes_are_repeated_until_they_are_answered() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let port = socket.local_addr().unwrap().port();
    let primary = Primary::start(&[Who::unsigned(Ipv4Addr::LOCALHOST, port)], Limits::default());
    primary.publish(1000, images(&["a.example.org"]));
    let mut packet = [0; 512];
    let is_note = |packet: &[u8]| packet[2] == 0x24 && packet[5] == 1;
    let mut receive = || {
        let (length, from) = socket.recv_from(&mut packet).expect("a note comes");
        assert!(is_note(&packet[..length]));
        (packet[..length].to_vec(), from)
    };
    // Two zones, told twice while nobody answers.
    let notes: Vec<(Vec<u8>, SocketAddr)> = (0..4).map(|_| receive()).collect();
    assert_eq!(notes[0].0[12..], notes[2].0[12..], "the same again");
    assert_ne!(notes[0].1, notes[2].1, "from a port that is not known beforehand");
    // An answer ends it; a wrong number is none.
    let deadline = Instant::now() + Duration::from_secs(60);
    while primary.transfers.report()[0].zones.iter().any(|zone| zone.notified != Some(zone.serial)) {
        let (mut note, from) = receive();
        note[2] |= 0x80;
        let mut false_one = note.clone();
        false_one[1] ^= 0x40;
        socket.send_to(&false_one, from).unwrap();
        socket.send_to(&note, from).unwrap();
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(20));
    }
    // Only the zone that changes is told.
    primary.publish(1001, images(&["b.example.org"]));
    let (note, _) = receive();
    assert!(note[12..].starts_with(b"\x06global\x05allow"), "{note:?}");
}

#[test]
fn who_is_no_agent_any_more_is_told() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = socket.local_addr().unwrap().port();
    let primary = Primary::start(&[Who::unsigned(Ipv4Addr::LOCALHOST, port)], Limits::default());
    primary.transfers.refuse(vec!["127.0.0.0/8".parse().unwrap()]);
    primary.publish(1000, images(&["a.example.org"]));
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut packet = [0; 512];
    assert!(socket.recv(&mut packet).is_err(), "an agent is told nothing");
    primary.transfers.refuse(vec!["192.0.2.0/24".parse().unwrap()]);
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket.recv(&mut packet).expect("a note comes");
    assert_eq!(packet[2], 0x24);
}
