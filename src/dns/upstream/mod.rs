//! Asking upstreams: several, in the order of the settings, with a second one asked soon if the first is silent.
//!
//! The question is built from nothing but name, type and DO: no option, flag or id of a client gets out.

mod address;
mod encrypted;
mod plain;
mod pool;
mod random;
mod resolv;
mod wire;

use hickory_proto::op::Message;
use hickory_proto::rr::{Name as WireName, RecordType};

pub use address::{Upstream, UpstreamError};
pub(super) use encrypted::tls_config;
#[cfg(test)]
pub(super) use encrypted::tls_trusting;
pub(super) use pool::{BUDGET, Pool, Way, ask_encrypted, good};
pub(super) use random::Randomness;
pub(super) use resolv::from_resolv_conf;
pub(super) use wire::{Asked, Match};

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
    /// The look-up with a key. `None`: it is none.
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let [dnssec_ok, high, low, name @ ..] = key else { return None };
        let mut labels = Vec::new();
        let mut rest = name;
        while let [length, after @ ..] = rest
            && *length > 0
        {
            let (label, after) = after.split_at_checked(usize::from(*length))?;
            labels.push(label);
            rest = after;
        }
        let mut name = WireName::from_labels(labels).ok().filter(|_| rest == [0])?;
        name.set_fqdn(true);
        Some(Self { name, kind: u16::from_be_bytes([*high, *low]).into(), dnssec_ok: *dnssec_ok != 0 })
    }

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

/// To which of so many parts a key belongs. They need not be even, only not one.
pub(super) fn part(key: &[u8], parts: usize) -> usize {
    // FNV-1a.
    let sum = key.iter().fold(0x811c_9dc5_u32, |sum, octet| (sum ^ u32::from(*octet)).wrapping_mul(0x0100_0193));
    sum as usize % parts
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_says_everything() {
        for (name, dnssec_ok) in [("a-b.example.com.", true), (".", false), ("x\\.y.example.", false)] {
            let name = WireName::from_ascii(name).unwrap();
            let lookup = Lookup { name, kind: RecordType::HTTPS, dnssec_ok };
            let again = Lookup::of_key(&lookup.key()).unwrap();
            assert!(again == lookup && again.name.is_fqdn());
        }
        for wrong in [&b"\0\0"[..], b"\0\0\x01", b"\0\0\x01\x02a", b"\0\0\x01\x01a", b"\0\0\x01\x01a\0\0"] {
            assert_eq!(Lookup::of_key(wrong), None, "{wrong:?}");
        }
    }
}
