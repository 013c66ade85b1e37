//! From a policy to what the kernel and the DNS server hold; pure.

pub mod ir;
pub mod ops;
pub mod text;
