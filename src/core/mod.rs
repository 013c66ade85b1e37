//! State and its transitions, pure: time is an argument, effects are values.

pub mod judge;
pub mod lease;
