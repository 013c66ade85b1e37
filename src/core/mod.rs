//! State and its transitions, pure: time is an argument, effects are values.

mod adopt;
pub mod classes;
pub mod doors;
mod enforce;
pub mod explain;
pub mod judge;
pub mod lease;
pub mod observe;
pub mod state;

pub use enforce::Pending;
