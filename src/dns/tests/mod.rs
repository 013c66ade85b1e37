//! The driver over real sockets on loopback: a client, a scripted upstream, a policy and a kernel that the test plays.
//!
//! They are here and not under `tests/` because only code of this crate may make an [`crate::core::lease::Acked`].

mod answers;
mod batches;
mod budget;
mod doubles;
mod encrypted;
mod fake;
mod form;
mod gateway;
mod leases;
mod load;
mod properties;
mod quick;
mod speed;
mod upstreams;
mod wire;
