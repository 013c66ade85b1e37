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
}
use Due::{Allowed, Refused};
use Layer::{Dns, Packet};

/// One line of the table.
struct Row<'w> {
    who: &'static str,
    agent: &'w Agent,
    tried: &'static str,
    due: Due,
    /// What `explain` is asked; empty: the answer itself is the only one who knows (what is wrong is in the data
    /// that came from upstream, not in the name or address that was asked for).
    explain: &'static [&'static str],
    action: Box<dyn Fn(&Agent) -> Outcome + 'w>,
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

    let lines: Vec<Line> = rows(&world).iter().map(|row| attempt(&world, row)).collect();
    print_table(&lines);
    let asked = world.internet.foreign.asked().len();
    let wrong = lines.iter().filter(|line| !line.as_due).count();
    let allowed = lines.iter().filter(|line| line.allowed).count();
    println!("\n{} attempts: {allowed} allowed, {} refused", lines.len(), lines.len() - allowed);
    println!("questions that reached the foreign resolver 8.8.8.8: {asked}");
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

fn rows(world: &World) -> Vec<Row<'_>> {
    let (one, two, bystander) = (("agent-1", &world.a), ("agent-2", &world.b), ("bystander", &world.c));
    let mut rows = Vec::new();
    let mut row = |(who, agent), tried, due, explain, action: Box<dyn Fn(&Agent) -> Outcome>| {
        rows.push(Row { who, agent, tried, due, explain, action });
    };
    row(
        one,
        "https to api.openai.com",
        Allowed,
        &["--domain", "api.openai.com", "--port", "443"],
        Box::new(|agent| agent.reach("api.openai.com", 443)),
    );
    row(
        one,
        "the same over IPv6",
        Allowed,
        &["--domain", "api.openai.com", "--port", "443"],
        Box::new(|agent| agent.reach6("api.openai.com", 443)),
    );
    row(
        one,
        "ssh to api.openai.com",
        Refused(Packet),
        &["--domain", "api.openai.com", "--port", "22"],
        Box::new(|agent| agent.reach("api.openai.com", 22)),
    );
    row(
        one,
        "https to pastebin.com",
        Refused(Dns),
        &["--domain", "pastebin.com", "--port", "443"],
        Box::new(|agent| agent.reach("pastebin.com", 443)),
    );
    row(
        two,
        "https to codeload.github.com",
        Allowed,
        &["--domain", "codeload.github.com", "--port", "443"],
        Box::new(|agent| agent.reach("codeload.github.com", 443)),
    );
    row(
        two,
        "https to api.openai.com (agent-1's)",
        Refused(Dns),
        &["--domain", "api.openai.com", "--port", "443"],
        Box::new(|agent| agent.reach("api.openai.com", 443)),
    );
    row(
        two,
        "https to agent-1's leased address",
        Refused(Packet),
        &["--ip", "93.184.216.34", "--port", "443"],
        Box::new(|agent| agent.tcp("93.184.216.34", 443)),
    );
    row(
        one,
        "https to 93.184.216.35, its neighbour",
        Refused(Packet),
        &["--ip", "93.184.216.35", "--port", "443"],
        Box::new(|agent| agent.tcp("93.184.216.35", 443)),
    );
    row(
        one,
        "asks 8.8.8.8 for pastebin.com",
        Refused(Dns),
        &["--domain", "pastebin.com"],
        Box::new(|agent| ask(agent, "pastebin.com", Over::Udp)),
    );
    row(
        one,
        "the same over TCP",
        Refused(Dns),
        &["--domain", "pastebin.com"],
        Box::new(|agent| ask(agent, "pastebin.com", Over::Tcp)),
    );
    row(
        one,
        "DNS over TLS to 8.8.8.8",
        Refused(Packet),
        &["--ip", "8.8.8.8", "--port", "853"],
        Box::new(|agent| agent.tcp(FOREIGN[0], 853)),
    );
    row(
        one,
        "https to 45.60.1.7 (45.60.1.0/24 is allowed)",
        Allowed,
        &["--ip", "45.60.1.7", "--port", "443"],
        Box::new(|agent| agent.tcp("45.60.1.7", 443)),
    );
    row(
        one,
        "https to 45.60.1.66 (denied in it)",
        Refused(Packet),
        &["--ip", "45.60.1.66", "--port", "443"],
        Box::new(|agent| agent.tcp("45.60.1.66", 443)),
    );
    row(
        one,
        "QUIC to 45.60.2.2",
        Refused(Packet),
        &["--ip", "45.60.2.2", "--port", "443", "--protocol", "udp"],
        Box::new(|agent| agent.udp("45.60.2.2", 443)),
    );
    row(one, "ping 45.60.1.7", Allowed, &["--ip", "45.60.1.7"], Box::new(|agent| agent.ping("45.60.1.7")));
    row(one, "ping 45.60.2.2", Refused(Packet), &["--ip", "45.60.2.2"], Box::new(|agent| agent.ping("45.60.2.2")));
    row(
        one,
        "ssh to the gateway",
        Refused(Packet),
        &["--ip", "192.168.10.1", "--port", "22"],
        Box::new(|agent| agent.tcp(agent.router4, 22)),
    );
    row(
        one,
        "hooks.example.org, which points at agent-2",
        Refused(Dns),
        &[],
        Box::new(|agent| agent.reach("hooks.example.org", 443)),
    );
    row(
        one,
        "docs.example.org, an alias of a tracker",
        Refused(Dns),
        &[],
        Box::new(|agent| agent.reach("docs.example.org", 443)),
    );
    row(
        bystander,
        "ssh to 45.60.2.2 (not in scope)",
        Allowed,
        &["--ip", "45.60.2.2", "--port", "22"],
        Box::new(|agent| agent.tcp("45.60.2.2", 22)),
    );
    rows
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

fn attempt(world: &World, row: &Row<'_>) -> Line {
    let outcome = (row.action)(row.agent);
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
    let (why, agrees) = why(world, row, &outcome, allowed);
    let right = match row.due {
        Allowed => allowed,
        Refused(due) => !allowed && told && layer == due,
    };
    let after = outcome.after().map_or("never".to_owned(), |after| format!("{:.2} ms", after.as_secs_f64() * 1000.0));
    let word = match (allowed, told) {
        (true, _) => "allowed",
        (false, true) => "refused",
        (false, false) => "no answer",
    };
    let layer = if layer == Dns { "dns" } else { "packet" };
    let cells = [row.who.to_owned(), row.tried.to_owned(), word.to_owned(), layer.to_owned(), why, after];
    Line { cells, as_due: right && agrees, allowed }
}

/// The reason in words, and whether it says the same as the packets do.
fn why(world: &World, row: &Row<'_>, outcome: &Outcome, allowed: bool) -> (String, bool) {
    if row.explain.is_empty() {
        return match outcome {
            Outcome::Unresolved { ede: Some((_, text)), .. } => (format!("answer: {text}"), true),
            other => (other.to_string(), false),
        };
    }
    let said = world.gateway.explain(row.agent.v4, row.explain);
    let text = |key: &str| said[key].as_str().unwrap_or_default().to_owned();
    let passes = ["allow", "out-of-scope"].contains(&text("verdict").as_str());
    let path = text("path");
    let why = if path.is_empty() { text("reason") } else { format!("{} {path}", text("reason")) };
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
