//! A hundred thousand addresses of a set changed for others. As the gateway changes a large list: a set beside the old one,
//! filled piece by piece, then the rule led to it, then the old one removed. Beside it `nft -f` with what somebody would
//! write who keeps such a list, and batches that were encoded before and are only sent. And, to see the writer alone, all
//! of them emptying and filling one set in one transaction.

mod bare;
#[allow(dead_code, reason = "each benchmark uses a part")]
mod measure;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use bare::Bare;
use clawgress::nft::{Kernel, Options, Watch};
use clawgress::plan::ir::{
    Action, Chain, Cond, Data, DataType, Direction, End, Family, Field, Ident, Key, KeyType, Rule, Set, SetSpec, Value,
    Verdict,
};
use clawgress::plan::ops::{Op, Table as Rules, diff};
use measure::{Table, bar, first_in_line, median, order, ratio, rounds, spread, timed};

const SIZE: u32 = 100_000;
/// The set that is changed in place, and the stems of those that are replaced.
const SET: &str = "many";
const OURS: &str = "ours";
const BARE: &str = "bare";
/// The bars: `nft -f` to us, us to the bare batches.
const FASTER: f64 = 4.0;
const ABOVE_BARE: f64 = 1.3;

fn main() {
    if unshare(CloneFlags::CLONE_NEWNET).is_err() {
        println!("SKIP: this benchmark needs root");
        return;
    }
    first_in_line();
    let mut bench = Bench::open();
    bench.run("nobody listening for changes");
    // The daemon does, to hear of caps that are used up, or to see what others do where it does not own the table.
    std::thread::spawn(|| {
        let mut watch = Watch::open(0).expect("root may listen");
        while watch.wait().is_ok() {}
    });
    bench.run("somebody listening for changes, as the daemon does while there are exfil caps");
}

struct Bench {
    kernel: Kernel,
    bare: Bare,
    /// What is replaced, as the kernel holds it: by our writer, and by the bare batches.
    held: Rules,
    sent: String,
    turn: usize,
}

impl Bench {
    fn open() -> Self {
        let mut kernel = Kernel::open(Options { own_table: false, ..Options::default() }).expect("the packet filter");
        let start = addresses(0);
        let (held, sent) = (rules(OURS, 0, &start), rules(BARE, 0, &start));
        let mut ops = vec![Op::AddTable, Op::AddSet(Ident::from(SET), spec(None))];
        ops.extend([&held, &sent].into_iter().flat_map(|rules| diff(&Rules::default(), rules).into_ops()));
        kernel.commit(&ops).expect("a table");
        // As people write it: they do not say how many there will be.
        nft(&format!("add chain inet clawgress written\nadd rule inet clawgress written ip daddr @{SET} accept\n"));
        Self { kernel, bare: Bare::open(), held, sent: format!("{BARE}.0"), turn: 0 }
    }

    fn run(&mut self, circumstances: &str) {
        let mut times = [const { Vec::new() }; 5];
        for round in 0..rounds() {
            for variant in order(round, times.len()) {
                self.turn += 1;
                // Other addresses than the ones that are there.
                let addresses = addresses(self.turn);
                let (set, time) = self.change(variant, &addresses);
                times[variant].push(time);
                let held = self.kernel.read().expect("readable").expect("the table");
                let (found, wanted) = (&held.sets[&*set].elements, &addresses);
                assert!(found.len() == wanted.len() && wanted.iter().all(|one| found.contains_key(&key(*one))));
                assert_eq!(held.sets.len(), 3, "the old ones are gone");
            }
        }
        let [replaced, nft, bare, refilled, bare_refilled] = &times;
        let mut table = Table::new(
            &format!("{SIZE} addresses of a list changed for others, {circumstances}"),
            &["by", "median ms", "spread", "to ours", "bar"],
        );
        let mut row = |who: &str, own: &[f64], ours: &[f64], bar: String| {
            let share = format!("{:.2}", ratio(own, ours));
            table.row([who.to_owned(), format!("{:.1}", median(own)), spread(own, 0), share, bar]);
        };
        row("Clawgress, another set in pieces", replaced, replaced, String::new());
        row("nft -f, emptied and filled", nft, replaced, bar(ratio(nft, replaced) >= FASTER, "≥ 4"));
        let above = bar(ratio(replaced, bare) <= ABOVE_BARE, "≥ 0.77");
        row("batches encoded before, another set in pieces", bare, replaced, above);
        row("Clawgress' writer, emptied and filled", refilled, refilled, String::new());
        row("nft -f, emptied and filled", nft, refilled, String::new());
        row("a batch encoded before, emptied and filled", bare_refilled, refilled, String::new());
        table.print();
    }

    /// Changes the addresses; which set holds them then, and how long it took.
    fn change(&mut self, variant: usize, addresses: &[Ipv4Addr]) -> (String, f64) {
        let time = match variant {
            0 => {
                let wanted = rules(OURS, self.turn, addresses);
                let ((), time) = timed(|| self.replace(&wanted));
                self.held = wanted;
                return (format!("{OURS}.{}", self.turn), time);
            }
            1 => {
                let text = text(addresses);
                timed(|| nft(&text)).1
            }
            2 => {
                let new = format!("{BARE}.{}", self.turn);
                let batches = bare::replaced(BARE, &self.sent, &new, addresses);
                let ((), time) = timed(|| batches.iter().for_each(|batch| self.bare.transact(batch)));
                self.sent.clone_from(&new);
                return (new, time);
            }
            3 => {
                let ops = ops(addresses);
                timed(|| self.kernel.commit(&ops).expect("it is taken")).1
            }
            _ => {
                let batch = bare::refilled(SET, addresses);
                timed(|| self.bare.transact(&batch)).1
            }
        };
        (SET.to_owned(), time)
    }

    /// What the gate does, from the table that is wanted to the last transaction.
    fn replace(&mut self, wanted: &Rules) {
        let mut delta = diff(&self.held, wanted);
        delta.add_table();
        for piece in delta.pieces(&BTreeSet::new()) {
            let ops: Vec<Op> = piece.into_iter().map(|(_, op)| op).collect();
            self.kernel.commit(&ops).expect("it is taken");
        }
        for ops in [&delta.switch, &delta.remove, &delta.litter] {
            self.kernel.commit(ops).expect("it is taken");
        }
    }
}

/// A chain whose one rule looks into a set of these addresses.
fn rules(stem: &str, turn: usize, addresses: &[Ipv4Addr]) -> Rules {
    let set = Ident::from(format!("{stem}.{turn}"));
    let field = Field::Ct(Direction::Original, Family::V4, End::Destination);
    let conds = vec![Cond::In { field, set: set.clone(), negate: false }];
    let rule = Rule { conds, actions: vec![Action::Verdict(Verdict::Accept)], comment: String::new() };
    let elements = addresses.iter().map(|one| (key(*one), Value::plain(Data::None))).collect();
    let count = u32::try_from(addresses.len()).expect("a set");
    Rules {
        chains: BTreeMap::from([(Ident::from(stem), Chain { base: None, rules: vec![rule] })]),
        sets: BTreeMap::from([(set, Set { spec: spec(Some(count)), elements })]),
        objects: BTreeMap::new(),
    }
}

/// Single addresses, as a policy's list of them is declared.
fn spec(size: Option<u32>) -> SetSpec {
    let key = KeyType::Address(Family::V4);
    SetSpec { key, data: DataType::None, interval: false, timeout: false, counter: false, size }
}

fn key(address: Ipv4Addr) -> Key {
    Key::Address(IpAddr::V4(address))
}

fn addresses(turn: usize) -> Vec<Ipv4Addr> {
    let first = 0x0a00_0000 + u32::try_from(turn).expect("few rounds") * SIZE;
    // In no order that a hash would like.
    (0..SIZE).map(|nth| Ipv4Addr::from(first + nth.wrapping_mul(7919) % SIZE)).collect()
}

fn ops(addresses: &[Ipv4Addr]) -> Vec<Op> {
    let elements = addresses.iter().map(|address| (key(*address), Value::plain(Data::None)));
    vec![Op::FlushSet(Ident::from(SET)), Op::AddElements(Ident::from(SET), elements.collect())]
}

fn text(addresses: &[Ipv4Addr]) -> String {
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!("flush set inet clawgress {SET}\nadd element inet clawgress {SET} {{ {} }}\n", list.join(", "))
}

fn nft(text: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft is installed");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("nft reads");
    assert!(child.wait().expect("nft ends").success());
}
