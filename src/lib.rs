//! Clawgress: an egress gateway for AI agents.

pub mod core;
pub mod dns;
pub mod nft;
pub mod plan;
pub mod policy;
