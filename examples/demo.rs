//! `make demo`: the real daemon between two agents and a small internet, all inside network namespaces.
//!
//! The agents try what agents try; each line of the table says what came of it, at which layer, why (in the words of
//! the daemon's own `explain`) and how long the verdict took. The exit status is 1 if one line is not as it should be.

#[path = "../tests/lab/world/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the demo uses the lab's world, not all of it")]
mod world;

use std::io::IsTerminal;
use std::process::ExitCode;

use hickory_proto::rr::RecordType;
use world::{Agent, FOREIGN, Outcome, Over, World};

const POLICY: &str = include_str!("policies/demo.json");

/// Where an attempt is decided.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layer {
    Dns,
    Packet,
}

/// What should come of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Due {
    Allowed,
    Refused(Layer),
    /// Refused for what upstream's answer says; `explain` knows the question only and would allow it.
    BadAnswer,
}
use Due::{Allowed, BadAnswer, Refused};
use Layer::{Dns, Packet};

/// Who tries.
#[derive(Clone, Copy)]
enum Who {
    Agent1,
    Agent2,
    Bystander,
}
use Who::{Agent1, Agent2, Bystander};

/// What is tried.
#[derive(Clone, Copy)]
enum Try {
    /// Resolve a name, connect to the first address and this port.
    Name(&'static str, u16),
    /// The same over IPv6.
    Name6(&'static str, u16),
    /// Connect to an address.
    Tcp(&'static str, u16),
    /// A datagram to an address.
    Udp(&'static str, u16),
    /// Echo request.
    Ping(&'static str),
    /// Ask the foreign resolver for a name.
    Ask(&'static str, Over),
}
use Try::{Ask, Name, Name6, Ping, Tcp, Udp};

const ROWS: [(Who, &str, Try, Due); 20] = [
    (Agent1, "https to api.openai.com", Name("api.openai.com", 443), Allowed),
    (Agent1, "the same over IPv6", Name6("api.openai.com", 443), Allowed),
    (Agent1, "ssh to api.openai.com", Name("api.openai.com", 22), Refused(Packet)),
    (Agent1, "https to pastebin.com", Name("pastebin.com", 443), Refused(Dns)),
    (Agent2, "https to codeload.github.com", Name("codeload.github.com", 443), Allowed),
    (Agent2, "https to api.openai.com (agent-1's)", Name("api.openai.com", 443), Refused(Dns)),
    (Agent2, "https to agent-1's leased address", Tcp("93.184.216.34", 443), Refused(Packet)),
    (Agent1, "https to 93.184.216.35, its neighbour", Tcp("93.184.216.35", 443), Refused(Packet)),
    (Agent1, "asks 8.8.8.8 for pastebin.com", Ask("pastebin.com", Over::Udp), Refused(Dns)),
    (Agent1, "the same over TCP", Ask("pastebin.com", Over::Tcp), Refused(Dns)),
    (Agent1, "DNS over TLS to 8.8.8.8", Tcp("8.8.8.8", 853), Refused(Packet)),
    (Agent1, "https to 45.60.1.7 (45.60.1.0/24 is allowed)", Tcp("45.60.1.7", 443), Allowed),
    (Agent1, "https to 45.60.1.66 (denied in it)", Tcp("45.60.1.66", 443), Refused(Packet)),
    (Agent1, "QUIC to 45.60.2.2", Udp("45.60.2.2", 443), Refused(Packet)),
    (Agent1, "ping 45.60.1.7", Ping("45.60.1.7"), Allowed),
    (Agent1, "ping 45.60.2.2", Ping("45.60.2.2"), Refused(Packet)),
    (Agent1, "ssh to the gateway", Tcp("192.168.10.1", 22), Refused(Packet)),
    (Agent1, "hooks.example.org, which points at agent-2", Name("hooks.example.org", 443), BadAnswer),
    (Agent1, "docs.example.org, an alias of a tracker", Name("docs.example.org", 443), BadAnswer),
    (Bystander, "ssh to 45.60.2.2 (not in scope)", Tcp("45.60.2.2", 22), Allowed),
];

impl Who {
    fn in_words(self) -> &'static str {
        match self {
            Agent1 => "agent-1",
            Agent2 => "agent-2",
            Bystander => "bystander",
        }
    }

    fn agent(self, world: &World) -> &Agent {
        match self {
            Agent1 => &world.a,
            Agent2 => &world.b,
            Bystander => &world.c,
        }
    }
}

impl Try {
    fn act(self, agent: &Agent) -> Outcome {
        match self {
            Name(name, port) => agent.reach(name, port),
            Name6(name, port) => agent.reach6(name, port),
            Tcp(address, port) => agent.tcp(address, port),
            Udp(address, port) => agent.udp(address, port),
            Ping(address) => agent.ping(address),
            Ask(name, over) => ask(agent, name, over),
        }
    }

    /// The arguments of `explain` for the same thing.
    fn question(self) -> Vec<String> {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        match self {
            Name(name, port) | Name6(name, port) => words(&["--domain", name, "--port", &port.to_string()]),
            Tcp(address, port) => words(&["--ip", address, "--port", &port.to_string()]),
            Udp(address, port) => words(&["--ip", address, "--port", &port.to_string(), "--protocol", "udp"]),
            Ping(address) => words(&["--ip", address]),
            Ask(name, _) => words(&["--domain", name]),
        }
    }
}

/// A finished line, as text.
struct Line {
    cells: [String; 6],
    as_due: bool,
    allowed: bool,
}

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("demo: network namespaces need root rights, run it as root or with sudo");
        return ExitCode::FAILURE;
    }
    eprintln!("demo: building a lab: two agents, a bystander, the gateway, an internet with DNS and servers");
    let Some(mut world) = World::build() else { return ExitCode::FAILURE };
    names(&world);
    world.gateway.servers.echo(&[22]);
    eprintln!("demo: starting the daemon with examples/policies/demo.json");
    world.gateway.enforce(POLICY);
    eprintln!("demo: the agents try their luck\n");

    let lines: Vec<Line> = ROWS.iter().map(|row| attempt(&world, *row)).collect();
    print_table(&lines);
    let asked = world.internet.foreign.asked().len();
    let wrong = lines.iter().filter(|line| !line.as_due).count();
    let allowed = lines.iter().filter(|line| line.allowed).count();
    println!("\n{} attempts: {allowed} allowed, {} refused", lines.len(), lines.len() - allowed);
    println!("questions that reached the foreign resolver 8.8.8.8: {asked}");
    println!("\nthe last refusals, as the operator sees them (clawgress log --limit 6):");
    print!("{}", world.gateway.tool(&["log", "--limit", "6"]).stdout);
    eprintln!("demo: removing the lab");
    drop(world);
    if wrong > 0 || asked > 0 {
        println!("{wrong} lines are not as the policy says (marked !)");
        return ExitCode::FAILURE;
    }
    println!("every line is as the policy says");
    ExitCode::SUCCESS
}

/// What the lab's internet knows. Names of the real one, addresses that exist only in here.
fn names(world: &World) {
    for resolver in [&world.internet.upstream, &world.internet.foreign] {
        resolver.host("api.openai.com", &["93.184.216.34", "2606:4700::34"]);
        resolver.host("api.anthropic.com", &["151.101.0.40"]);
        resolver.host("codeload.github.com", &["151.101.0.50"]);
        resolver.host("pastebin.com", &["45.60.2.2"]);
        resolver.host("hooks.example.org", &["192.168.11.10"]);
        resolver.alias("docs.example.org", "pixel.tracker.example");
        resolver.host("pixel.tracker.example", &["45.60.3.3"]);
    }
}

/// Asks the foreign resolver; an answer with addresses counts as reached.
fn ask(agent: &Agent, name: &str, over: Over) -> Outcome {
    match agent.dig(name, RecordType::A, FOREIGN[0], over) {
        Ok(reply) if !reply.addresses().is_empty() => {
            Outcome::Reached { after: reply.after, bytes: reply.addresses().len() }
        }
        Ok(reply) => Outcome::Unresolved { after: Some(reply.after), code: reply.code(), ede: reply.ede() },
        Err(outcome) => outcome,
    }
}

fn attempt(world: &World, (who, tried, what, due): (Who, &str, Try, Due)) -> Line {
    let agent = who.agent(world);
    let outcome = what.act(agent);
    let (allowed, layer) = match &outcome {
        Outcome::Reached { .. } => (true, Packet),
        Outcome::Unresolved { .. } => (false, Dns),
        _ => (false, Packet),
    };
    // Silence is no refusal: whoever is refused is told, and at once.
    let told = match &outcome {
        Outcome::Unresolved { ede, .. } => ede.is_some(),
        other => other.after().is_some(),
    };
    let (why, agrees) = match due {
        BadAnswer => (format!("answer: {}", in_answer(&outcome)), true),
        _ => explained(world, agent, what, allowed),
    };
    let right = match due {
        Allowed => allowed,
        Refused(due) => !allowed && told && layer == due,
        BadAnswer => !allowed && told && layer == Dns,
    };
    let after = outcome.after().map_or("never".to_owned(), |after| format!("{:.2} ms", after.as_secs_f64() * 1000.0));
    let word = match (allowed, told) {
        (true, _) => "allowed",
        (false, true) => "refused",
        (false, false) => "no answer",
    };
    let layer = if layer == Dns { "dns" } else { "packet" };
    let cells = [who.in_words().to_owned(), tried.to_owned(), word.to_owned(), layer.to_owned(), why, after];
    Line { cells, as_due: right && agrees, allowed }
}

/// The reason that came with the answer, or what came instead.
fn in_answer(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Unresolved { ede: Some((_, text)), .. } => text.clone(),
        other => other.to_string(),
    }
}

/// The reason and the policy line in the daemon's words, and whether they say the same as the packets do.
fn explained(world: &World, agent: &Agent, what: Try, allowed: bool) -> (String, bool) {
    let source = if matches!(what, Name6(..)) { agent.v6 } else { agent.v4 };
    let question = what.question();
    let said = world.gateway.explain(source, &question.iter().map(String::as_str).collect::<Vec<_>>());
    let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
    let passes = ["allow", "out-of-scope"].contains(&text("verdict").as_str());
    let why = format!("{} {}", text("reason"), text("path")).trim_end().to_owned();
    (why, passes == allowed)
}

fn print_table(lines: &[Line]) {
    let heads = ["agent", "tried", "result", "layer", "why (explain)", "after"];
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let cells = lines.iter().map(|line| line.cells[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or(0)
    });
    let colour = std::io::stdout().is_terminal();
    let head: Vec<String> = heads.iter().zip(widths).map(|(head, width)| format!("{head:width$}")).collect();
    println!("  {}", head.join("  "));
    println!("  {}", "-".repeat(widths.iter().sum::<usize>() + 2 * (widths.len() - 1)));
    for line in lines {
        let mut text = String::new();
        for (column, (cell, width)) in line.cells.iter().zip(widths).enumerate() {
            let padded = if column == 5 { format!("{cell:>width$}") } else { format!("{cell:width$}") };
            let painted = match (colour && column == 2, line.as_due, line.allowed) {
                (true, false, _) => format!("\x1b[1;31m{padded}\x1b[0m"),
                (true, true, true) => format!("\x1b[32m{padded}\x1b[0m"),
                (true, true, false) => format!("\x1b[33m{padded}\x1b[0m"),
                (false, ..) => padded,
            };
            text += &painted;
            text += "  ";
        }
        println!("{} {}", if line.as_due { " " } else { "!" }, text.trim_end());
    }
}
