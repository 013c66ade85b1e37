//! Clawgress: an egress gateway for AI agents.

pub mod cli;
pub mod core;
pub mod daemon;
pub mod dns;
pub mod nft;
pub mod plan;
pub mod policy;
pub mod settings;
pub mod store;
