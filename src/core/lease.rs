//! The one door through which an address opens for a host.
//!
//! The DNS driver asks for leases and may let an answer go only with the [`Acked`] proof in hand. The proof is made by
//! whoever got the kernel's acknowledgement, nobody else (a test reads the sources and holds that line).

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

pub use crate::plan::ids::HostId;
use crate::policy::name::Name;

/// The shortest time for which an address stays open (SPEC section 2, meaning 7).
pub const MIN_LEASE: Duration = Duration::from_secs(60);
/// The longest.
pub const MAX_LEASE: Duration = Duration::from_secs(3600);
/// What a lease that is written gets besides: TTLs are told in whole seconds, so an answer from the cache is good for up
/// to a second longer than the lease of the first one would last, and each would have to be written again.
pub const ROUNDING: Duration = Duration::from_secs(1);

/// Addresses that an answer is about to tell one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRequest {
    /// The revision whose decision allowed the name; a request of another revision is refused as stale.
    pub revision: u64,
    /// Who asked.
    pub host: HostId,
    /// The name asked for.
    pub name: Name,
    /// The other names on the way from it to the addresses (CNAME targets).
    pub links: Vec<Name>,
    /// The addresses in the answer.
    pub addresses: Vec<IpAddr>,
    /// How long the answer is good for; clamped to [`MIN_LEASE`] … [`MAX_LEASE`] here, not by the caller.
    pub ttl: Duration,
}

/// What an answer needs that is ready to go; as [`LeaseRequest`], borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// See [`LeaseRequest::revision`].
    pub revision: u64,
    /// Who asked.
    pub host: HostId,
    /// The name asked for.
    pub name: &'a Name,
    /// The other names on the way.
    pub links: &'a [Name],
    /// The addresses in the answer.
    pub addresses: &'a BTreeSet<IpAddr>,
    /// How long the answer is good for.
    pub ttl: Duration,
}

impl Wanted<'_> {
    /// For how long the addresses must be open.
    pub fn term(&self) -> Duration {
        self.ttl.clamp(MIN_LEASE, MAX_LEASE)
    }
}

impl From<Wanted<'_>> for LeaseRequest {
    fn from(wanted: Wanted<'_>) -> Self {
        Self {
            revision: wanted.revision,
            host: wanted.host,
            name: wanted.name.clone(),
            links: wanted.links.to_vec(),
            addresses: wanted.addresses.iter().copied().collect(),
            ttl: wanted.ttl,
        }
    }
}

/// Proof that the kernel holds the addresses of a request until the answer's time is over.
#[must_use]
#[derive(Debug)]
pub struct Acked(());

impl Acked {
    /// Only for the code that has the kernel's acknowledgement in hand, now or from an earlier, longer lease.
    pub(crate) fn by_kernel() -> Self {
        Self(())
    }
}

/// Why an answer may not go.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The policy changed, or a window closed, since the decision: decide again.
    #[error("the policy changed meanwhile")]
    Stale,
    /// The kernel refused, or is not there; with its words.
    #[error("the kernel did not take the address: {0}")]
    Kernel(String),
    /// The host has its share of addresses or of classes; they come free as their answers end.
    #[error("this host has too many open addresses, wait until earlier answers end")]
    Full,
    /// Too many requests wait.
    #[error("too many answers wait for the kernel")]
    Busy,
}

/// Takes the results of a group of leases.
pub type Done = Box<dyn FnOnce(Vec<Result<Acked, LeaseError>>) + Send>;

/// Whoever can put leases into the kernel.
pub trait Leaser: Send + Sync + 'static {
    /// Resolves when the kernel holds every address of the request (at once if it does already).
    fn lease(&self, request: LeaseRequest) -> impl Future<Output = Result<Acked, LeaseError>> + Send;

    /// As [`Leaser::lease`] for many answers, which go to the kernel together; `done` gets the results in order, here and now
    /// or later, in any thread. It must not wait.
    fn lease_all(self: &Arc<Self>, requests: Vec<LeaseRequest>, done: Done);

    /// Proof without a word to the kernel, if it is known to hold every address for long enough. `None` says nothing:
    /// then [`Leaser::lease`] finds out.
    fn held(&self, wanted: &Wanted<'_>) -> Option<Acked>;
}
