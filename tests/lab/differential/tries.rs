//! The cases: a question, a flow of an agent, a flow from outside.

use std::net::IpAddr;
use std::time::Duration;

use clawgress::core::explain::Explanation;
use clawgress::daemon::protocol::{Explain, Transport};
use clawgress::policy::decision::{Decision, Verdict};
use clawgress::policy::reference::{self, Flow, Protocol};
use hickory_proto::rr::RecordType;

use super::Trial;
use super::book::Answer;
use super::universe::{ELSEWHERE, Entry, OPEN, ZONE, name};
use crate::world::{self, Agent, FOREIGN, Outcome, Over, Reply};

/// How long a caller from outside waits; silence is what a refused answer looks like from there.
const CALLER: Duration = Duration::from_millis(250);
/// ESP: nobody in the lab speaks it. The kernel's reject answers no packet whose checksum it takes for wrong, and this
/// is a protocol that has none.
const STRANGE: u8 = 50;
impl Trial {
    fn somebody(&mut self) -> (usize, IpAddr, &'static str, bool) {
        let (number, v4) = (usize::try_from(self.random.below(3)).unwrap_or(0), self.random.chance(55));
        let (agent, interface) = self.agent(number);
        (number, if v4 { agent.v4 } else { agent.v6 }, interface, v4)
    }

    /// A question to the gateway.
    pub fn ask(&mut self) {
        let (number, source, interface, v4) = self.somebody();
        let entry = &ZONE[usize::try_from(self.random.below(ZONE.len() as u64)).unwrap_or(0)];
        let wants_v4 = if self.random.chance(80) { v4 } else { !v4 };
        let over = if self.random.chance(80) { Over::Udp } else { Over::Tcp };
        let (agent, _) = self.agent(number);
        let router = if v4 { agent.router4 } else { agent.router6 };
        let case = format!("{source} asks {router} for {} over {over:?}, IPv4 {wants_v4}", entry.name);
        let reply = dig(agent, entry, wants_v4, router, over);
        let due = self.book.ask(&self.policy, source, interface, entry, wants_v4);
        self.must_answer(&due, reply, &case);
        self.learn_link(source, entry);
        self.query_must_be_recorded(&due, source, entry, &case);

        // `explain` speaks of the name; what its answer leads to is another question.
        let asked = name(entry.name);
        let question = Explain { domain: Some(asked.to_string()), ..plain(source) };
        let told = self.explain(question);
        let (source, interface) = (source, self.assumed(interface));
        let host = reference::host_of(&self.policy, source);
        let decision = reference::decide_scope(&self.policy, source, &interface)
            .unwrap_or_else(|| reference::decide_name(&self.policy, host, Some(&asked)));
        self.must_explain(&decision, &told, &case);
        let word = match &due {
            Answer::OutOfScope => "out-of-scope",
            Answer::Blocked(reason) => reason.as_str(),
            Answer::Addresses(list) if list.is_empty() => "no addresses",
            Answer::Addresses(_) => "addresses",
        };
        self.agreed("answer", word);
        if let Answer::Addresses(list) = due
            && self.random.chance(50)
        {
            for address in list {
                // At once, at another port, and by somebody who may never have asked.
                self.send_to(number, address, Protocol::Tcp(443));
                self.send_to(number, address, Protocol::Udp(8443));
                self.send_to((number + 1) % 3, address, Protocol::Udp(443));
            }
        }
    }

    fn must_answer(&self, due: &Answer, reply: Result<Reply, Outcome>, case: &str) {
        let context = || self.context(case);
        let reply = reply.unwrap_or_else(|outcome| panic!("no answer but {outcome}\n{}", context()));
        let (code, ede) = (reply.code(), reply.ede());
        match due {
            Answer::OutOfScope => {
                let right = matches!(&ede, Some((18, text)) if text.starts_with("out-of-scope"));
                assert!(code == "REFUSED" && right, "should be refused: {code} {ede:?}\n{}", context());
            }
            Answer::Blocked(reason) => {
                let word = format!("{}: ", reason.as_str());
                let right = matches!(&ede, Some((15, text)) if text.starts_with(&word));
                assert!(code == "NXDOMAIN" && right, "should be {reason:?}: {code} {ede:?}\n{}", context());
            }
            Answer::Addresses(addresses) => {
                assert_eq!((&reply.addresses(), ede, code.as_str()), (addresses, None, "NOERROR"), "{}", context());
            }
        }
    }

    /// The interface that `explain` assumes, since nobody can tell it: one that the policy is about.
    fn assumed(&self, interface: &'static str) -> String {
        match &self.policy.scope.interfaces {
            Some(list) if !list.entries.iter().any(|name| name == interface) => list.entries[0].clone(),
            _ => interface.to_owned(),
        }
    }

    fn must_explain(&self, due: &Decision, told: &Explanation, case: &str) {
        let path = due.path.as_ref().map(ToString::to_string);
        let host = due.host.as_ref().map(ToString::to_string);
        assert_eq!(
            (due.verdict, due.reason, path.as_deref(), host.as_deref()),
            (told.verdict, told.reason, told.path.as_deref(), told.host.as_deref()),
            "explain: {}\n{}",
            told.detail,
            self.context(case)
        );
    }

    /// What `explain` should say about a flow, and what it says.
    fn explain_flow(&mut self, flow: &Flow<'static>, case: &str) {
        let (protocol, port) = match flow.protocol {
            Protocol::Tcp(port) => (Some(Transport::Tcp), Some(port)),
            Protocol::Udp(port) => (Some(Transport::Udp), Some(port)),
            // Without a port it is asked about the address, which is what echo is about.
            Protocol::Echo => (None, None),
            Protocol::Other(_) => return,
        };
        let told = self.explain(Explain { ip: Some(flow.destination), port, protocol, ..plain(flow.source) });
        let interface = self.assumed(flow.interface);
        let assumed = Flow { interface: &interface, ..flow.clone() };
        let due = reference::decide_flow(&self.policy, &assumed, &self.book.leases());
        self.must_explain(&due, &told, case);
    }

    /// A flow of an agent to somewhere.
    pub fn send(&mut self) {
        let (number, source, interface, v4) = self.somebody();
        let protocol = match self.random.below(20) {
            0..=8 => Protocol::Tcp(self.port()),
            9..=14 => Protocol::Udp(self.port()),
            15 | 16 => Protocol::Echo,
            17 | 18 => return self.send_to_a_resolver(number, source, interface, v4),
            _ => Protocol::Other(STRANGE),
        };
        let told: Vec<IpAddr> = self.book.told.iter().map(|told| told.address).collect();
        let destination = if self.random.chance(8) {
            let other = self.agent((number + 1) % 3).0;
            if v4 { other.v4 } else { other.v6 }
        } else {
            self.random.lab_destination(v4, &told)
        };
        self.send_to(number, destination, protocol);
    }

    /// Most often one that everybody may use.
    fn port(&mut self) -> u16 {
        if self.random.chance(50) { 443 } else { self.random.pick(&OPEN) }
    }

    /// A flow of this agent.
    fn send_to(&mut self, number: usize, destination: IpAddr, protocol: Protocol) {
        let (agent, interface) = self.agent(number);
        let source = if destination.is_ipv4() { agent.v4 } else { agent.v6 };
        let flow = Flow { source, interface, destination, protocol };
        let case = format!("{flow:?}");
        let decision = self.expect(&flow);
        let (agent, _) = self.agent(number);
        let outcome = attempt(agent, &flow);
        self.must_meet(&decision, &flow, &outcome, &case);
        self.flow_must_be_recorded(&decision, &flow, &case);
        self.explain_flow(&flow, &case);
        self.agreed("flow", decision.reason.as_str());
        self.keep_open(flow, &decision);
    }

    /// The reference on a flow, whichever end of it the policy is about.
    fn expect(&self, flow: &Flow<'static>) -> Decision {
        let receiver =
            self.agents().iter().find(|(agent, _)| [agent.v4, agent.v6].contains(&flow.destination)).copied();
        let opener_in = reference::in_scope(&self.policy, flow.source, flow.interface);
        match receiver {
            Some((_, lan)) if !opener_in && reference::in_scope(&self.policy, flow.destination, lan) => {
                reference::decide_answer(&self.policy, flow)
            }
            _ => reference::decide_flow(&self.policy, flow, &self.book.leases()),
        }
    }

    fn must_meet(&self, decision: &Decision, flow: &Flow<'static>, outcome: &Outcome, case: &str) {
        let answers_only = !reference::in_scope(&self.policy, flow.source, flow.interface);
        let (tcp, strange) = (matches!(flow.protocol, Protocol::Tcp(_)), matches!(flow.protocol, Protocol::Other(_)));
        let right = match decision.verdict {
            // Nobody speaks it, and says so.
            Verdict::Allow | Verdict::OutOfScope if strange => {
                matches!(outcome, Outcome::Unreachable { kind: world::Kind::Icmp { .. }, .. })
            }
            Verdict::Allow | Verdict::OutOfScope => outcome.reached(),
            // The refusal goes to the agent that answers, not to whoever called it.
            Verdict::Block if answers_only => !outcome.reached(),
            Verdict::Block if tcp => matches!(outcome, Outcome::Refused { .. }),
            Verdict::Block => matches!(outcome, Outcome::Unreachable { kind: world::Kind::AdminProhibited, .. }),
        };
        assert!(right, "{outcome}, but the reference says {decision:?}\n{}", self.context(case));
    }

    /// Port 53 of somebody else's resolver: ours answers in scope, theirs out of it.
    fn send_to_a_resolver(&mut self, number: usize, source: IpAddr, interface: &'static str, v4: bool) {
        let server: IpAddr = FOREIGN[usize::from(!v4)].parse().expect("an address");
        let entry = &ZONE[usize::try_from(self.random.below(ZONE.len() as u64)).unwrap_or(0)];
        let (over, protocol) =
            if self.random.chance(50) { (Over::Udp, Protocol::Udp(53)) } else { (Over::Tcp, Protocol::Tcp(53)) };
        let case = format!("{source} asks {server} for {} over {over:?}", entry.name);
        let reply = dig(self.agent(number).0, entry, v4, server, over);
        let due = self.book.ask(&self.policy, source, interface, entry, v4);
        let word = if due == Answer::OutOfScope {
            let theirs: IpAddr = ELSEWHERE[usize::from(!v4)].parse().expect("an address");
            let reply = reply.unwrap_or_else(|outcome| panic!("no answer but {outcome}\n{}", self.context(&case)));
            assert_eq!(reply.addresses(), [theirs], "{}", self.context(&case));
            "untouched"
        } else {
            self.must_answer(&due, reply, &case);
            self.learn_link(source, entry);
            self.query_must_be_recorded(&due, source, entry, &case);
            "answered by us"
        };
        self.explain_flow(&Flow { source, interface, destination: server, protocol }, &case);
        self.agreed("port 53", word);
    }

    /// Somebody outside opens a flow to an agent.
    pub fn be_called(&mut self) {
        let (_, destination, _, v4) = self.somebody();
        let peer = &self.world.internet.peer;
        let source = if v4 { peer.v4 } else { peer.v6 };
        let protocol = if self.random.chance(85) { Protocol::Tcp(self.port()) } else { Protocol::Echo };
        let flow = Flow { source, interface: "wan", destination, protocol };
        let case = format!("called: {flow:?}");
        let decision = self.expect(&flow);
        let outcome = attempt(&self.world.internet.peer, &flow);
        self.must_meet(&decision, &flow, &outcome, &case);
        self.flow_must_be_recorded(&decision, &flow, &case);
        let word = match decision.verdict {
            Verdict::Allow => "allowed",
            Verdict::Block => "refused",
            Verdict::OutOfScope => "out-of-scope",
        };
        self.agreed("called", word);
    }

    /// The same question through the tool, as a person asks it.
    pub fn ask_the_tool(&mut self) {
        let (_, source, interface, v4) = self.somebody();
        let destination = self.random.lab_destination(v4, &[]);
        let interface = self.assumed(interface);
        let flow = Flow { source, interface: &interface, destination, protocol: Protocol::Udp(443) };
        let due = reference::decide_flow(&self.policy, &flow, &self.book.leases());
        let arguments = ["--ip", &destination.to_string(), "--port", "443", "--protocol", "udp"];
        let told = self.world.gateway.explain(source, &arguments);
        let case = format!("the tool: {flow:?}: {told}");
        let told: Explanation = serde_json::from_value(told).expect("an explanation");
        self.must_explain(&due, &told, &case);
        self.agreed("tool", due.reason.as_str());
    }
}

fn plain(source: IpAddr) -> Explain {
    Explain { source, domain: None, ip: None, port: None, protocol: None, at: None }
}

fn dig(agent: &Agent, entry: &Entry, v4: bool, server: IpAddr, over: Over) -> Result<Reply, Outcome> {
    agent.dig(entry.name, if v4 { RecordType::A } else { RecordType::AAAA }, server, over)
}

fn attempt(agent: &Agent, flow: &Flow<'_>) -> Outcome {
    match flow.protocol {
        Protocol::Tcp(port) if flow.interface == "wan" => agent.tcp_within(flow.destination, port, CALLER),
        Protocol::Tcp(port) => agent.tcp(flow.destination, port),
        Protocol::Udp(port) => agent.udp(flow.destination, port),
        Protocol::Echo => agent.ping(flow.destination),
        Protocol::Other(number) => agent.raw(number, flow.destination, &[0; 16]),
    }
}
