//! One decision as it is kept and shown (SPEC section 3).

use std::net::IpAddr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::policy::decision::Reason;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It passed.
    Allow,
    /// It was refused.
    Block,
    /// It passed, and would have been refused if the policy were enforced.
    Monitor,
}

impl Action {
    /// The word used in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Block => "block",
            Self::Monitor => "monitor",
        }
    }
}

/// Where it was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// On a query.
    Dns,
    /// On a packet.
    Packet,
    /// On the name that a connection asks for.
    Name,
}

impl Layer {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Packet => "packet",
            Self::Name => "name",
        }
    }
}

/// A decision record: one object a line in `log --json` and in the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "A decision record.")]
pub struct Record {
    /// When, to the millisecond; of several the last.
    #[serde(with = "milliseconds")]
    #[schemars(with = "DateTime<Utc>")]
    pub time: DateTime<Utc>,
    /// Its number; later records have higher ones.
    pub id: u64,
    /// The revision that was in force.
    pub revision: u64,
    /// What was done.
    pub action: Action,
    /// Where.
    pub layer: Layer,
    /// Why.
    pub reason: Reason,
    /// Whose traffic; `None`: a source that belongs to no host.
    pub host: Option<Arc<str>>,
    /// The agent's address; `None`: several, or not known.
    pub source: Option<IpAddr>,
    /// The name asked for, or the one for which the host was given the address, now or earlier.
    pub domain: Option<Arc<str>>,
    /// The other end; in a record about a name the address that gave the reason.
    pub address: Option<IpAddr>,
    /// The port that the flow was opened to.
    pub port: Option<u16>,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, else the IANA number.
    pub protocol: Option<Arc<str>>,
    /// The policy's label of the name.
    pub label: Option<Arc<str>>,
    /// The line of the policy that decided, as a JSON Pointer (RFC 6901).
    pub path: Option<Arc<str>>,
    /// How many more decisions of the same kind this record stands for. A record without a source stands for decisions
    /// of which only the number is known, or that went to too many places to list.
    pub suppressed: u64,
}

impl Record {
    /// A record with nothing but what every record has.
    pub fn new(time: DateTime<Utc>, revision: u64, action: Action, layer: Layer, reason: Reason) -> Self {
        Self {
            time,
            id: 0,
            revision,
            action,
            layer,
            reason,
            host: None,
            source: None,
            domain: None,
            address: None,
            port: None,
            protocol: None,
            label: None,
            path: None,
            suppressed: 0,
        }
    }

    /// The record as a line of JSON, with its end.
    pub fn line(&self) -> Vec<u8> {
        // Strings, numbers and addresses can always be written.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// RFC 3339 with three digits: the same width in every line.
mod milliseconds {
    use chrono::{DateTime, SecondsFormat, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
        DateTime::<Utc>::deserialize(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_the_object_of_the_contract() {
        let time = DateTime::from_timestamp_millis(1_800_000_000_005).unwrap();
        let mut record = Record::new(time, 7, Action::Block, Layer::Packet, Reason::PortNotAllowed);
        record.host = Some("agent-1".into());
        record.source = Some("192.168.10.10".parse().unwrap());
        record.port = Some(25);
        let line = String::from_utf8(record.line()).unwrap();
        assert_eq!(
            line,
            "{\"time\":\"2027-01-15T08:00:00.005Z\",\"id\":0,\"revision\":7,\"action\":\"block\",\"layer\":\"packet\",\
             \"reason\":\"port-not-allowed\",\"host\":\"agent-1\",\"source\":\"192.168.10.10\",\"domain\":null,\
             \"address\":null,\"port\":25,\"protocol\":null,\"label\":null,\"path\":null,\"suppressed\":0}\n"
        );
        assert_eq!(serde_json::from_str::<Record>(&line).unwrap(), record);
    }
}
