//! What the driver is told by the settings file.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};

use serde::Deserialize;

use super::upstream::Upstream;

/// What happens to queries from outside the scope (SPEC section 4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutOfScope {
    /// They are refused.
    #[default]
    Refuse,
    /// They are answered unfiltered.
    Forward,
}

/// The settings of the DNS driver.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens, by UDP and TCP; `0.0.0.0` and `[::]` mean every address of their own family.
    pub listen: Vec<SocketAddr>,
    /// Whom it asks, in order; empty: the name servers of `/etc/resolv.conf`.
    pub upstreams: Vec<Upstream>,
    /// What happens to queries from outside the scope.
    pub out_of_scope: OutOfScope,
    /// Queries a second that one host may ask; `None`: as many as it likes.
    pub queries_per_second: Option<NonZeroU32>,
    /// Threads that take queries off each address of `listen`.
    pub receivers: NonZeroUsize,
}

impl Settings {
    /// As many receivers as there are processors for this process.
    pub fn usual_receivers() -> NonZeroUsize {
        std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
    }
}
