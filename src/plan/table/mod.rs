//! The table that enforces a policy: static chains and sets. What leases write (`dst4`, `dst6`, `up`, `down`) is
//! declared here and filled by [`crate::core`].
//!
//! The way of a forwarded packet:
//!
//! ```text
//! forward ─ mark is a class ─▶ known ─ up/down has the class ─▶ accept (or recheck_*)
//!    │                           └─ class is gone ─┐
//!    ├─ sender in scope ─▶ egress ─▶ classify ◀────┘
//!    │                       └ reply ─▶ answer ─▶ classify, or inbound (flows opened from outside)
//!    ├─ receiver in scope, reply ─▶ classify
//!    └─ else: untouched
//! classify ─▶ view4/view6: view_*: deny, ports, allow.ips ─▶ special ─▶ host4/host6: who ─▶ dst4/dst6: leased?
//!    ─▶ up ─▶ accept                   └────────────── b_REASON ─▶ deny: reset or admin-prohibited
//! ```

mod build;
mod hooks;
mod hosts;
mod lists;
mod meters;
pub mod names;
pub mod refusals;
mod scope;
mod views;

use super::ops::Table;
use super::situation::Situation;
use crate::policy::model::Policy;

/// Builds the static part of the table. The same input gives the same table, byte for byte.
#[must_use]
pub fn table(policy: &Policy, situation: &Situation) -> Table {
    table_of(policy, &Lists::of(policy), situation)
}

/// [`table`] with the policy's address lists sorted already.
#[must_use]
pub fn table_of(policy: &Policy, lists: &Lists, situation: &Situation) -> Table {
    let mut build = build::Build::new(policy, lists, situation);
    hosts::add(&mut build);
    views::add(&mut build);
    hooks::add(&mut build);
    meters::add(&mut build);
    build.finish()
}

pub use build::{CLASSES, leases};
pub use hosts::segments;
pub use lists::Lists;
pub use meters::{MERGED, make as make_meter, rules as meter_rules, set_cap, stop as stop_cap};
