//! Who is told what was decided on queries, as it happens.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::lease::HostId;
use crate::policy::decision::Decision;

/// One query and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The revision that decided.
    pub revision: u64,
    /// Who asked.
    pub client: HostId,
    /// From where.
    pub source: IpAddr,
    /// The name asked for, in lower case and without the dot at its end.
    pub name: &'a str,
    /// The address in the answer that gave the reason, if one did.
    pub address: Option<IpAddr>,
    /// The addresses that were leased for the answer; none where the kernel held all of them already.
    pub leased: &'a BTreeSet<IpAddr>,
    /// Whether it came over TCP.
    pub tcp: bool,
    /// What was decided.
    pub decision: &'a Decision,
}

/// Is told of each query that was decided on: refused, or (in monitor mode) would have been, or answered.
pub trait Observer: Send + Sync + 'static {
    /// Takes it in without waiting for anybody.
    fn answered(&self, query: Answered<'_>);
}

/// Nobody is told.
impl Observer for () {
    fn answered(&self, _query: Answered<'_>) {}
}
