//! Clients that are too slow, too large, too many or too curious, and listeners that cannot be had.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};

use super::{
    Answer, JSON, LISTEN, PATIENCE, READ, WRITE, await_listener, call, connect, exchange, keys, post, request, serve,
};
use crate::{OTHER, SITE};

fn policy() -> Value {
    json!({ "version": 1, "allow": { "ips": [SITE] } })
}

/// The longest body.
const MAX_BODY: usize = 16 * 1024 * 1024;

#[test]
fn a_body_may_have_sixteen_mebibytes_and_not_more() {
    let mut world = world!();
    serve(&mut world, &policy());
    let body = |length: usize| {
        let body = json!({ "key": WRITE, "policy": policy() }).to_string();
        body.clone() + &" ".repeat(length - body.len())
    };
    call(&world, "POST", "/clawgress/policy", JSON, &body(MAX_BODY)).done();
    let long = body(MAX_BODY + 1);
    // Most clients read no answer before they have sent everything.
    let mut stream = connect(&world);
    let text = request("POST", "/clawgress/policy", JSON, &long);
    stream.write_all(text.as_bytes()).expect("it is taken, though not kept");
    let answer = Answer::read(&exchange(stream, b""));
    assert!(answer.refused(413).contains("16 MiB"), "{answer:?}");
    // Nothing said about its length, and it never ends.
    let head = format!("POST /clawgress/policy HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n{JSON}\r\n");
    let chunks = format!("{:x}\r\n{long}\r\n0\r\n\r\n", long.len());
    Answer::read(&exchange(connect(&world), (head + &chunks).as_bytes())).refused(413);
    // Who asks first whether he may is told before he sends.
    let head = format!("{JSON}Expect: 100-continue\r\nContent-Length: {}\r\n", long.len());
    let head = format!("POST /clawgress/policy HTTP/1.1\r\nHost: g\r\n{head}\r\n");
    Answer::read(&exchange(connect(&world), head.as_bytes())).refused(413);
    let head = "X: ".to_owned() + &"x".repeat(64 * 1024) + "\r\n";
    let told = exchange(connect(&world), request("POST", "/clawgress/status", &head, "{}").as_bytes());
    assert!(told.starts_with("HTTP/1.1 431 "), "{told}");
}

#[test]
fn slow_clients_do_not_keep_others_out_and_are_left_in_the_end() {
    let mut world = world!();
    serve(&mut world, &policy());
    let slow: Vec<TcpStream> = (0..60)
        .map(|n| {
            let mut stream = connect(&world);
            let text = request("POST", "/clawgress/status", JSON, &" ".repeat(1000));
            // Some stop in the head, some in the body.
            let _ = stream.write_all(&text.as_bytes()[..if n % 2 == 0 { 20 } else { text.len() - 10 }]);
            stream
        })
        .collect();
    post(&world, "/clawgress/status", READ, json!({})).done();
    let begun = Instant::now();
    for (n, mut stream) in slow.into_iter().enumerate() {
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        assert!(begun.elapsed() < PATIENCE, "it is closed");
        if n % 2 == 1 {
            Answer::read(&text).refused(408);
        }
    }
}

#[test]
fn strangers_with_large_bodies_do_not_keep_out_who_shows_a_key() {
    let mut world = world!();
    serve(&mut world, &policy());
    let head = format!("POST /clawgress/policy HTTP/1.1\r\nHost: g\r\n{JSON}Content-Length: {MAX_BODY}\r\n\r\n");
    let strangers: Vec<TcpStream> = (0..4)
        .map(|_| {
            let mut stream = connect(&world);
            stream.write_all(head.as_bytes()).expect("it listens");
            stream.write_all(&[b' '; 100_000]).expect("it listens");
            stream
        })
        .collect();
    let body = json!({ "policy": policy() }).to_string() + &" ".repeat(1024 * 1024);
    call(&world, "POST", "/clawgress/policy", &format!("{JSON}Authorization: Bearer {WRITE}\r\n"), &body).done();
    for stranger in &strangers {
        stranger.set_nonblocking(true).expect("it is a socket");
        let waits = (&mut &*stranger).read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(waits, Err(std::io::ErrorKind::WouldBlock), "their time is not over yet");
    }
    // Small ones are nobody's burden.
    post(&world, "/clawgress/status", READ, json!({})).done();
}

#[test]
fn one_source_has_not_all_places() {
    let mut world = world!();
    world.gateway.settings(&format!("{}listen = \"0.0.0.0:8787\"\n", keys()));
    world.gateway.enforce(policy());
    await_listener(&world);
    let held: Vec<TcpStream> = (0..300).map(|_| connect(&world)).collect();
    let told = exchange(connect(&world), request("POST", "/clawgress/status", JSON, "{}").as_bytes());
    assert_eq!(told, "", "there is no place for one more");
    let other = world.c.netns.enter(|| TcpStream::connect("192.168.12.1:8787")).expect("it listens");
    let body = json!({ "key": READ }).to_string();
    Answer::read(&exchange(other, request("POST", "/clawgress/status", JSON, &body).as_bytes())).done();
    drop(held);
    world.gateway.wait_until("places are free again", PATIENCE, |_| {
        exchange(connect(&world), request("POST", "/clawgress/status", JSON, &body).as_bytes()).contains("200 OK")
    });
}

#[test]
fn who_guesses_keys_has_to_wait() {
    let mut world = world!();
    serve(&mut world, &policy());
    let guess = || post(&world, "/clawgress/status", "0123456789abcdef-guess", json!({}));
    for _ in 0..6 {
        guess().refused(401);
    }
    let answer = guess();
    answer.refused(429);
    let wait: u64 = answer.header("retry-after").expect("how long").parse().expect("seconds");
    assert!((1..=2).contains(&wait), "{answer:?}");
    // The right key is not looked at either, or the wait would tell nothing to who guesses on.
    post(&world, "/clawgress/status", READ, json!({})).refused(429);
    // The control socket is no network source.
    assert_eq!(world.gateway.tool(&["health"]).code, Some(0));
    let right = || post(&world, "/clawgress/status", READ, json!({})).status == 200;
    world.gateway.wait_until("the wait is over", Duration::from_secs(5), |_| right());
    let log = world.gateway.log();
    assert!(log.contains("wrong API key from 127.0.0.1 for status (6 in a row); it waits 1 s"), "{log}");
    assert!(!log.contains("guess"), "{log}");
}

#[test]
fn without_a_key_nothing_listens() {
    let mut world = world!();
    world.gateway.settings("[api]\nlisten = \"0.0.0.0:8787\"\n");
    world.gateway.enforce(policy());
    assert!(world.gateway.netns.enter(|| TcpStream::connect(LISTEN)).is_err());
    assert!(world.gateway.log().contains("there is no key"), "{}", world.gateway.log());
    assert_eq!(world.gateway.tool(&["health"]).code, Some(0));
}

#[test]
fn a_port_that_is_taken_or_a_key_that_is_missing_stops_no_enforcement() {
    let mut world = world!();
    let file = world.gateway.path("key");
    let settings = format!("[api]\nkeys = [{{ id = \"k\", key_file = \"{}\", role = \"write\" }}]\n", file.display());
    world.gateway.settings(&settings);
    let taken = world.gateway.netns.enter(|| std::net::TcpListener::bind(LISTEN)).expect("it is free");
    world.gateway.enforce(policy());
    world.a.tcp(SITE, 443).must_reach();
    world.a.tcp(OTHER, 443).must_be_reset();
    let failed = |part: &str| {
        let health = world.gateway.tool(&["health", "--json"]).json();
        let checks = health["checks"].as_array().expect("a list").clone();
        checks.iter().any(|check| check["name"] == "api" && check["message"].as_str().unwrap_or("").contains(part))
    };
    let patience = Duration::from_secs(12);
    world.gateway.wait_until("the missing file is told", patience, |_| failed("there is no such file"));
    std::fs::write(&file, format!("{WRITE}\n")).expect("it is writable");
    world.gateway.wait_until("the taken port is told", patience, |_| failed("taken by another program"));
    drop(taken);
    world.gateway.wait_until("it listens in the end", patience, |_| failed("listening on http://127.0.0.1:8787"));
    post(&world, "/clawgress/status", WRITE, json!({})).done();
}

#[test]
fn a_reload_takes_keys_away_and_moves_the_listener() {
    let mut world = world!();
    serve(&mut world, &policy());
    let status = |key: &str| post(&world, "/clawgress/status", key, json!({})).status;
    assert_eq!((status(READ), status(WRITE)), (200, 200));
    let only_write = keys().replace(READ, "0123456789abcdef-fresh");
    world.gateway.settings(&only_write);
    world.gateway.hangup();
    world.gateway.wait_until("the old key is refused", PATIENCE, |_| status(READ) == 401);
    assert_eq!((status("0123456789abcdef-fresh"), status(WRITE)), (200, 200));
    // A mistake leaves no key in place that was taken away.
    world.gateway.settings("[api]\nkeys = [{ id = \"k\", key_file = \"/nowhere\", role = \"read\" }]\n");
    world.gateway.hangup();
    let closed = || world.gateway.netns.enter(|| TcpStream::connect(LISTEN)).is_err();
    world.gateway.wait_until("nothing listens", PATIENCE, |_| closed());
    assert_eq!(world.gateway.tool(&["health"]).code, Some(1));
    world.gateway.settings(&(keys() + "listen = \"127.0.0.1:8788\"\n"));
    world.gateway.hangup();
    let moved = || world.gateway.netns.enter(|| TcpStream::connect("127.0.0.1:8788")).is_ok();
    world.gateway.wait_until("it listens elsewhere", PATIENCE, |_| moved());
    assert!(closed());
    world.gateway.settings("");
    world.gateway.hangup();
    world.gateway.wait_until("no key, no API", PATIENCE, |_| !moved());
    assert_eq!(world.gateway.tool(&["health"]).code, Some(0));
    assert!(!world.gateway.log().contains("besides [api]"), "{}", world.gateway.log());
}

#[test]
fn with_a_certificate_it_speaks_tls_and_nothing_else() {
    let mut world = world!();
    let made = rcgen::generate_simple_self_signed(["gateway.example".to_owned()]).expect("a certificate");
    let (certificate, key) = (world.gateway.path("cert.pem"), world.gateway.path("key.pem"));
    std::fs::write(&certificate, made.cert.pem()).expect("it is writable");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("it is writable");
    let tls = format!("tls = {{ certificate = \"{}\", key = \"{}\" }}\n", certificate.display(), key.display());
    world.gateway.settings(&(keys() + &tls));
    world.gateway.enforce(policy());
    await_listener(&world);

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).expect("PEM")).expect("a root");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("gateway.example").expect("a name");
    let session = rustls::ClientConnection::new(Arc::new(config), name).expect("a session");
    let body = json!({ "key": READ }).to_string();
    let text = request("POST", "/clawgress/status", JSON, &body);
    let stream = rustls::StreamOwned::new(session, connect(&world));
    Answer::read(&exchange(stream, text.as_bytes())).done();
    let plain = exchange(connect(&world), text.as_bytes());
    assert!(!plain.contains("HTTP"), "{plain:?}");
}
