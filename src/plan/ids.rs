//! Numbers that stand for hosts in the kernel.

/// A host in the kernel's terms: 1 for sources in scope that belong to no host, 2… for the hosts of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostId(pub u16);

impl HostId {
    /// Sources in scope that belong to no host.
    pub const NOBODY: HostId = HostId(1);
    /// The first number given to a host of the policy.
    pub const FIRST: HostId = HostId(2);
}
