//! `clawgress rpz`: the zones as text, in pieces, because all of it at once can be hundreds of megabytes.

use std::fmt;
use std::sync::Arc;

use chrono::Utc;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::answer::Office;
use super::protocol::{Piece, Refusal, Response};
use crate::plan::rpz;
use crate::policy::Policy;
use crate::policy::schedule::Moment;

/// A piece is sent when it is this long, octets.
const FULL: usize = 256 * 1024;
/// Pieces that wait for a slow reader; the writer of the next one waits with them.
const WAITING: usize = 2;

/// Answers with the zones of a host, or of all, until all is sent or the other side goes away.
pub async fn send(host: Option<&str>, office: &Arc<Office>, to: &mut (impl AsyncWrite + Unpin)) {
    let current = office.revisions.lock().await.current.as_ref().map(|now| (now.policy.clone(), now.meta.revision));
    let Some((policy, revision)) = current else {
        let why = "no policy is in force, so there is no zone; import one: clawgress import --policy FILE";
        let _ = answer(to, &Response::because(Refusal::Conflict, why)).await;
        return;
    };
    if let Some(host) = host.filter(|host| !policy.hosts.keys().any(|name| name.as_str() == *host)) {
        let why = format!("the policy has no host {host}; `clawgress show` lists them");
        let _ = answer(to, &Response::failed(why)).await;
        return;
    }
    let (pieces, mut coming) = mpsc::channel(WAITING);
    let host = host.map(str::to_owned);
    tokio::task::spawn_blocking(move || print(&policy, revision, host.as_deref(), pieces));
    // Without a last piece the tool knows that it has not all.
    while let Some(piece) = coming.recv().await {
        if answer(to, &Response::done(piece)).await.is_err() {
            return;
        }
    }
}

fn print(policy: &Policy, revision: u64, host: Option<&str>, pieces: mpsc::Sender<Piece>) {
    let only = host.and_then(|host| policy.hosts.keys().find(|name| name.as_str() == host));
    let moment = Moment::of(policy, Utc::now(), crate::store::system_zone());
    let mut out = Pieces { text: String::new(), pieces };
    if rpz::print(&mut out, policy, revision, only, Some(&moment)).is_ok() {
        let _ = out.send(false);
    }
}

/// A text on its way.
struct Pieces {
    text: String,
    pieces: mpsc::Sender<Piece>,
}

impl Pieces {
    fn send(&mut self, more: bool) -> fmt::Result {
        let text = std::mem::take(&mut self.text);
        self.pieces.blocking_send(Piece { text, more }).map_err(|_| fmt::Error)
    }
}

impl fmt::Write for Pieces {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.push_str(text);
        if self.text.len() >= FULL { self.send(true) } else { Ok(()) }
    }
}

async fn answer(to: &mut (impl AsyncWrite + Unpin), response: &Response) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(response).unwrap_or_default();
    text.push(b'\n');
    to.write_all(&text).await
}
