//! Guessing the API's keys, from somebody who knows how wrong keys are counted.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::SITE;
use crate::world::World;

const WRITE: &str = "0123456789abcdef-write";
const READ: &str = "0123456789abcdef-read";
/// Wrong keys that are looked at before the first wait: typing errors (docs/rest.md).
const FREE: usize = 6;

fn serve(world: &mut World) {
    world.gateway.settings(&format!(
        "[api]\nkeys = [ {{ id = \"automation\", key = \"{WRITE}\", role = \"write\" }}, \
         {{ id = \"dashboard\", key = \"{READ}\", role = \"read\" }} ]\n"
    ));
    world.gateway.enforce(json!({ "version": 1, "allow": { "ips": [SITE] } }));
    let connects = || world.gateway.netns.enter(|| TcpStream::connect("127.0.0.1:8787").is_ok());
    world.gateway.wait_until("the API listens", Duration::from_secs(10), |_| connects());
}

/// A call with a key in its body, the last octet of which is not sent yet.
fn begin(world: &World, key: &str) -> (TcpStream, u8) {
    let body = json!({ "key": key }).to_string();
    let text = format!(
        "POST /clawgress/status HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = world.gateway.netns.enter(|| TcpStream::connect("127.0.0.1:8787")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (last, rest) = text.as_bytes().split_last().unwrap();
    stream.write_all(rest).unwrap();
    (stream, *last)
}

fn end((mut stream, last): (TcpStream, u8)) -> u16 {
    stream.write_all(&[last]).unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[test]
fn many_calls_at_once_are_not_many_guesses() {
    let mut world = world!();
    serve(&mut world);
    let calls: Vec<_> = (0..40).map(|n| begin(&world, &format!("guess-{n}"))).collect();
    // Each head was looked at, and waits for the rest of its body.
    std::thread::sleep(Duration::from_millis(300));
    let looked_at = calls.into_iter().map(end).filter(|status| *status == 401).count();
    assert!(looked_at <= FREE, "{looked_at} keys were looked at before the source had to wait");
}

#[test]
fn a_read_key_buys_no_guesses_at_the_write_key() {
    let mut world = world!();
    serve(&mut world);
    let mut looked_at = 0;
    for n in 0..20 {
        let status = end(begin(&world, &format!("guess-{n}")));
        looked_at += usize::from(status == 401);
        if n % 4 == 3 {
            end(begin(&world, READ));
        }
    }
    assert!(looked_at <= FREE, "{looked_at} wrong keys were looked at, a right one now and then made it possible");
}
