//! The control socket: the tool's requests, answered one line each.

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::warn;

use super::answer::{Caller, Office, answer};
use super::protocol::{MAX_LINE, Request, Response};
use super::{logged, printed};
use crate::settings::SOCKET_NAME;
use crate::store::words;

/// Connections at a time; the tool opens one for each call.
const CONNECTIONS: usize = 32;
/// Connections that follow the decision log; they stay open as long as somebody looks.
pub const FOLLOWERS: usize = 8;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(60);

/// How long the end waits for one more connection of those that wait to be taken.
const LAST_CALLS: Duration = Duration::from_millis(20);
/// How long the end waits for answers on their way: a large policy takes a second or two, and a supervisor that stops us
/// has more patience than this.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// Takes the socket's path, mode 0600; a dead daemon's socket is replaced.
///
/// # Errors
/// The directory cannot be made, or a living daemon has the socket.
pub fn listen(runtime_dir: &Path) -> anyhow::Result<UnixListener> {
    std::fs::create_dir_all(runtime_dir).map_err(|error| {
        anyhow::anyhow!("cannot make the runtime directory {}: {}", runtime_dir.display(), words(&error))
    })?;
    let path = runtime_dir.join(SOCKET_NAME);
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        anyhow::bail!("another daemon answers at {}; stop it first (systemctl stop clawgress)", path.display());
    }
    let _ = std::fs::remove_file(&path);
    // Made under a narrow mask, so that there is no moment in which others could connect.
    let mask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(&path);
    nix::sys::stat::umask(mask);
    let failed = |what: &str, error| anyhow::anyhow!("cannot {what} {}: {}", path.display(), words(&error));
    let listener = listener.map_err(|error| failed("make the control socket", error))?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| failed("close to others the control socket", error))?;
    Ok(listener)
}

/// Removes the socket at the end.
pub fn remove(runtime_dir: &Path) {
    let _ = std::fs::remove_file(runtime_dir.join(SOCKET_NAME));
}

/// Answers until `stopped` is over.
pub async fn serve(listener: UnixListener, office: Arc<Office>, stopped: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let talk = |stream: UnixStream, place: OwnedSemaphorePermit| {
        let office = Arc::clone(&office);
        tokio::spawn(async move {
            let _place = place;
            converse(stream, &office).await;
        });
    };
    let work = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => talk(stream, place),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stopped => {}
    }
    // Who has connected already is in the kernel's queue, and may have asked.
    while let Ok(place) = Arc::clone(&places).try_acquire_owned()
        && let Ok(Ok((stream, _))) = tokio::time::timeout(LAST_CALLS, listener.accept()).await
    {
        talk(stream, place);
    }
    // A change on its way is ended and answered, or the tool would report a failure that was none.
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(LAST_ANSWERS, places.acquire_many(all)).await;
}

/// The file's mode keeps others out; the peer is checked as well, because a mode can be changed.
fn is_trusted(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

async fn converse(stream: UnixStream, office: &Arc<Office>) {
    if !is_trusted(&stream) {
        warn!("a process without root rights connected to the control socket and was turned away");
        return;
    }
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut ahead = None;
    loop {
        let mut line = Vec::new();
        let limit = MAX_LINE as u64 * 2;
        let read = tokio::time::timeout(IDLE, (&mut reader).take(limit).read_until(b'\n', &mut line)).await;
        if !matches!(read, Ok(Ok(1..))) {
            return;
        }
        let request = serde_json::from_slice::<Request>(&line);
        let ended = line.last() != Some(&b'\n');
        // A policy may be long, and it is there twice now.
        drop(line);
        let response = match request.map(|request| with_text(request, &mut ahead)) {
            Ok(Request::Text { octets }) => match text(&mut reader, octets).await {
                Some(text) => {
                    ahead = Some(text);
                    continue;
                }
                None => return,
            },
            Ok(Request::Log { follow: true, filter }) => {
                return logged::follow(filter, office, &mut reader, &mut writer).await;
            }
            Ok(Request::Rpz { host }) => return printed::send(host.as_deref(), office, &mut writer).await,
            Ok(request) => answer(request, &Caller::Tool, office).await,
            Err(error) => Response::failed(format!("not a request of this version: {error}")),
        };
        let mut text = serde_json::to_vec(&response).unwrap_or_default();
        text.push(b'\n');
        if writer.write_all(&text).await.is_err() || ended {
            return;
        }
    }
}

/// The request with the policy that came ahead of it.
fn with_text(mut request: Request, ahead: &mut Option<String>) -> Request {
    if let Some(policy) = request.policy_mut().filter(|policy| policy.is_empty())
        && let Some(text) = ahead.take()
    {
        *policy = text;
    }
    request
}

/// So many octets that are a text; `None`: they are none, are too many, or do not come.
async fn text(from: &mut (impl AsyncReadExt + Unpin), octets: usize) -> Option<String> {
    if octets > MAX_LINE {
        return None;
    }
    let mut text = vec![0; octets];
    let read = tokio::time::timeout(IDLE, from.read_exact(&mut text)).await;
    read.ok()?.ok()?;
    String::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(policy: &str) -> Request {
        Request::Store { policy: policy.to_owned(), expect_revision: Some(1) }
    }

    #[test]
    fn a_policy_that_came_ahead_is_for_the_next_request_that_has_an_empty_one() {
        let mut ahead = Some("{}".to_owned());
        assert_eq!(with_text(Request::Status {}, &mut ahead), Request::Status {});
        assert_eq!(with_text(Request::Apply { policy: None, confirm_seconds: None }, &mut ahead).policy_mut(), None);
        assert_eq!(with_text(store("own"), &mut ahead), store("own"));
        assert_eq!(with_text(store(""), &mut ahead), store("{}"));
        assert_eq!(with_text(store(""), &mut ahead), store(""));
    }

    #[tokio::test]
    async fn only_a_text_of_the_length_that_was_said_comes_ahead() {
        let came = async |octets: &[u8], said| text(&mut &*octets, said).await;
        assert_eq!(came(b"{}{\"command\":", 2).await.as_deref(), Some("{}"));
        assert_eq!(came("é".as_bytes(), 1).await, None, "no text");
        assert_eq!(came(b"{}", 3).await, None, "too short");
        assert_eq!(came(b"{}", MAX_LINE + 1).await, None, "too long");
    }
}
