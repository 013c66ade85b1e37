//! A policy written as a table, and a kernel that does what it is told.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::core::judge::{AddressVerdict, Judge};
use crate::core::lease::{Acked, Done, HostId, LeaseError, LeaseRequest, Leaser, Wanted};
use crate::policy::decision::{Decision, Reason, Verdict};
use crate::policy::model::{HostName, Mode, Pointer};
use crate::policy::name::{Name, Pattern};

pub fn name(text: &str) -> Name {
    Name::from_wire_labels(text.split('.').map(str::as_bytes)).unwrap()
}

pub fn pattern(text: &str) -> Pattern {
    match text.strip_prefix("*.") {
        Some(apex) => Pattern::Below(name(apex)),
        None => Pattern::Exact(name(text)),
    }
}

/// A name on which the judge stumbles.
pub const FAULT: &str = "fault.example";

/// Sources in 127/8 are agent-1, but 127.0.0.66 is agent-2 and 127.9/16 is out of scope.
#[derive(Clone)]
pub struct Table {
    pub revision: u64,
    pub allow: Vec<&'static str>,
    pub deny: Vec<&'static str>,
    pub open: Vec<IpAddr>,
    pub denied: Vec<IpAddr>,
    pub mode: Mode,
    /// The interfaces that clients were seen on.
    pub seen: Arc<Mutex<Vec<Option<String>>>>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            revision: 1,
            allow: vec!["allowed.example", "*.wild.example"],
            deny: vec![],
            open: vec![],
            denied: vec![],
            mode: Mode::Enforce,
            seen: Arc::default(),
        }
    }
}

impl Table {
    fn verdict(&self, host: HostId, verdict: Verdict, reason: Reason, path: &str) -> Decision {
        Decision {
            verdict,
            reason,
            path: Some(Pointer(Arc::from(path))),
            host: Some(HostName(Arc::from(format!("agent-{}", host.0 - 1)))),
            domain: None,
            mode: self.mode,
        }
    }

    fn denial(&self, host: HostId, name: &Name) -> Option<Decision> {
        let line = self.deny.iter().position(|line| pattern(line).matches(name))?;
        Some(self.verdict(host, Verdict::Block, Reason::Denied, &format!("/deny/domains/{line}")))
    }
}

impl Judge for Table {
    fn revision(&self) -> u64 {
        self.revision
    }

    fn client(&self, source: IpAddr, interface: Option<&str>) -> Option<HostId> {
        self.seen.lock().unwrap().push(interface.map(str::to_owned));
        match source {
            IpAddr::V4(v4) if v4.octets()[1] == 9 => None,
            IpAddr::V4(v4) if v4.octets() == [127, 0, 0, 66] => Some(HostId(3)),
            _ => Some(HostId(2)),
        }
    }

    fn decide_name(&self, host: HostId, name: Option<&Name>, _now: chrono::DateTime<chrono::Utc>) -> Decision {
        let path = format!("/hosts/agent-{}/allow/domains", host.0 - 1);
        let Some(name) = name else { return self.verdict(host, Verdict::Block, Reason::NotAllowlisted, &path) };
        assert_ne!(name.as_str(), FAULT, "a fault that a test has asked for");
        if let Some(denied) = self.denial(host, name) {
            return denied;
        }
        match self.allow.iter().position(|line| pattern(line).matches(name)) {
            Some(line) => Decision {
                domain: Some(pattern(self.allow[line])),
                ..self.verdict(host, Verdict::Allow, Reason::Allowed, &format!("{path}/{line}"))
            },
            None => self.verdict(host, Verdict::Block, Reason::NotAllowlisted, &path),
        }
    }

    fn denied_link(&self, host: HostId, name: &Name) -> Option<Decision> {
        self.denial(host, name)
    }

    fn judge_address(&self, host: HostId, address: IpAddr) -> AddressVerdict {
        if self.denied.contains(&address) {
            return AddressVerdict::Denied(self.verdict(host, Verdict::Block, Reason::Denied, "/deny/ips/0"));
        }
        if self.open.contains(&address) {
            return AddressVerdict::Open;
        }
        let inside = match address {
            IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
            IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
        };
        if inside { AddressVerdict::Rebinding } else { AddressVerdict::Lease }
    }
}

/// A kernel that remembers what it was asked for.
#[derive(Default)]
pub struct Kernel {
    pub requests: Mutex<Vec<LeaseRequest>>,
    /// Answers in turn; when there are none left: yes.
    pub answers: Mutex<VecDeque<LeaseError>>,
    pub delay: Mutex<Duration>,
    /// What it says without being asked: that it holds everything.
    pub holds: AtomicBool,
    /// Runs when a request comes, before its answer.
    pub on_request: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Kernel {
    pub fn refuse(&self, errors: impl IntoIterator<Item = LeaseError>) {
        self.answers.lock().unwrap().extend(errors);
    }

    pub fn asked(&self) -> Vec<LeaseRequest> {
        self.requests.lock().unwrap().clone()
    }
}

impl Leaser for Kernel {
    async fn lease(&self, request: LeaseRequest) -> Result<Acked, LeaseError> {
        self.requests.lock().unwrap().push(request);
        if let Some(run) = &*self.on_request.lock().unwrap() {
            run();
        }
        let delay = *self.delay.lock().unwrap();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match self.answers.lock().unwrap().pop_front() {
            Some(error) => Err(error),
            None => Ok(Acked::by_kernel()),
        }
    }

    fn lease_all(self: &Arc<Self>, requests: Vec<LeaseRequest>, done: Done) {
        let kernel = Arc::clone(self);
        tokio::spawn(async move {
            let mut results = Vec::new();
            for request in requests {
                results.push(kernel.lease(request).await);
            }
            done(results);
        });
    }

    fn held(&self, _wanted: &Wanted<'_>) -> Option<Acked> {
        self.holds.load(Ordering::Relaxed).then(Acked::by_kernel)
    }
}
