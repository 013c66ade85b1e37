//! What people write, and what it means. No I/O, no clock: see the tour in [`crate`].

pub mod decision;
pub mod model;
pub mod name;
pub mod reference;
