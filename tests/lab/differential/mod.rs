//! One decision in the real world: packets, DNS answers, the running daemon's `explain` and its decision log against the
//! reference, on random policies, flows and questions, over many changes of the policy with leases and flows that live on.
//!
//! `CASES` says how many (1000), `SEED` which. The interface that a packet comes in by cannot be told to `explain`; it
//! answers for one that the policy is about, and is held to that.

mod book;
mod live;
#[allow(dead_code, reason = "the universe here is the lab's")]
#[path = "../../differential/random.rs"]
mod random;
mod record;
mod tries;
mod universe;

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use clawgress::cli::client::Client;
use clawgress::core::explain::Explanation;
use clawgress::daemon::protocol::{Applied, Explain, Request, Status};
use clawgress::policy::model::Policy;
use clawgress::policy::normalised;

use book::Book;
use random::Random;

use crate::world::{Agent, World};

/// Questions and flows that must agree where nothing else is said.
const CASES: u64 = 1000;
/// The seed where nothing else is said.
const SEED: u64 = 20_261_120;
/// Every so many policies the tool is used in place of its protocol.
const BY_TOOL: u64 = 10;
/// Every so many policies the daemon is killed and started again.
const KILLED: u64 = 8;

fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn revision(daemon: &mut Client) -> u64 {
    let answer = daemon.ask(Request::Status {}).expect("the daemon answers");
    answer.data::<Status>().expect("a status").revision.expect("a policy is in force")
}

/// The lab under a random policy, with what its agents were told and have open.
struct Trial {
    world: World,
    daemon: Client,
    random: Random,
    seed: u64,
    policy: Policy,
    /// The number of that policy, and when it was put in force.
    revision: u64,
    since: DateTime<Utc>,
    book: Book,
    live: Vec<live::Live>,
    cases: u64,
    /// What was compared, by kind and reason, and how often.
    seen: BTreeMap<String, u64>,
}

impl Trial {
    /// One case agreed.
    fn agreed(&mut self, kind: &str, reason: &str) {
        self.cases += 1;
        *self.seen.entry(format!("{kind}: {reason}")).or_default() += 1;
    }

    /// What one needs to see the same again.
    fn context(&self, case: &str) -> String {
        format!(
            "SEED={} case {}: {case}\ntold {:?}\npolicy {}\n",
            self.seed,
            self.cases,
            self.book.told,
            normalised(&self.policy)
        )
    }

    fn agents(&self) -> [(&Agent, &'static str); 3] {
        [(&self.world.a, "lan1"), (&self.world.b, "lan2"), (&self.world.c, "lan3")]
    }

    /// The agent with this number, and its interface on the gateway.
    fn agent(&self, number: usize) -> (&Agent, &'static str) {
        self.agents()[number]
    }

    fn import(&mut self, policy: Policy, by_tool: bool) {
        let text = normalised(&policy).to_string();
        let now = Utc::now();
        if by_tool {
            self.world.gateway.import(text);
        } else {
            let answer = self
                .daemon
                .ask(Request::Import { policy: text, expect_revision: None, confirm_seconds: None })
                .expect("the daemon answers");
            assert!(answer.success, "{answer:?}\n{}", normalised(&policy));
            assert!(answer.data::<Applied>().expect("the answer to an import").applied);
        }
        self.policy = policy;
        // The same policy once more is the same revision, in which what is alike may have its record already.
        let old = std::mem::replace(&mut self.revision, revision(&mut self.daemon));
        if old != self.revision {
            self.since = now;
        }
        self.book.revise(&self.policy);
    }

    /// kill -9, and the daemon takes over what the kernel holds.
    fn start_again(&mut self) {
        self.world.gateway.kill9();
        self.world.gateway.start();
        self.daemon = Client::connect(&self.world.gateway.path("run")).expect("the daemon listens");
        // The kernel holds the names of a class, but not the aliases on their way (`Class::links`).
        self.book.forget_links();
        for (_, link) in self.live.iter_mut().flat_map(|live| &mut live.names) {
            *link = None;
        }
        *self.seen.entry("daemon: started again".to_owned()).or_default() += 1;
    }

    fn explain(&mut self, question: Explain) -> Explanation {
        let answer = self.daemon.ask(Request::Explain(question)).expect("the daemon answers");
        assert!(answer.success, "{answer:?}");
        answer.data().expect("an explanation")
    }
}

#[test]
fn packets_answers_and_explain_agree_with_the_reference() {
    let mut world = world!();
    world.gateway.unlimited_icmp();
    let outside = &world.internet.peer.netns;
    for (key, value) in [("net.ipv4.icmp_ratemask", "0"), ("net.ipv6.icmp.ratelimit", "0")] {
        outside.sysctl(key, value);
    }
    let _inside = universe::furnish(&world);
    let (seed, due) = (number("SEED", SEED), number("CASES", CASES));
    let mut random = Random::new(seed);
    let policy = random.lab_policy();
    world.gateway.enforce(normalised(&policy));
    let daemon = Client::connect(&world.gateway.path("run")).expect("the daemon listens");
    let mut trial = Trial {
        world,
        daemon,
        random,
        seed,
        policy,
        revision: 1,
        // Records tell milliseconds.
        since: Utc::now() - TimeDelta::seconds(1),
        book: Book::default(),
        live: Vec::new(),
        cases: 0,
        seen: BTreeMap::new(),
    };
    let (start, mut policies) = (std::time::Instant::now(), 0_u64);
    while trial.cases < due {
        policies += 1;
        for _ in 0..8 {
            trial.ask();
        }
        for _ in 0..12 {
            trial.send();
        }
        trial.be_called();
        if policies.is_multiple_of(BY_TOOL) {
            trial.ask_the_tool();
        }
        if policies.is_multiple_of(KILLED) {
            trial.start_again();
            trial.go_on();
        }
        let next = trial.random.lab_policy_like(&trial.policy);
        trial.import(next, policies.is_multiple_of(BY_TOOL));
        trial.go_on();
    }
    println!("SEED={seed}: {} cases over {policies} policies agree, in {:.1?}", trial.cases, start.elapsed());
    for (what, times) in &trial.seen {
        println!("{times:7}  {what}");
    }
    trial.must_have_seen_everything();
}

impl Trial {
    /// A generator that meets only one kind of case would prove little.
    fn must_have_seen_everything(&self) {
        if self.cases < CASES || (self.seed != SEED && self.cases < 5 * CASES) {
            return;
        }
        let all = [
            "answer: addresses",
            "answer: denied",
            "answer: not-allowlisted",
            "answer: out-of-scope",
            "answer: rebinding",
            "flow: allowed",
            "flow: denied",
            "flow: no-lease",
            "flow: not-allowlisted",
            "flow: out-of-scope",
            "flow: port-not-allowed",
            "port 53: answered by us",
            "port 53: untouched",
            "live flow: goes on",
            "live flow: cut",
            "called: allowed",
            "called: refused",
            "record: denied",
            "record: no-lease",
            "record: not-allowlisted",
            "record: port-not-allowed",
            "record: rebinding",
            "daemon: started again",
        ];
        let missing: Vec<_> = all.iter().filter(|what| !self.seen.contains_key(**what)).collect();
        assert!(missing.is_empty(), "the generator never met {missing:?}: {:?}", self.seen);
        let allowed = self.seen["flow: allowed"];
        assert!(allowed * 20 > self.cases, "only {allowed} of {} flows were allowed", self.cases);
    }
}
