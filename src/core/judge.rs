//! What a front end that sees names asks the policy in force.
//!
//! One implementation answers from the compiled snapshot; a front end holds it as a value that is swapped whole, so one
//! query is judged by one revision from beginning to end.

use std::net::IpAddr;

use chrono::{DateTime, Utc};

use super::lease::HostId;
pub use crate::plan::snapshot::AddressVerdict;
use crate::plan::snapshot::Snapshot;
use crate::policy::decision::Decision;
use crate::policy::name::Name;

/// The policy in force, as one immutable value.
pub trait Judge: Send + Sync + 'static {
    /// The revision that the verdicts come from; leases are asked for in its name.
    fn revision(&self) -> u64;

    /// Whose traffic a query from `source` is; `None`: out of scope. `interface`: the name of the interface the query
    /// came in by, when known.
    fn client(&self, source: IpAddr, interface: Option<&str>) -> Option<HostId>;

    /// The decision on the name asked for. No name (`None`) is one that no policy can write: it is never allowed. An
    /// allow carries the covering entry in [`Decision::domain`].
    fn decide_name(&self, host: HostId, name: Option<&Name>, now: DateTime<Utc>) -> Decision;

    /// The denylist's verdict on a name that an answer leads to (a link of a CNAME chain, a target), if a line names it.
    fn denied_link(&self, host: HostId, name: &Name) -> Option<Decision>;

    /// The verdict on an address in an answer for an allowed name.
    fn judge_address(&self, host: HostId, address: IpAddr) -> AddressVerdict;
}

impl Judge for Snapshot {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn client(&self, source: IpAddr, interface: Option<&str>) -> Option<HostId> {
        Snapshot::client(self, source, interface)
    }

    fn decide_name(&self, host: HostId, name: Option<&Name>, now: DateTime<Utc>) -> Decision {
        self.decide_name_at(host, name, now)
    }

    fn denied_link(&self, host: HostId, name: &Name) -> Option<Decision> {
        Snapshot::denied_link(self, host, name)
    }

    fn judge_address(&self, host: HostId, address: IpAddr) -> AddressVerdict {
        Snapshot::judge_address(self, host, address)
    }
}
