//! The decision log says of each refusal what the reference says.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use clawgress::daemon::protocol::{Logged, Request};
use clawgress::decisions::{Action, Filter, Layer, Record};
use clawgress::policy::decision::{Decision, Reason, Verdict};
use clawgress::policy::reference::{self, Flow, Protocol};

use super::Trial;
use super::book::Answer;
use super::universe::{Entry, name};

/// How long a record may take here, where three processors' worth of programs share two.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the daemon is asked.
const PAUSE: Duration = Duration::from_millis(5);
/// As many records as one refusal can be hidden among.
const SEARCHED: usize = 500;

impl Trial {
    /// A query that was refused.
    pub fn query_must_be_recorded(&mut self, due: &Answer, source: IpAddr, entry: &Entry, case: &str) {
        let Answer::Blocked(reason) = due else { return };
        let host = reference::host_of(&self.policy, source).map(ToString::to_string);
        let named =
            reference::decide_name(&self.policy, reference::host_of(&self.policy, source), Some(&name(entry.name)));
        let path = (named.verdict == Verdict::Block).then(|| named.path.map(|path| path.to_string()));
        let domain = name(entry.name).to_string();
        self.must_be_recorded(Layer::Dns, *reason, case, |record| {
            record.domain.as_deref() == Some(&domain)
                && record.host.as_deref() == host.as_deref()
                && (host.is_some() || record.source == Some(source))
                && path.as_ref().is_none_or(|path| record.path.as_deref() == path.as_deref())
        });
    }

    /// A flow that was refused, whichever end of it the policy is about.
    pub fn flow_must_be_recorded(&mut self, decision: &Decision, flow: &Flow<'static>, case: &str) {
        if decision.verdict != Verdict::Block {
            return;
        }
        let answers = !reference::in_scope(&self.policy, flow.source, flow.interface);
        if answers && !matches!(flow.protocol, Protocol::Tcp(_) | Protocol::Echo) {
            // Nobody serves it on an agent, which answers with an ICMP error: that is the packet that is refused.
            return;
        }
        let (agent, peer) = if answers { (flow.destination, flow.source) } else { (flow.source, flow.destination) };
        let (word, port) = match flow.protocol {
            Protocol::Tcp(port) => ("tcp".to_owned(), Some(port)),
            Protocol::Udp(port) => ("udp".to_owned(), Some(port)),
            Protocol::Echo if agent.is_ipv4() => ("icmp".to_owned(), None),
            Protocol::Echo => ("icmpv6".to_owned(), None),
            Protocol::Other(number) => (number.to_string(), None),
        };
        let (path, host) =
            (decision.path.as_ref().map(ToString::to_string), decision.host.as_ref().map(ToString::to_string));
        self.must_be_recorded(Layer::Packet, decision.reason, case, |record| {
            (record.address, record.port, record.protocol.as_deref()) == (Some(peer), port, Some(&word))
                && (record.path.as_deref(), record.host.as_deref()) == (path.as_deref(), host.as_deref())
                && (host.is_some() || record.source == Some(agent))
        });
    }

    /// Waits for the record of this policy; of what is alike the first has one.
    fn must_be_recorded(&mut self, layer: Layer, reason: Reason, case: &str, is: impl Fn(&Record) -> bool) {
        let filter =
            Filter { action: Some(Action::Block), since: Some(self.since), limit: Some(SEARCHED), ..Filter::default() };
        let end = Instant::now() + PATIENCE;
        loop {
            let request = Request::Log { follow: false, filter: filter.clone() };
            let answer = self.daemon.ask(request).expect("the daemon answers");
            let Logged { records, .. } = answer.data().expect("records");
            let of_this_policy = |record: &Record| record.layer == layer && record.revision == self.revision;
            if records.iter().any(|record| of_this_policy(record) && record.reason == reason && is(record)) {
                return self.agreed_record(reason);
            }
            if Instant::now() > end {
                let near: String = records
                    .iter()
                    .filter(|record| record.layer == layer)
                    .rev()
                    .take(8)
                    .map(|record| format!("{record:?}\n"))
                    .collect();
                panic!(
                    "no record of {layer:?} says {reason:?} under revision {}:\n{near}{}",
                    self.revision,
                    self.context(case)
                );
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn agreed_record(&mut self, reason: Reason) {
        *self.seen.entry(format!("record: {}", reason.as_str())).or_default() += 1;
    }
}
