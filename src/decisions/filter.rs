//! Which records somebody wants to see.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::record::{Action, Record};

/// All that is given must hold. Nothing given: every record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// The host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// A name and what is below it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// What was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// The protocol's word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// A text that the record has somewhere in its JSON, in whatever case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Not older than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<DateTime<Utc>>,
    /// So many at most, the latest ones; absent: [`Filter::USUAL`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

impl Filter {
    /// How many records are given where nobody says.
    pub const USUAL: usize = 100;
    /// How many are given at most.
    pub const MOST: usize = 10_000;

    /// How many records are wanted at most.
    pub fn limit(&self) -> usize {
        self.limit.unwrap_or(Self::USUAL).min(Self::MOST)
    }

    /// Whether the record is wanted, its number aside.
    pub fn wants(&self, record: &Record) -> bool {
        let same = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| found.is_some_and(|found| found.eq_ignore_ascii_case(wanted)))
        };
        self.host.as_ref().is_none_or(|host| record.host.as_deref() == Some(host))
            && same(&self.protocol, record.protocol.as_deref())
            && self.action.is_none_or(|action| action == record.action)
            && self.since.is_none_or(|since| record.time >= since)
            && self.domain.as_ref().is_none_or(|wanted| {
                record.domain.as_deref().is_some_and(|found| is_below(found, wanted.trim_end_matches('.')))
            })
            && self.text.as_ref().is_none_or(|text| {
                let line = String::from_utf8_lossy(&record.line()).to_lowercase();
                line.contains(&text.to_lowercase())
            })
    }
}

fn is_below(name: &str, apex: &str) -> bool {
    let head = name.len().checked_sub(apex.len()).and_then(|at| name.is_char_boundary(at).then(|| name.split_at(at)));
    head.is_some_and(|(head, tail)| tail.eq_ignore_ascii_case(apex) && (head.is_empty() || head.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use super::super::record::Layer;
    use super::*;
    use crate::policy::decision::Reason;

    #[test]
    fn each_field_leaves_out_what_it_should() {
        let time = DateTime::from_timestamp_millis(1_800_000_000_000).unwrap();
        let mut record = Record::new(time, 1, Action::Block, Layer::Dns, Reason::Denied);
        record.host = Some("agent-1".into());
        record.domain = Some("a.gist.github.com".into());
        record.protocol = Some("udp".into());
        record.path = Some("/deny/domains/0".into());
        let of = |text: &str| serde_json::from_str::<Filter>(text).unwrap();
        for (wanted, filter) in [
            (true, "{}"),
            (true, r#"{"host":"agent-1"}"#),
            (false, r#"{"host":"Agent-1"}"#),
            (true, r#"{"domain":"github.com."}"#),
            (true, r#"{"domain":"A.gist.github.com"}"#),
            (false, r#"{"domain":"hub.com"}"#),
            (false, r#"{"domain":"b.a.gist.github.com"}"#),
            (true, r#"{"action":"block"}"#),
            (false, r#"{"action":"allow"}"#),
            (true, r#"{"protocol":"UDP"}"#),
            (false, r#"{"protocol":"tcp"}"#),
            (true, r#"{"text":"/DENY/domains"}"#),
            (false, r#"{"text":"no such thing"}"#),
            (true, r#"{"since":"2027-01-15T08:00:00Z"}"#),
            (false, r#"{"since":"2027-01-15T08:00:01Z"}"#),
            (false, r#"{"host":"agent-1","protocol":"tcp"}"#),
        ] {
            assert_eq!(of(filter).wants(&record), wanted, "{filter}");
        }
        serde_json::from_str::<Filter>(r#"{"hots":"a"}"#).unwrap_err();
        assert_eq!((of("{}").limit(), of(r#"{"limit":99999999}"#).limit()), (Filter::USUAL, Filter::MOST));
    }
}
