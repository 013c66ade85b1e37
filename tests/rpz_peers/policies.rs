//! Policies to try on resolvers, and names to ask them for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use clawgress::plan::rpz::Zone;
use clawgress::policy::lists::{MAX_RULES, Reader};
use clawgress::policy::model::{ListFormat, Policy};
use clawgress::policy::name::Name;
use clawgress::policy::parse;
use serde_json::{Value, json};

use super::random::Random;

/// Of every rule and every name in a deep policy: few, so that they meet at every depth.
const LABELS: [&str; 7] = ["a", "b", "c", "d", "m-1", "_x", "8"];
const APEXES: [&str; 3] = ["one.net", "two.org", "shop.three.io"];
/// What names that nobody wrote end with.
const ELSEWHERE: [&str; 6] = ["com", "net", "org", "nowhere", "io", "co.uk"];

/// A name of some labels below one of the apexes, or the apex.
fn name(random: &mut Random) -> String {
    let mut name = random.pick(&APEXES).to_owned();
    for _ in 0..random.below(6) {
        name = format!("{}.{name}", random.pick(&LABELS));
    }
    name
}

fn pattern(random: &mut Random) -> String {
    let name = name(random);
    if random.chance(40) { format!("*.{name}") } else { name }
}

fn patterns(random: &mut Random, most: u64) -> BTreeSet<String> {
    (0..random.below(most)).map(|_| pattern(random)).collect()
}

/// What a file says; every format has exceptions but the first two.
fn list(random: &mut Random, format: ListFormat) -> String {
    let mut text = String::new();
    for _ in 0..5 + random.below(40) {
        let name = name(random);
        let pass = random.chance(30);
        text += &match format {
            ListFormat::Domains => pattern(random),
            ListFormat::Hosts => format!("0.0.0.0 {name}"),
            ListFormat::Adblock => format!("{}||{name}^", if pass { "@@" } else { "" }),
            ListFormat::Rpz => {
                format!("{} CNAME {}", pattern(random), if pass { "rpz-passthru." } else { random.pick(&[".", "*."]) })
            }
        };
        text.push('\n');
    }
    text
}

fn rules(random: &mut Random, kind: &str, files: &[(String, ListFormat, String)], most: u64) -> Value {
    let mut rules = json!({});
    if random.chance(if kind == "allow" { 85 } else { 60 }) {
        rules["domains"] = json!(patterns(random, most));
    }
    if random.chance(60) {
        let some = files.iter().filter(|_| random.chance(35));
        let entry = |(file, format, _): &(String, ListFormat, String)| json!({ "name": &file[1..], "file": file, "format": format.word() });
        rules["domain_lists"] = some.map(entry).collect();
    }
    rules
}

fn window(random: &mut Random) -> Value {
    let (start, length) = (random.below(1440), 60 + random.below(1200));
    let time = |minutes: u64| format!("{:02}:{:02}", minutes / 60 % 24, minutes % 60);
    json!({ "start": time(start), "end": time(start + length) })
}

/// A policy with many rules at many depths, in lists of its own and in files, for four hosts and sources in none; with
/// windows.
pub fn deep(seed: u64) -> Policy {
    let mut random = Random::new(seed);
    let formats = [ListFormat::Domains, ListFormat::Hosts, ListFormat::Adblock, ListFormat::Rpz];
    let files: Vec<(String, ListFormat, String)> = formats
        .iter()
        .chain(&formats)
        .enumerate()
        .map(|(number, format)| (format!("/list{number}"), *format, list(&mut random, *format)))
        .collect();
    let mut policy = json!({ "version": 1, "time_zone": "Europe/Berlin",
        "allow": rules(&mut random, "allow", &files, 60), "deny": rules(&mut random, "deny", &files, 12) });
    for (number, host) in ["A.b", "a.b", "global", "four"].iter().enumerate() {
        let mut block = json!({ "sources": [format!("10.0.0.{number}")] });
        for (kind, most) in [("allow", 40), ("deny", 10)] {
            if random.chance(60) {
                block[kind] = rules(&mut random, kind, &files, most);
            }
        }
        if random.chance(20) {
            block["time_window"] = window(&mut random);
        }
        policy["hosts"][host] = block;
    }
    if random.chance(60) {
        let windows = patterns(&mut random, 12).into_iter().map(|pattern| (pattern, window(&mut random)));
        policy["domain_time_windows"] = windows.collect();
    }
    with_files(&policy, &files)
}

fn with_files(document: &Value, files: &[(String, ListFormat, String)]) -> Policy {
    let policy = parse(&document.to_string()).unwrap_or_else(|errors| panic!("{errors:?}\n{document}"));
    let contents = files.iter().map(|(file, format, text)| {
        let mut reader = Reader::new(*format, 0, MAX_RULES);
        reader.feed(text.as_bytes()).expect("a list");
        ((file.clone(), *format), Arc::new(reader.finish().expect("a list")))
    });
    policy.with_contents(&contents.collect::<BTreeMap<_, _>>())
}

/// One with everything that zones get wrong.
pub fn hard() -> Policy {
    let document = json!({ "version": 1,
        "allow": { "domains": ["*.clo.net", "m.clo.net", "u.v.clo.net", "*.w.v.clo.net", "single", "bücher.org"] },
        "deny": {
            "domains": ["*.m.clo.net", "q.m.clo.net", "v.clo.net", "z.y.clo.net"],
            "domain_lists": [{ "name": "filter", "file": "/filter", "format": "adblock" }] },
        "hosts": {
            "A.b": { "sources": ["10.0.0.1"], "allow": {
                "domains": ["clo.net", "*.y.clo.net"],
                "domain_lists": [{ "name": "zone", "file": "/zone", "format": "rpz" }] } },
            "a.b": { "sources": ["10.0.0.2"], "deny": { "domains": ["*.clo.net"] } },
            "global": { "sources": ["10.0.0.3"], "allow": { "domains": [] } } } });
    let filter = "||x.clo.net^\n@@||in.x.clo.net^\n||deeper.in.x.clo.net^\n";
    let zone = "*.listed.net CNAME .\nnot.listed.net CNAME rpz-passthru.\n*.x.clo.net CNAME .\n";
    let files = [("/filter", ListFormat::Adblock, filter), ("/zone", ListFormat::Rpz, zone)];
    with_files(&document, &files.map(|(file, format, text)| (file.to_owned(), format, text.to_owned())))
}

/// Names worth asking for: all owners of the zones, those above and below, and `more` names at random: some in the
/// policy's own neighbourhood, some of its owners with a label changed, some that nobody ever wrote.
pub fn questions(zones: &[Zone], seed: u64, more: usize) -> Vec<Name> {
    let mut texts = BTreeSet::new();
    let mut owners = Vec::new();
    for line in zones.iter().flat_map(|zone| zone.text.lines()).filter(|line| line.contains(" CNAME ")) {
        let owner = line.split(' ').next().unwrap_or_default();
        let mut rest = owner.strip_prefix("*.").unwrap_or(owner);
        if rest != "*" && !line.starts_with(';') {
            owners.push(rest.to_owned());
        }
        while rest != "*" {
            texts.extend([rest.to_owned(), format!("kid.{rest}"), format!("two.deep.{rest}")]);
            let Some((_, above)) = rest.split_once('.') else { break };
            rest = above;
        }
    }
    let mut random = Random::new(seed);
    let most = texts.len() + more;
    while texts.len() < most {
        texts.insert(match random.below(6) {
            0..=2 => name(&mut random),
            3 => format!("{}.{}", random.pick(&LABELS), random.name()),
            4 if !owners.is_empty() => changed(&mut random, &owners),
            _ => strange(&mut random),
        });
    }
    let name = |text: &String| Name::from_wire_labels(text.split('.').map(str::as_bytes));
    texts.iter().map(|text| name(text).unwrap_or_else(|| panic!("{text} is no name"))).collect()
}

/// One of these names with a label more, less, or another one.
fn changed(random: &mut Random, owners: &[String]) -> String {
    let at = usize::try_from(random.below(owners.len() as u64)).unwrap();
    let mut labels: Vec<String> = owners[at].split('.').map(str::to_owned).collect();
    let place = usize::try_from(random.below(labels.len() as u64)).unwrap();
    match random.below(3) {
        0 => labels.insert(place, label(random)),
        1 if labels.len() > 1 => drop(labels.remove(place)),
        _ => labels[place] = label(random),
    }
    labels.join(".")
}

fn strange(random: &mut Random) -> String {
    let labels: Vec<String> = (0..1 + random.below(4)).map(|_| label(random)).collect();
    format!("{}.{}", labels.join("."), random.pick(&ELSEWHERE))
}

fn label(random: &mut Random) -> String {
    let inner = b"abcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut label: Vec<u8> = (0..1 + random.below(10)).map(|_| random.pick(inner)).collect();
    // Letters at both ends, and no "xn--" in front: what is no host name is another test's.
    label.insert(0, b'q');
    label.push(b'z');
    String::from_utf8(label).unwrap()
}

/// The same name with capitals here and there, as resolvers send it (draft-vixie-dnsext-dns0x20).
pub fn capitals(name: &Name, random: &mut Random) -> String {
    let random_case = |letter: char| if random.chance(50) { letter.to_ascii_uppercase() } else { letter };
    name.as_str().chars().map(random_case).collect()
}
