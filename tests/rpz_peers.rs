//! The exported response-policy zones mean what the policy means: `named-checkzone` reads every one of them, and real
//! resolvers that load them (Unbound, BIND) answer as the reference evaluator decides: for every client, every name in a
//! zone, the names above and below it, and 10 000 random names, with 20 random policies, which have lists in files,
//! exceptions, denied names and windows.
//!
//! The peers are Debian packages (`bind9-utils`, `unbound`, `bind9`). One that is missing is skipped loudly, and with
//! `CI=true` that is a failure, but for `bind9`: its installation takes port 53 of the machine, which not every machine
//! can give. Everything here stays on the loopback interface, at ports that are free.

#[path = "rpz_peers/policies.rs"]
mod policies;
#[allow(dead_code, reason = "the flows of the differential test are not needed here")]
#[path = "differential/random.rs"]
mod random;
#[allow(dead_code, reason = "each test program uses a part")]
#[path = "resolvers/mod.rs"]
mod resolvers;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clawgress::plan::rpz::{Zone, order, zones};
use clawgress::policy::decision::Verdict;
use clawgress::policy::model::{HostName, Policy};
use clawgress::policy::name::Name;
use clawgress::policy::reference;
use clawgress::policy::schedule::Moment;

use random::Random;
use resolvers::start::Setup;
use resolvers::{Asked, Peer, program, upstream};

/// Random policies that each peer loads, half of them deep ones.
const POLICIES: u64 = 20;
/// Random names that each client asks for, besides those of the zones.
const NAMES: usize = 10_000;
/// How long a peer may take to load and to settle on an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The policies, each with the instant at which it is asked.
fn policies() -> Vec<(Policy, Moment)> {
    let random = (1..=POLICIES / 2).flat_map(|seed| [Random::new(seed * 77).policy(), policies::deep(seed * 77)]);
    let at = |(policy, seed): (Policy, u64)| {
        let moment = Moment::of(&policy, Random::new(seed * 13).start(), chrono_tz::Tz::UTC);
        (policy, moment)
    };
    random.chain([policies::hard()]).zip(1..).map(at).collect()
}

/// Sources in no host, then the hosts; each with the loopback address from which it asks.
fn views(policy: &Policy) -> Vec<(Option<&HostName>, Ipv4Addr)> {
    let hosts = [None].into_iter().chain(policy.hosts.keys().map(Some));
    hosts.zip(1..).map(|(host, last)| (host, Ipv4Addr::new(127, 0, 77, last))).collect()
}

/// A directory with the zones as files.
fn written(zones: &[Zone]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for zone in zones {
        fs::write(dir.path().join(&zone.name), &zone.text).unwrap();
    }
    dir
}

/// What all clients are due to be answered: the names as they are asked for, and the answers.
struct Due<'p> {
    host: Option<&'p HostName>,
    client: Ipv4Addr,
    asked: Vec<String>,
    answers: Vec<Asked>,
}

fn due<'p>(policy: &'p Policy, moment: &Moment, names: &[Name], seed: u64) -> Vec<Due<'p>> {
    let mut random = Random::new(seed);
    let mut of = |(host, client)| {
        let answer = |name: &Name| match reference::decide_name_at(policy, host, Some(name), Some(moment)).verdict
            == Verdict::Allow
        {
            true => Asked::Address,
            false => Asked::NoName,
        };
        let asked = names.iter().map(|name| policies::capitals(name, &mut random)).collect();
        Due { host, client, asked, answers: names.iter().map(answer).collect() }
    };
    views(policy).into_iter().map(&mut of).collect()
}

/// Asks everything, and again what is not as it should be, until the peer had time enough: while it loads, it is silent or
/// answers unfiltered (BIND does).
fn compare(peer: &mut Peer, due: &[Due<'_>], policy: &Policy) {
    let deadline = Instant::now() + PATIENCE;
    for Due { host, client, asked, answers } in due {
        // The last ones are of the zone that denies everything, or of none: what answers them right has loaded.
        let mut open: Vec<usize> = (0..asked.len()).collect();
        let mut few = asked.len().min(50);
        loop {
            let (now, later) = open.split_at(few.min(open.len()));
            let names: Vec<&str> = now.iter().map(|place| asked[*place].as_str()).collect();
            let got = peer.ask_all(*client, &names);
            let wrong: Vec<(usize, Asked)> =
                now.iter().copied().zip(got).filter(|(place, got)| answers[*place] != *got).collect();
            peer.must_run();
            if let Some((place, got)) = wrong.first().filter(|_| Instant::now() > deadline) {
                let (name, due) = (&asked[*place], answers[*place]);
                let log = peer.log();
                panic!("{name} for {host:?} is {got:?} and not {due:?} ({} wrong) in {policy:#?}\n{log}", wrong.len());
            }
            if wrong.is_empty() {
                few = later.len();
            } else {
                std::thread::sleep(Duration::from_millis(50));
            }
            open = wrong.iter().map(|(place, _)| *place).chain(later.iter().copied()).collect();
            if open.is_empty() {
                break;
            }
        }
    }
}

/// A peer by its name, and how it begins with a policy's zones.
type Start = fn(&Path, tempfile::TempDir, &Setup<'_>) -> Peer;

fn peers() -> Vec<(PathBuf, Start)> {
    let unbound = program("unbound", "unbound", false).map(|binary| (binary, Peer::unbound as Start));
    let bind = program("named", "bind9", true).map(|binary| (binary, Peer::bind as Start));
    unbound.into_iter().chain(bind).collect()
}

#[test]
fn every_zone_is_a_valid_zone_file() {
    let Some(binary) = program("named-checkzone", "bind9-utils", false) else { return };
    for (policy, moment) in policies() {
        for zone in zones(&policy, 3, None).iter().chain(&zones(&policy, 3, Some(&moment))) {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("zone");
            fs::write(&file, &zone.text).unwrap();
            let out = Command::new(&binary).arg(&zone.name).arg(&file).output().unwrap();
            let said = String::from_utf8_lossy(&out.stdout).into_owned();
            assert!(out.status.success() && said.contains("loaded serial 3"), "{said}\n{}", zone.text);
            assert!(!said.to_lowercase().contains("warning"), "{said}\n{}", zone.text);
        }
    }
}

#[test]
fn resolvers_answer_as_the_policy_decides() {
    let (peers, upstream) = (peers(), upstream());
    let mut seen = [0_usize; 2];
    let mut covered = [0_usize; 5];
    for ((policy, moment), seed) in policies().iter().zip(1..) {
        let zones = zones(policy, seed, Some(moment));
        let names = policies::questions(&zones, seed, NAMES);
        let due = due(policy, moment, &names, seed);
        let order_of = |(host, client)| (client, order(policy, host, true));
        let views: Vec<(Ipv4Addr, Vec<String>)> = views(policy).into_iter().map(order_of).collect();
        let list: Vec<String> = zones.iter().map(|zone| zone.name.clone()).collect();
        // Both at once: they load while the other one answers.
        std::thread::scope(|scope| {
            for (binary, start) in &peers {
                let (list, views, zones, due) = (&list, &views, &zones, &due);
                scope.spawn(move || {
                    let setup = Setup::loading(list, views, upstream);
                    compare(&mut start(binary, written(zones), &setup), due, policy);
                });
            }
        });
        for answer in due.iter().flat_map(|due| &due.answers) {
            seen[usize::from(*answer == Asked::Address)] += 1;
        }
        for (kind, count) in covered.iter_mut().enumerate() {
            *count += usize::from(has(policy, moment, &names, kind));
        }
    }
    eprintln!("asked of each of {} resolvers: {seen:?} blocked and allowed names", peers.len());
    assert!(seen.iter().all(|count| *count > 50_000), "too little was asked: blocked, allowed = {seen:?}");
    assert!(covered.iter().all(|count| *count > 3), "too little was met: {covered:?}");
}

/// Whether a policy has what zones may get wrong: files that allow, files that deny, exceptions in them, hosts with
/// denied names, windows that close something now.
fn has(policy: &Policy, moment: &Moment, names: &[Name], kind: usize) -> bool {
    let blocks = || policy.hosts.values().map(|host| (&host.allow, &host.deny)).chain([(&policy.allow, &policy.deny)]);
    let exceptions = |(_, list): (_, &clawgress::policy::model::DomainList)| {
        list.contents.as_ref().is_some_and(|contents| contents.report().exceptions > 0)
    };
    match kind {
        0 => blocks().any(|(allow, _)| allow.domain_lists.as_ref().is_some_and(|list| !list.entries.is_empty())),
        1 => blocks().any(|(_, deny)| deny.domain_lists.as_ref().is_some_and(|list| !list.entries.is_empty())),
        2 => policy.domain_lists().any(exceptions),
        3 => policy.hosts.values().any(|host| host.deny.domains.as_ref().is_some_and(|list| !list.entries.is_empty())),
        _ => policy.hosts.keys().map(Some).chain([None]).any(|host| {
            let open = |moment| {
                let allowed = |name: &&Name| {
                    reference::decide_name_at(policy, host, Some(name), moment).verdict == Verdict::Allow
                };
                names.iter().filter(allowed).count()
            };
            open(None) > open(Some(moment))
        }),
    }
}
