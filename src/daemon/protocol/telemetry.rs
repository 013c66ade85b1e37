//! What `telemetry` is asked.

use serde::{Deserialize, Serialize};

use crate::core::telemetry::{View, Window};

/// Which part of the telemetry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// The view; absent: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewWord>,
    /// The agent or domain, where the view is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Absent: the last hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// An export with source addresses.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_redact: bool,
}

/// A view of the telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ViewWord {
    /// The agents.
    Agents,
    /// The domains.
    Domains,
    /// One agent.
    Agent,
    /// One domain.
    Domain,
    /// What was refused.
    Denies,
    /// All of it for other programs.
    Export,
}

impl Telemetry {
    /// What is asked for.
    ///
    /// # Errors
    /// The target is missing, or there is one that the view does not have.
    pub fn view(&self) -> Result<View, &'static str> {
        let Self { view, target, no_redact, .. } = self.clone();
        let view = match (view, target) {
            (Some(ViewWord::Agent), Some(name)) => View::Agent(name),
            (Some(ViewWord::Domain), Some(name)) => {
                // As queries are counted: in lower case, without the dot at the end. What is no name is no domain here.
                View::Domain(crate::policy::domain::name(&name).map_or(name, |name| name.as_str().to_owned()))
            }
            (Some(ViewWord::Agent), None) => return Err("say which agent: target is missing"),
            (Some(ViewWord::Domain), None) => return Err("say which domain: target is missing"),
            (_, Some(_)) => return Err("only the views agent and domain have a target"),
            (None, None) => View::All,
            (Some(ViewWord::Agents), None) => View::Agents,
            (Some(ViewWord::Domains), None) => View::Domains,
            (Some(ViewWord::Denies), None) => View::Denies,
            (Some(ViewWord::Export), None) => View::Export { redact: !no_redact },
        };
        if no_redact && !matches!(view, View::Export { .. }) {
            return Err("only an export can be without redaction");
        }
        Ok(view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(view: Option<ViewWord>, target: Option<&str>, no_redact: bool) -> Result<View, &'static str> {
        Telemetry { view, target: target.map(str::to_owned), window: None, no_redact }.view()
    }

    #[test]
    fn a_view_has_its_target_and_no_other_has_one() {
        assert_eq!(asked(None, None, false), Ok(View::All));
        assert_eq!(asked(Some(ViewWord::Export), None, false), Ok(View::Export { redact: true }));
        assert_eq!(asked(Some(ViewWord::Export), None, true), Ok(View::Export { redact: false }));
        assert_eq!(
            asked(Some(ViewWord::Domain), Some("API.Example.com."), false),
            Ok(View::Domain("api.example.com".into()))
        );
        assert_eq!(asked(Some(ViewWord::Domain), Some("(allow.ips)"), false), Ok(View::Domain("(allow.ips)".into())));
        assert_eq!(asked(Some(ViewWord::Agent), Some("*"), false), Ok(View::Agent("*".into())));
        asked(Some(ViewWord::Agent), None, false).unwrap_err();
        asked(Some(ViewWord::Denies), Some("x"), false).unwrap_err();
        asked(None, Some("x"), false).unwrap_err();
        asked(Some(ViewWord::Agents), None, true).unwrap_err();
    }
}
