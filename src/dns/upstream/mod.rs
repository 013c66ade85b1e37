//! Asking upstreams: several, in the order of the settings, with a second one asked soon if the first is silent.
//!
//! The question is built from nothing but name, type and DO: no option, flag or id of a client gets out.

mod address;
mod encrypted;
mod plain;
mod pool;
mod resolv;
mod wire;

use hickory_proto::op::Message;
use hickory_proto::rr::{Name as WireName, RecordType};

pub use address::{Upstream, UpstreamError};
pub(super) use encrypted::tls_config;
#[cfg(test)]
pub(super) use encrypted::tls_trusting;
pub(super) use pool::Pool;
pub(super) use resolv::from_resolv_conf;

/// One question to an upstream; equal look-ups share one answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lookup {
    /// The name, in lower case.
    pub name: WireName,
    /// The type.
    pub kind: RecordType,
    /// Whether signatures are wanted.
    pub dnssec_ok: bool,
}

/// Octets of a [`Lookup::key`] before the name.
pub(super) const KEY_HEAD: usize = 3;

impl Lookup {
    /// DO, type, and the name as on the wire in lower case; two look-ups are equal if their keys are.
    pub fn key(&self) -> Vec<u8> {
        let mut key = Vec::with_capacity(KEY_HEAD + self.name.len() + 1);
        key.push(self.dnssec_ok.into());
        key.extend(u16::from(self.kind).to_be_bytes());
        for label in self.name.iter() {
            key.push(label.len() as u8);
            key.extend(label.iter().map(u8::to_ascii_lowercase));
        }
        key.push(0);
        key
    }
}

/// An upstream's answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// The answer, whose question has been checked.
    pub message: Message,
    /// Its size in octets.
    pub length: usize,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    /// Silence.
    #[error("no upstream answered in time")]
    Timeout,
    /// No way to an upstream; with the reason.
    #[error("{0}")]
    Network(String),
    /// Upstreams answered, but with a failure of theirs.
    #[error("the upstream answered {0}")]
    Upstream(String),
    /// Too many questions are open.
    #[error("too many questions wait for upstreams")]
    Overload,
}
