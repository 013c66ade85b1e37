//! Enforcing before the daemon runs: at boot, from the files of the last run, before there is a network.
//!
//! The table is the last policy's, with what it says of networks and without a single lease: what `allow.ips` lets
//! through passes, names are not answered by anybody, and so nothing that a cap is charged for can be reached. The daemon
//! takes the table over as it takes over that of an earlier daemon.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::Utc;

use super::held;
use crate::core::classes::Classes;
use crate::core::doors::Now;
use crate::core::state::{State, World};
use crate::nft::{Kernel, KernelError, Options};
use crate::plan::situation::{DnsDoor, Reports};
use crate::policy::{self, Policy, not_yet_enforced};
use crate::settings::Settings;
use crate::store::{self, Look, Remains};

/// Where queries go while nobody answers them: "discard", at which nobody listens, so that they are refused at once. Left
/// alone they would reach whatever other resolver this machine runs.
const NOWHERE: u16 = 9;

/// What is enforced now.
#[derive(Debug, PartialEq, Eq)]
pub struct Early {
    /// One sentence.
    pub message: String,
    /// What is wrong with the files, a sentence each.
    pub trouble: Vec<String>,
    /// There was nothing to enforce, because no policy was ever stored.
    pub never: bool,
}

impl Early {
    fn only(message: &str) -> Self {
        Self { message: message.into(), trouble: Vec::new(), never: false }
    }
}

/// A policy to enforce, and what it is.
struct Candidate {
    policy: Policy,
    revision: u64,
    message: String,
}

/// Puts the last policy in force, if there ever was one and the kernel does not hold it already.
///
/// # Errors
/// The kernel refused even the table that lets nothing through, or a table of our name is not ours.
pub fn before_the_daemon(settings: &Settings) -> anyhow::Result<Early> {
    let remains = match Look::at(&settings.policy, &settings.state_dir) {
        Look::InUse => return Ok(Early::only("the daemon runs; it enforces by itself")),
        Look::Never => {
            return Ok(Early { never: true, ..Early::only("no policy was ever stored, so nothing is enforced") });
        }
        Look::Remains(remains) => remains,
    };
    let mut kernel = Kernel::open(Options { own_table: settings.kernel.lock_table, ..Options::default() })?;
    match kernel.read()? {
        Some(held) if !held::is_ours(&held) => anyhow::bail!(held::NOT_OURS),
        Some(_) => return Ok(Early::only("the kernel enforces already; its table is left as it is")),
        None => {}
    }
    let mut trouble: Vec<String> = remains.damage.iter().map(ToString::to_string).collect();
    if let Some(candidate) = last(&remains, &mut trouble) {
        match enforce(&mut kernel, settings, &candidate) {
            Ok(()) => return Ok(Early { trouble, ..Early::only(&candidate.message) }),
            Err(error) => trouble.push(error.to_string()),
        }
    }
    let closed = closed(&remains)?;
    enforce(&mut kernel, settings, &closed)?;
    Ok(Early { trouble, ..Early::only(&closed.message) })
}

/// The policy that was in force last, or if there is none the one that was stored to be.
fn last(remains: &Remains, trouble: &mut Vec<String>) -> Option<Candidate> {
    let overdue = remains.unconfirmed.as_ref().filter(|unconfirmed| {
        let waits = |last: &store::Revision| last.meta.revision == unconfirmed.wait.revision;
        unconfirmed.wait.deadline <= Utc::now() && remains.last.as_ref().is_none_or(waits)
    });
    let (text, what, revision) = match (overdue.map(|wait| &wait.back_to).or(remains.last.as_ref()), &remains.stored) {
        (Some(last), _) => (&last.policy, format!("revision {}", last.meta.revision), last.meta.revision),
        (None, Some(stored)) => (stored, "the stored policy".to_owned(), 1),
        (None, None) => return None,
    };
    let complaint = match policy::parse(text) {
        // Files with names are the daemon's business too: the table knows no names.
        Ok(mut policy) => {
            match not_yet_enforced(&policy).into_iter().find(|mistake| !mistake.path.contains("/domain_lists/")) {
                None => {
                    // Caps are the daemon's business, who has the ledger; without leases nothing is charged for.
                    policy.hosts.values_mut().for_each(|host| host.caps.clear());
                    let message = format!("{what} is in force; until the daemon starts no name is answered");
                    return Some(Candidate { policy, revision, message });
                }
                missing => missing,
            }
        }
        Err(mistakes) => mistakes.into_iter().next(),
    };
    trouble.push(format!("{what} cannot be enforced: {}", complaint.map(|c| c.to_string()).unwrap_or_default()));
    None
}

/// Nothing passes for those whom the unusable policy was about.
fn closed(remains: &Remains) -> anyhow::Result<Candidate> {
    let text = remains.last.as_ref().map(|last| &last.policy).or(remains.stored.as_ref());
    let policy = policy::closed(text.map(String::as_str)).map_err(|mistakes| {
        anyhow::anyhow!("a fault in clawgress, please report it: {}", mistakes.first().map_or("", |m| &m.message))
    })?;
    let whom = match (&policy.scope.sources, &policy.scope.interfaces) {
        (None, None) => "everything that this machine forwards",
        _ => "the scope of the last policy",
    };
    let message =
        format!("no policy that was in force can be read or enforced: {whom} is blocked until the daemon starts");
    Ok(Candidate { policy, revision: 1, message })
}

fn enforce(kernel: &mut Kernel, settings: &Settings, candidate: &Candidate) -> Result<(), KernelError> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let state = State::new(Classes::first_of_table(seconds));
    let now = Now { ms: 0, utc: Utc::now() };
    let machine = machine(settings, &candidate.policy);
    let pending = state.enforce(&candidate.policy, &machine, candidate.revision, now);
    kernel.commit(&pending.delta.into_ops())
}

/// What can be said of the machine before it has a network.
fn machine(settings: &Settings, policy: &Policy) -> World {
    let mut guarded = super::world::guarded(policy);
    if policy.scope.interfaces.is_none() {
        guarded.extend(store::read_guarded(&settings.state_dir));
    }
    World {
        dns4: DnsDoor::Redirect(NOWHERE),
        dns6: DnsDoor::Redirect(NOWHERE),
        dns_ports: BTreeSet::new(),
        guarded,
        // Another table that switches tracking off may come after this one.
        keep_tracking: true,
        // Nobody takes the copies, and not every kernel can make them.
        reports: Reports::None,
        own: BTreeSet::new(),
        zone: store::system_zone(),
    }
}
