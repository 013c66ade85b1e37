//! The control socket: the tool's requests, answered one line each.

use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, Semaphore, watch};
use tracing::{info, warn};

use super::handle::Handle;
use super::protocol::{Applied, History, MAX_LINE, Request, Response, Stored, Text, TornDown};
use super::revisions::{Accepted, Rejected, Revisions};
use super::{explain, logged, status};
use crate::decisions::Log;
use crate::dns::Counters;
use crate::settings::{SOCKET_NAME, Settings};
use crate::store::{Origin, words};

/// Connections at a time; the tool opens one for each call.
const CONNECTIONS: usize = 32;
/// Connections that follow the decision log; they stay open as long as somebody looks.
pub const FOLLOWERS: usize = 8;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_secs(60);

/// How long the end waits for answers on their way: a large policy takes a second or two, and a supervisor that stops us
/// has more patience than this.
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// What the answers are made of.
pub struct Office {
    /// The kernel's side.
    pub gate: Handle,
    /// The policy's side; whoever changes the policy holds the lock.
    pub revisions: Mutex<Revisions>,
    /// What DNS counted.
    pub counters: Arc<Counters>,
    /// Where DNS listens.
    pub listen: Vec<SocketAddr>,
    /// The table is locked against other programs.
    pub owned: bool,
    /// The settings of this run.
    pub settings: Settings,
    /// The decisions.
    pub log: Arc<Log>,
    /// Places for those who follow the log.
    pub followers: Arc<Semaphore>,
    /// True when the daemon ends.
    pub stopped: watch::Receiver<bool>,
}

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
    let work = async {
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let office = Arc::clone(&office);
            tokio::spawn(async move {
                let _place = place;
                converse(stream, &office).await;
            });
        }
    };
    tokio::select! {
        () = work => {}
        () = stopped => {}
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
    loop {
        let mut line = Vec::new();
        let limit = MAX_LINE as u64 * 2;
        let read = tokio::time::timeout(IDLE, (&mut reader).take(limit).read_until(b'\n', &mut line)).await;
        if !matches!(read, Ok(Ok(1..))) {
            return;
        }
        let response = match serde_json::from_slice::<Request>(&line) {
            Ok(Request::Log { follow: true, filter }) => {
                return logged::follow(filter, office, &mut reader, &mut writer).await;
            }
            Ok(request) => answer(request, office).await,
            Err(error) => Response::failed(format!("not a request of this version: {error}")),
        };
        let mut text = serde_json::to_vec(&response).unwrap_or_default();
        text.push(b'\n');
        if writer.write_all(&text).await.is_err() || line.last() != Some(&b'\n') {
            return;
        }
    }
}

async fn answer(request: Request, office: &Arc<Office>) -> Response {
    match request {
        Request::Status {} => Response::done(status::status(office).await),
        Request::Health {} => Response::done(status::health(&status::status(office).await)),
        Request::Firewall {} => firewall(office).await,
        Request::Rpz { host } => rpz(office, host.as_deref()).await,
        Request::Show {} => match office.revisions.lock().await.store().stored_policy() {
            Ok(policy) => Response::done(Stored { policy }),
            Err(error) => Response::failed(error.to_string()),
        },
        Request::Apply { policy } => {
            let mut revisions = office.revisions.lock().await;
            changed(revisions.apply(policy.as_deref(), Origin::Cli).await, "applied")
        }
        Request::Import { policy } => {
            let mut revisions = office.revisions.lock().await;
            changed(revisions.import(&policy, Origin::Import).await, "imported")
        }
        Request::Explain(question) => explain::answer(office, question).await,
        Request::Log { filter, .. } => logged::answer(office, filter).await,
        Request::History {} => match office.revisions.lock().await.store().history() {
            Ok(found) => Response::done(History {
                revisions: found.value,
                damage: found.damage.iter().map(ToString::to_string).collect(),
            }),
            Err(error) => Response::failed(error.to_string()),
        },
        Request::Teardown {} => teardown(office).await,
    }
}

fn changed(result: Result<Accepted, Rejected>, word: &str) -> Response {
    match result {
        Ok(accepted) => {
            info!("{word}: revision {} is in force; {} classes of flows were cut", accepted.revision, accepted.cut);
            for sentence in &accepted.trouble {
                warn!("{sentence}");
            }
            let Accepted { revision, sha256, operations, warnings, trouble, .. } = accepted;
            Response::done(Applied { revision, sha256, applied: true, changes: operations, warnings, trouble })
        }
        Err(rejected) => {
            warn!("a policy was refused: {}", rejected.message);
            Response::refused(rejected.message, rejected.errors)
        }
    }
}

async fn firewall(office: &Arc<Office>) -> Response {
    let text = office.gate.run(super::gate::Gate::text).await;
    match text {
        Ok(Ok(text)) => Response::done(Text { text }),
        Ok(Err(error)) => Response::failed(error.to_string()),
        Err(stopped) => Response::failed(stopped.to_string()),
    }
}

async fn rpz(office: &Arc<Office>, host: Option<&str>) -> Response {
    let revisions = office.revisions.lock().await;
    let Some(current) = &revisions.current else {
        return Response::failed(
            "no policy is in force, so there is no zone; import one: clawgress import --policy FILE",
        );
    };
    let policy = &current.policy;
    let revision = current.meta.revision;
    let only = match host {
        None => None,
        Some(host) => match policy.hosts.keys().find(|name| name.as_str() == host) {
            Some(name) => Some(name),
            None => return Response::failed(format!("the policy has no host {host}; `clawgress show` lists them")),
        },
    };
    Response::done(Text { text: crate::plan::rpz::render(policy, revision, only) })
}

async fn teardown(office: &Arc<Office>) -> Response {
    let mut revisions = office.revisions.lock().await;
    match office.gate.run(super::gate::Gate::teardown).await {
        Ok(Ok(())) => {
            revisions.current = None;
            revisions.trouble = vec!["torn down: nothing is enforced until a policy is applied again".into()];
            warn!("torn down: the gateway is open");
            let message = "the gateway is open: nothing is enforced until a policy is applied again".into();
            Response::done(TornDown { removed: true, message })
        }
        Ok(Err(error)) => Response::failed(format!("still enforcing: {error}")),
        Err(stopped) => Response::failed(stopped.to_string()),
    }
}
