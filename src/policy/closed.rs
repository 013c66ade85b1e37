//! What is left of a document that cannot be enforced: whom it is about. Those reach nothing.

use serde_json::{Map, Value, json};

use super::diagnostic::Diagnostic;
use super::model::Policy;
use super::parse::parse;

/// The policy that allows nothing, for the scope and the hosts of `document` as far as they can be told; what cannot be
/// told counts as every forwarded packet, as it does where a policy names no scope.
///
/// # Errors
/// None that a document can cause; a fault of this program's parser.
pub fn closed(document: Option<&str>) -> Result<Policy, Vec<Diagnostic>> {
    let document = document.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let field = |name: &str| document.as_ref().and_then(|document| document.get(name)).cloned();
    let hosts = field("hosts").as_ref().and_then(Value::as_object).map(sources);
    for (scope, hosts) in [(field("scope"), hosts), (field("scope"), None)] {
        let told = [("scope", scope), ("hosts", hosts)].into_iter().filter_map(|(name, part)| Some((name, part?)));
        if let Ok(policy) = parse(&text(told)) {
            return Ok(policy);
        }
    }
    parse(&text([]))
}

/// The hosts without what they may do.
fn sources(hosts: &Map<String, Value>) -> Value {
    let own = |host: &Value| json!({ "sources": host.get("sources").cloned().unwrap_or(Value::Null) });
    hosts.iter().map(|(name, host)| (name.clone(), own(host))).collect::<Map<_, _>>().into()
}

fn text<'n>(parts: impl IntoIterator<Item = (&'n str, Value)>) -> String {
    let mut document = json!({ "version": 1, "allow": { "domains": [], "ips": [], "ports": [] } });
    for (name, part) in parts {
        document[name] = part;
    }
    document.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::normalised;

    const NOTHING: &str = r#"{ "domains": [], "ips": [], "ports": [] }"#;

    fn closed_as(document: Option<&str>) -> Value {
        serde_json::to_value(normalised(&closed(document).unwrap())).unwrap()
    }

    fn expected(rest: Value) -> Value {
        let mut whole = json!({ "version": 1, "allow": serde_json::from_str::<Value>(NOTHING).unwrap() });
        for (name, part) in rest.as_object().unwrap() {
            whole[name] = part.clone();
        }
        whole
    }

    #[test]
    fn whom_it_is_about_stays_and_what_they_may_do_goes() {
        let document = r#"{ "version": 2, "allow": { "ips": ["198.51.100.1"] }, "unheard_of": [],
            "scope": { "sources": ["192.168.10.0/24"] },
            "hosts": { "agent-1": { "sources": ["192.168.10.10/32"], "allow": { "domains": ["example.com"] } } } }"#;
        let scope = json!({ "sources": ["192.168.10.0/24"] });
        let hosts = json!({ "agent-1": { "sources": ["192.168.10.10/32"] } });
        assert_eq!(closed_as(Some(document)), expected(json!({ "scope": scope, "hosts": hosts })));
    }

    #[test]
    fn hosts_that_cannot_be_told_do_not_cost_the_scope() {
        for host in ["{}", "7", r#"{ "sources": ["192.168.10.300"] }"#] {
            let document = format!(r#"{{ "scope": {{ "interfaces": ["lan1"] }}, "hosts": {{ "a": {host} }} }}"#);
            assert_eq!(closed_as(Some(&document)), expected(json!({ "scope": { "interfaces": ["lan1"] } })), "{host}");
        }
    }

    #[test]
    fn a_scope_that_cannot_be_told_is_everybody() {
        let broken = r#"{ "scope": { "sources": ["192.168.10.0/33"] }, "hosts": {} }"#;
        for document in [None, Some("{ \"version\": 1, "), Some("[]"), Some(broken)] {
            assert_eq!(closed_as(document), expected(json!({})), "{document:?}");
        }
    }
}
