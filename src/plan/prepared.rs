//! What a policy compiles to whatever the kernel holds and the machine is: the part that grows with the lists.

use super::snapshot::Indexes;
use super::table::Lists;
use crate::policy::Policy;

/// The lists of one policy, sorted and indexed. Made before the one writer of the table is asked, so that answers wait
/// for the transaction alone.
#[derive(Debug)]
pub struct Prepared {
    /// For the table.
    pub lists: Lists,
    /// For the snapshot.
    pub indexes: Indexes,
}

impl Prepared {
    /// Sorts and indexes.
    pub fn of(policy: &Policy) -> Self {
        Self { lists: Lists::of(policy), indexes: Indexes::of(policy) }
    }
}
