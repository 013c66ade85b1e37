//! What every request comes to, whichever face took it: the control socket and the REST calls share this.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::{Mutex, Semaphore, watch};
use tracing::{info, warn};

use super::handle::Handle;
use super::protocol::{Applied, History, Refusal, Request, Response, RolledBack, Stored, Text, TornDown};
use super::revisions::{Accepted, Author, Rejected, Revisions};
use super::telemetry::Telemetry;
use super::zones::Outlet;
use super::{explain, logged, planned, status, telemetry};
use crate::api;
use crate::core::telemetry::Window;
use crate::decisions::Log;
use crate::dns::Counters;
use crate::settings::Settings;
use crate::store::Origin;

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
    /// The zones for other name servers; `None`: the settings name nobody who may have them.
    pub outlet: Option<Arc<Outlet>>,
    /// How the REST API is doing.
    pub api: Arc<api::State>,
    /// Its settings, which may change while the daemon runs.
    pub api_settings: watch::Sender<crate::settings::Api>,
    /// The settings of this run.
    pub settings: Settings,
    /// The decisions.
    pub log: Arc<Log>,
    /// Usage and denials.
    pub telemetry: Telemetry,
    /// Places for those who follow the log.
    pub followers: Arc<Semaphore>,
    /// Planning takes processor and memory: one at a time does.
    pub planning: Mutex<()>,
    /// True when the daemon ends.
    pub stopped: watch::Receiver<bool>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The tool, by the control socket.
    Tool,
    /// A REST call with the key of this id.
    Key(String),
}

impl Caller {
    /// How the record calls a change; `tool`: what it is called where the tool asks.
    fn author(&self, tool: Origin) -> Author {
        match self {
            Self::Tool => tool.into(),
            Self::Key(id) => Author { origin: Origin::Api, key_id: Some(id.clone()) },
        }
    }
}

/// Does what is asked. Not to be dropped half-way: a change would be in force and not recorded.
pub async fn answer(request: Request, caller: &Caller, office: &Arc<Office>) -> Response {
    match request {
        Request::Text { .. } => Response::failed("a text alone asks for nothing"),
        Request::Status {} => Response::done(status::status(office).await),
        Request::Health {} => Response::done(status::health(&status::status(office).await)),
        Request::Firewall {} => firewall(office).await,
        // In pieces (`printed`); one answer would be too long for a large policy.
        Request::Rpz { .. } => Response::failed("zones are printed by the tool alone"),
        Request::Show {} => match office.revisions.lock().await.store().stored_policy() {
            Ok(policy) => Response::done(Stored { policy }),
            Err(error) => Response::failed(error.to_string()),
        },
        Request::Apply { policy, confirm_seconds } => {
            let author = caller.author(Origin::Cli);
            let mut revisions = office.revisions.lock().await;
            changed(revisions.apply(policy.as_deref(), &author, confirm_seconds).await, "applied", &author)
        }
        Request::Import { policy, expect_revision, confirm_seconds } => {
            let author = caller.author(Origin::Import);
            let mut revisions = office.revisions.lock().await;
            let result = revisions.import(&policy, &author, expect_revision, confirm_seconds).await;
            changed(result, "imported", &author)
        }
        Request::Store { policy, expect_revision } => {
            let author = caller.author(Origin::Import);
            let mut revisions = office.revisions.lock().await;
            changed(revisions.keep_for_later(&policy, expect_revision), "stored", &author)
        }
        Request::Rollback { revision, expect_revision } => {
            let author = Author { origin: Origin::Rollback, ..caller.author(Origin::Rollback) };
            let mut revisions = office.revisions.lock().await;
            let (to, result) = match revisions.roll_back(revision, &author, expect_revision).await {
                Ok((to, accepted)) => (to, Ok(accepted)),
                Err(rejected) => (0, Err(rejected)),
            };
            rolled_back(to, changed(result, "rolled back", &author))
        }
        Request::Confirm { revision } => match office.revisions.lock().await.confirm(revision) {
            Ok(confirmed) => {
                info!("revision {} is confirmed", confirmed.revision);
                Response::done(confirmed)
            }
            Err(Rejected { refusal, message, .. }) => Response::because(refusal, message),
        },
        Request::Explain(question) => explain::answer(office, question).await,
        Request::Log { filter, .. } => logged::answer(office, filter).await,
        Request::Plan { policy, hours } => planned::answer(office, &policy, hours).await,
        Request::History {} => match office.revisions.lock().await.store().history() {
            Ok(found) => Response::done(History {
                revisions: found.value,
                damage: found.damage.iter().map(ToString::to_string).collect(),
            }),
            Err(error) => Response::failed(error.to_string()),
        },
        Request::Telemetry(asked) => match asked.view() {
            Ok(view) => telemetry::report(office, view, asked.window.unwrap_or(Window::USUAL)).await,
            Err(why) => Response::because(Refusal::Invalid, why),
        },
        Request::Stats {} => telemetry::stats(office).await,
        Request::Metrics {} => telemetry::metrics(office).await,
        Request::Teardown {} => teardown(office).await,
    }
}

fn changed(result: Result<Accepted, Rejected>, word: &str, author: &Author) -> Response {
    let by = author.key_id.as_ref().map(|id| format!(" by key {id}")).unwrap_or_default();
    match result {
        Ok(accepted) => {
            match accepted.revision.filter(|_| accepted.applied) {
                Some(revision) => {
                    info!("{word}{by}: revision {revision} is in force; {} classes of flows were cut", accepted.cut);
                }
                None => info!("{word}{by}: a policy for later; what is in force did not change"),
            }
            for sentence in &accepted.trouble {
                warn!("{sentence}");
            }
            let Accepted { revision, sha256, applied, stored, operations, confirm_by, warnings, trouble, .. } =
                accepted;
            Response::done(Applied {
                revision,
                sha256,
                applied,
                stored,
                changes: operations,
                confirm_by,
                warnings,
                trouble,
            })
        }
        Err(Rejected { refusal, message, errors }) => {
            warn!("a policy was refused{by}: {message}");
            Response { refusal, ..Response::refused(message, errors) }
        }
    }
}

/// The answer of a change, with the revision that was returned to.
fn rolled_back(to: u64, response: Response) -> Response {
    match response.data::<Applied>() {
        Ok(applied) if response.success => Response::done(RolledBack { to, applied }),
        _ => response,
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

async fn teardown(office: &Arc<Office>) -> Response {
    let mut revisions = office.revisions.lock().await;
    match office.gate.run(super::gate::Gate::teardown).await {
        Ok(Ok(())) => {
            revisions.current = None;
            revisions.trouble = vec!["torn down: nothing is enforced until a policy is applied again".into()];
            let unforgotten = revisions.wait_no_more();
            revisions.trouble.extend(unforgotten);
            warn!("torn down: the gateway is open");
            let message = "the gateway is open: nothing is enforced until a policy is applied again".into();
            Response::done(TornDown { removed: true, message })
        }
        Ok(Err(error)) => Response::failed(format!("still enforcing: {error}")),
        Err(stopped) => Response::failed(stopped.to_string()),
    }
}
