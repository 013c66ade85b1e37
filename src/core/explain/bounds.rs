//! What bounds something besides its verdict: when it opens or closes, and how fast it may be.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Asked;
use crate::policy::model::{Effective, Policy};
use crate::policy::name::Name;
use crate::policy::reference::Leased;
use crate::policy::schedule::Moment;

/// The time windows that a target stands under, taken together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WindowState {
    /// Whether all of them are open.
    pub open: bool,
    /// When the first of them opens or closes next, RFC 3339; `None`: never.
    pub changes_at: Option<DateTime<Utc>>,
}

/// The rate limits that hold for a source, kilobits (1000 bits) per second; both hold where there are two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rates {
    /// Of all egress in scope together.
    pub egress_kbps: Option<u64>,
    /// Of the host alone.
    pub host_kbps: Option<u64>,
}

/// The windows: the host's (or the global) one, and that of the name asked for, or of the name that gave the address.
/// `None`: there is none, or no moment to ask about.
pub(super) fn window(
    rules: &Effective<'_>,
    asked: &Asked,
    leases: &[Leased<'_>],
    moment: Option<&Moment>,
) -> Option<WindowState> {
    let moment = moment?;
    let name: Option<&Name> = match asked {
        Asked::Domain(name) => Some(name),
        Asked::Ip(address) => {
            let lease = leases.iter().find(|lease| lease.address == *address && lease.host == rules.host);
            lease.map(|lease| lease.name)
        }
    };
    let windows: Vec<_> = rules.window.into_iter().chain(name.and_then(|name| rules.window_of(name))).collect();
    let changes = windows.iter().filter_map(|window| window.value.next_change(moment.zone, moment.utc));
    let state =
        WindowState { open: windows.iter().all(|window| moment.opens(Some(window))), changes_at: changes.min() };
    (!windows.is_empty()).then_some(state)
}

/// The rate limits; `None`: there is none.
pub(super) fn rates(policy: &Policy, rules: &Effective<'_>) -> Option<Rates> {
    let own = rules.host.and_then(|name| policy.hosts.get(name)).and_then(|host| host.egress_kbps.as_ref());
    let rates = Rates {
        egress_kbps: policy.egress_kbps.as_ref().map(|kbps| kbps.value),
        host_kbps: own.map(|kbps| kbps.value),
    };
    (rates.egress_kbps.is_some() || rates.host_kbps.is_some()).then_some(rates)
}
