//! The DNS driver: answers the agents' questions by the policy in force.
//!
//! A tour: [`bind`] takes the sockets (`listen`); `udp` (by the `batch`) and `tcp` take packets off them; `quick` answers
//! what need not wait; what is plain and has to wait goes to `flights`, which ask the upstreams, and comes back by
//! `arrivals`; `service` is what happens to every other query: `query` reads it, a
//! [`Judge`](crate::core::judge::Judge) decides, `resolver` (with `cache`, `flights` and `upstream`) finds out, [`filter`]
//! takes out what may not be told, a [`Leaser`](crate::core::lease::Leaser) opens the addresses, `reply` writes the answer.
//! `budget` says how much of all that one host may have.
//! [`transfer`] stands apart: it serves zones to other name servers, on sockets of its own.

mod answers;
mod arrivals;
mod batch;
mod budget;
mod cache;
mod carriers;
mod counters;
mod datagram;
pub mod filter;
mod flights;
mod interfaces;
mod listen;
mod pending;
mod query;
mod quick;
mod reply;
mod resolver;
mod service;
mod settings;
mod tcp;
pub mod transfer;
#[doc(hidden)]
pub mod trial;
mod udp;
mod upstream;
mod words;

pub use counters::Counters;
pub use listen::{Bound, DnsError, bind};
pub use service::JudgeSource;
pub use settings::{OutOfScope, Settings};
pub use upstream::{Upstream, UpstreamError};

#[cfg(test)]
mod tests;
