//! State and its transitions, pure: time is an argument, effects are values.

mod adopt;
mod ahead;
pub mod caps;
mod changes;
pub mod classes;
pub mod compare;
pub mod doors;
pub mod egress;
mod enforce;
pub mod explain;
pub mod forecast;
pub mod judge;
pub mod lease;
mod leasing;
mod metering;
pub mod observe;
pub mod recharge;
pub mod replay;
pub mod state;
pub mod telemetry;

pub use enforce::Pending;
