//! From a policy to what the kernel and the DNS server hold; pure.

pub mod apply;
pub mod elements;
pub mod ids;
pub mod ir;
mod listed;
pub mod meter;
mod object;
pub mod ops;
pub mod passage;
pub mod prepared;
pub mod rpz;
pub mod simulate;
pub mod situation;
pub mod snapshot;
pub mod table;
pub mod text;
mod windows;
