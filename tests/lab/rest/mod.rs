//! The REST API over real connections to the real daemon (SPEC section 5).

mod calls;
mod limits;
mod statuses;
mod writers;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::World;

/// Where the lab's daemon listens.
const LISTEN: &str = "127.0.0.1:8787";
/// A key that may change things, and one that may not.
const WRITE: &str = "0123456789abcdef-write";
const READ: &str = "0123456789abcdef-read";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// The settings with these two keys.
fn keys() -> String {
    format!(
        "[api]\nkeys = [ {{ id = \"automation\", key = \"{WRITE}\", role = \"write\" }}, \
         {{ id = \"dashboard\", key = \"{READ}\", role = \"read\" }} ]\n"
    )
}

/// A daemon with this policy that answers REST calls.
#[track_caller]
fn serve(world: &mut World, policy: &Value) {
    world.gateway.settings(&keys());
    world.gateway.enforce(policy);
    await_listener(world);
}

#[track_caller]
fn await_listener(world: &World) {
    let connects = || world.gateway.netns.enter(|| TcpStream::connect(LISTEN).is_ok());
    world.gateway.wait_until("the API listens", PATIENCE, |_| connects());
}

/// One answer.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Answer {
    fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
        let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"));
        let answer = Self { status: status.expect("a status"), head: head.to_lowercase(), body };
        assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"), "{text}");
        assert_eq!(answer.header("content-type").as_deref(), Some("application/json"), "{text}");
        answer
    }

    fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(given, _)| *given == name).map(|(_, value)| value.to_owned()).next()
    }

    /// A 200 with its data.
    #[track_caller]
    fn done(&self) -> &Value {
        assert_eq!(
            (self.status, &self.body["success"], &self.body["error"]),
            (200, &json!(true), &Value::Null),
            "{self:?}"
        );
        &self.body["data"]
    }

    /// Another status, in the envelope; gives the reason.
    #[track_caller]
    fn refused(&self, status: u16) -> &str {
        assert_eq!(
            (self.status, &self.body["success"], &self.body["data"]),
            (status, &json!(false), &Value::Null),
            "{self:?}"
        );
        self.body["error"].as_str().expect("a reason")
    }
}

/// A connection to the daemon.
fn connect(world: &World) -> TcpStream {
    let stream = world.gateway.netns.enter(|| TcpStream::connect(LISTEN)).expect("the API listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is legal");
    stream
}

/// Sends octets and reads until the daemon closes; what was read before an error counts.
fn exchange(mut stream: impl Read + Write, request: &[u8]) -> String {
    let _ = stream.write_all(request);
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = stream.read(&mut piece) {
        text.extend_from_slice(&piece[..length]);
    }
    String::from_utf8(text).expect("answers are texts")
}

/// A request as it goes over the wire.
fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

const JSON: &str = "Content-Type: application/json\r\n";

fn call(world: &World, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    Answer::read(&exchange(connect(world), request(method, path, headers, body).as_bytes()))
}

/// A POST of JSON, the key in the body.
fn post(world: &World, path: &str, key: &str, mut body: Value) -> Answer {
    body["key"] = key.into();
    call(world, "POST", path, JSON, &body.to_string())
}
