//! `dig`, and patience.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::resolvers::Peer;

/// How long a peer may take to settle: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// What `dig` prints. `key`: `ALGORITHM:NAME:SECRET`.
pub fn dig(binary: &Path, server: SocketAddr, arguments: &[&str], key: Option<&str>) -> String {
    let mut command = Command::new(binary);
    command.arg(format!("@{}", server.ip())).args(["-p", &server.port().to_string(), "+tries=1", "+time=60"]);
    if let Some(key) = key {
        command.args(["-y", key]);
    }
    let out = command.args(arguments).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

/// Waits until something is so; panics with the peer's log where it does not become so.
#[track_caller]
pub fn wait(what: &str, peer: &mut Peer, mut is: impl FnMut(&Peer) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is(peer) {
        peer.must_run();
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}:\n{}", peer.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}
