//! The JSON Schema of the policy document, for editors and other programs.
//!
//! It tells shape; what takes more than shape (public suffixes, a source in two hosts, time zones) only the reader
//! knows. Written by hand: a schema derived from the types would describe the program, not the format.

use serde_json::{Value, json};

use super::parse::{DAYS, MAX_CAP_BYTES, MAX_EGRESS_KBPS, MAX_LABEL_TEXT};

/// The schema (JSON Schema draft 2020-12) of policy version 1.
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Clawgress policy, version 1",
        "description": "Who may talk to what, when, how fast and how much. What is not allowed is blocked.",
        "type": "object",
        "required": ["version"],
        "additionalProperties": false,
        "properties": {
            "version": { "const": 1, "description": "The version of this format." },
            "mode": reference("mode"),
            "time_zone": {
                "type": "string",
                "description": "IANA name of the zone of all windows and daily caps. Absent: the system's zone.",
                "examples": ["Europe/Berlin", "UTC"],
            },
            "scope": reference("scope"),
            "allow": reference("allow"),
            "deny": reference("deny"),
            "labels": {
                "description": "A word for a domain, repeated in logs and telemetry.",
                "type": "object",
                "propertyNames": reference("domain"),
                "additionalProperties": { "type": "string", "minLength": 1, "maxLength": MAX_LABEL_TEXT },
            },
            "time_window": reference("window"),
            "domain_time_windows": reference("domainWindows"),
            "limits": reference("limits"),
            "hosts": {
                "description": "Named blocks of agents, recognised by their source addresses.",
                "type": "object",
                "propertyNames": { "pattern": "^[A-Za-z0-9._-]{1,63}$" },
                "additionalProperties": reference("host"),
            },
        },
        "$defs": definitions(),
        "examples": [example()],
    })
}

fn definitions() -> Value {
    json!({
        "mode": {
            "description": "enforce blocks; monitor lets pass and records what would have been blocked. Absent: \
                            enforce, or for a host the global mode.",
            "enum": ["enforce", "monitor"],
        },
        "domain": {
            "description": "A name, or *. and a name for every name below it at any depth (not the name itself).",
            "type": "string",
            "minLength": 1,
            "not": { "anyOf": [{ "const": "*" }, { "pattern": "[/:@\\s]|.\\*|^\\*[^.]" }] },
            "examples": ["api.example.com", "*.example.com"],
        },
        "network": {
            "description": "An address, or a network with no bits set behind its prefix.",
            "type": "string",
            "pattern": "^[0-9A-Fa-f.:]+(/[0-9]{1,3})?$",
            "examples": ["192.0.2.7", "192.0.2.0/24", "2001:db8::/32"],
        },
        "domains": { "type": "array", "items": reference("domain") },
        "networks": { "type": "array", "items": reference("network") },
        "domainLists": {
            "description": "Names kept in files.",
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "file", "format"],
                "additionalProperties": false,
                "properties": {
                    "name": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,63}$" },
                    "file": { "type": "string", "pattern": "^/", "description": "Absolute path." },
                    "format": { "enum": ["domains", "hosts", "rpz", "adblock"] },
                },
            },
        },
        "scope": {
            "description": "The traffic that the policy is about; all else is never filtered, logged or slowed. Both \
                            fields given: a packet must satisfy both. Absent: every forwarded packet.",
            "type": "object",
            "minProperties": 1,
            "additionalProperties": false,
            "properties": {
                "sources": { "type": "array", "minItems": 1, "items": reference("network") },
                "interfaces": {
                    "description": "Interfaces by which the agents' packets enter.",
                    "type": "array",
                    "minItems": 1,
                    "items": { "type": "string", "pattern": "^[!#-)+-.0-9;-\\[\\]-~]{1,15}$" },
                },
            },
        },
        "allow": {
            "description": "What may be reached. A host's fields replace the global ones one by one: an absent field \
                            is inherited, an empty list means none.",
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "domains": reference("domains"),
                "ips": reference("networks"),
                "ports": {
                    "description": "Destination ports of TCP and UDP. Absent: 53, 80 and 443.",
                    "type": "array",
                    "items": { "type": "integer", "minimum": 1, "maximum": u16::MAX },
                },
                "domain_lists": reference("domainLists"),
            },
        },
        "deny": {
            "description": "What may never be reached; wins over every allow. A host's denylists add to the global ones.",
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "domains": reference("domains"),
                "ips": reference("networks"),
                "domain_lists": reference("domainLists"),
            },
        },
        "time": { "type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?$" },
        "window": {
            "description": "Open on these days from start to end; closed outside. start later than end crosses \
                            midnight and belongs to the day it starts on.",
            "type": "object",
            "minProperties": 1,
            "additionalProperties": false,
            "dependentRequired": { "start": ["end"], "end": ["start"] },
            "properties": {
                "days": {
                    "description": "Absent: every day. Upper case is accepted.",
                    "type": "array",
                    "minItems": 1,
                    "items": { "type": "string", "pattern": day_pattern() },
                },
                "start": reference("time"),
                "end": reference("time"),
            },
        },
        "domainWindows": {
            "description": "Windows of single domains; the host's (or global) window must be open as well.",
            "type": "object",
            "propertyNames": reference("domain"),
            "additionalProperties": reference("window"),
        },
        "limits": {
            "type": "object",
            "additionalProperties": false,
            "properties": {
                "egress_kbps": {
                    "description": "Rate limit of egress in kilobits (1000 bits) per second.",
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_EGRESS_KBPS,
                },
            },
        },
        "cap": {
            "description": "Upload bytes from this host to this domain per period; periods are aligned to the clock.",
            "type": "object",
            "required": ["bytes", "period"],
            "additionalProperties": false,
            "properties": {
                "bytes": { "type": "integer", "minimum": 1, "maximum": MAX_CAP_BYTES },
                "period": { "enum": ["second", "minute", "hour", "day"] },
            },
        },
        "host": {
            "type": "object",
            "required": ["sources"],
            "additionalProperties": false,
            "properties": {
                "sources": {
                    "description": "The agents' addresses. The most specific network of all hosts wins; no network \
                                    stands in two hosts.",
                    "type": "array",
                    "minItems": 1,
                    "items": reference("network"),
                },
                "allow": reference("allow"),
                "deny": reference("deny"),
                "mode": reference("mode"),
                "time_window": reference("window"),
                "domain_time_windows": reference("domainWindows"),
                "limits": reference("limits"),
                "exfil": {
                    "type": "object",
                    "additionalProperties": false,
                    "properties": {
                        "domains": {
                            "type": "object",
                            "propertyNames": reference("domain"),
                            "additionalProperties": reference("cap"),
                        },
                    },
                },
            },
        },
    })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/$defs/{name}") })
}

/// The days in any mix of cases: JSON Schema has no flag for that.
fn day_pattern() -> String {
    let day = |name: &str| -> String {
        name.chars().map(|letter| format!("[{}{letter}]", letter.to_ascii_uppercase())).collect()
    };
    format!("^({})$", DAYS.map(day).join("|"))
}

/// A policy that uses every field of the seed's format.
fn example() -> Value {
    json!({
        "version": 1,
        "allow": {
            "domains": ["api.openai.com", "api.anthropic.com"],
            "ips": ["1.2.3.0/24"],
            "ports": [53, 80, 443],
        },
        "labels": { "api.openai.com": "llm-provider", "api.anthropic.com": "llm-provider" },
        "time_window": { "days": ["mon", "tue"], "start": "09:00", "end": "17:00" },
        "domain_time_windows": { "api.openai.com": { "days": ["fri"], "start": "10:00", "end": "11:00" } },
        "limits": { "egress_kbps": 8000 },
        "hosts": {
            "agent-1": {
                "sources": ["192.168.10.10/32"],
                "allow": { "domains": ["api.openai.com"], "ports": [443] },
                "time_window": { "days": ["mon"], "start": "08:00", "end": "18:00" },
                "domain_time_windows": { "api.openai.com": { "days": ["fri"], "start": "10:00", "end": "11:00" } },
                "exfil": { "domains": { "api.openai.com": { "bytes": 1_048_576, "period": "hour" } } },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{normalised, parse};

    #[test]
    fn the_committed_copy_is_this_schema() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/policy.schema.json");
        let now = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(file, &now).unwrap();
        }
        assert!(std::fs::read_to_string(file).unwrap_or_default() == now, "UPDATE_GOLDEN=1 rewrites {file}");
    }

    #[test]
    fn the_example_is_a_policy_in_normal_form() {
        assert_eq!(normalised(&parse(&example().to_string()).unwrap()), example());
    }
}
