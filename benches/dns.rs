//! The DNS server against others with the same policy, each alone on one processor: refusals, cached answers whose leases
//! are looked at, names never seen before, start and change of a large policy.
//!
//! Everything runs in the gateway's namespace of one lab; the client asks over loopback, so no server pays for the way.

#[allow(dead_code, reason = "each benchmark uses a part")]
mod measure;
mod peers;
#[allow(dead_code, unused_imports, reason = "the lab's world; no benchmark uses all of it")]
#[path = "../tests/lab/world/mod.rs"]
mod world;

use std::io::{IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd};
use std::process::Child;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, sendmsg};
use serde_json::json;

use measure::upstream::{ADDRESS as UPSTREAM, Upstream, name_in, question};
use measure::{
    Table, bar, first_in_line, first_in_line_process, median, memory, order, pin_process, pin_this_thread,
    processor_time, quick, ratio, rounds,
};
use peers::{PEERS, Rules};
use world::World;

/// Where our server and the echo listen.
const OURS: &str = "127.0.0.1:53";
const ECHO: &str = "127.0.0.1:5300";
const GROUPING_ECHO: &str = "127.0.0.1:5399";
/// The server's processor; everything else runs on the other one.
const SERVER_CPU: usize = 0;
const OTHER_CPU: usize = 1;
/// The client's ports, and the questions under way on each.
const PORTS: usize = 16;
const UNDER_WAY: usize = 16;
/// A question without an answer for this long counts as lost.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long another server may take to load its rules.
const LOAD: Duration = Duration::from_secs(60);
/// Cached names that are asked for in turn.
const CACHED: u32 = 1000;

/// Rules of the policy.
fn rules() -> Rules {
    Rules(if quick() { 100_000 } else { 1_000_000 })
}

/// The length of one measurement.
fn cell() -> Duration {
    Duration::from_millis(if quick() { 300 } else { 1000 })
}

/// One server in the race.
struct Entry {
    name: String,
    address: &'static str,
    pid: u32,
    child: Option<Child>,
    rates: [Vec<f64>; 3],
    cost: [Vec<f64>; 3],
    lost: usize,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn main() {
    let Some(mut world) = World::build() else { return };
    let socket = world.internet.peer.netns.enter(|| UdpSocket::bind(UPSTREAM)).expect("the port is free");
    Upstream::start(socket, OTHER_CPU);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let echoes =
        [echo(&world, "echo, each for itself", ECHO, false), echo(&world, "echo, by port", GROUPING_ECHO, true)];
    let mut entries = vec![ours(&mut world)];
    entries.extend(echoes);
    for peer in &PEERS {
        let dir = directory.path().join(peer.address);
        std::fs::create_dir(&dir).expect("the temporary directory is writable");
        pin_this_thread(SERVER_CPU);
        let child = peer.start(rules(), &dir, UPSTREAM, |program| world.gateway.netns.command(program));
        pin_this_thread(OTHER_CPU);
        let Some(child) = child else {
            println!("{} is not installed (packaging/setup bench)", peer.name);
            continue;
        };
        let entry = Entry::new(peer.name, peer.address, child.id(), Some(child));
        if wait(&world, &entry, LOAD) {
            entries.push(entry);
        } else {
            let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
            println!("{} gives no right answer within {LOAD:?}: {}", peer.name, log.lines().last().unwrap_or_default());
        }
    }
    race(&world, &mut entries);
    print(&entries);
}

impl Entry {
    fn new(name: &str, address: &'static str, pid: u32, child: Option<Child>) -> Self {
        Self {
            name: name.to_owned(),
            address,
            pid,
            child,
            rates: Default::default(),
            cost: Default::default(),
            lost: 0,
        }
    }
}

/// Our daemon with all rules in force; says how long that took.
fn ours(world: &mut World) -> Entry {
    name_in(&world.gateway.path("clawgress.toml"), "receivers = 1");
    pin_this_thread(SERVER_CPU);
    world.gateway.enforce(json!({ "version": 1, "allow": { "domains": ["first.example.com"] } }));
    pin_this_thread(OTHER_CPU);
    world.gateway.import(policy(0));
    let pid = world.gateway.pid().expect("the daemon runs");
    let entry = Entry::new("clawgress", OURS, pid, None);
    assert!(wait(world, &entry, LOAD), "the daemon answers");
    entry
}

fn policy(more: u32) -> String {
    let mut domains = rules().patterns();
    domains.extend((0..more).map(|number| format!("more{number}.example.com")));
    json!({ "version": 1, "allow": { "domains": domains } }).to_string()
}

/// A loop that takes and sends by the batch and gives back what it gets. `grouping`: what goes to one port goes as one
/// packet as far as it has the same length, as our server sends it.
fn echo(world: &World, name: &str, address: &'static str, grouping: bool) -> Entry {
    let socket = world.gateway.netns.enter(|| UdpSocket::bind(address)).expect("the port is free");
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::Ipv4PacketInfo, &true)
        .expect("as the server has it");
    std::thread::spawn(move || {
        pin_this_thread(SERVER_CPU);
        first_in_line();
        let report = || nix::cmsg_space!(libc::in_pktinfo);
        let mut received = MultiHeaders::<SockaddrIn>::preallocate(64, Some(report()));
        let mut sent = MultiHeaders::<SockaddrIn>::preallocate(64, Some(report()));
        let mut rooms = vec![[0_u8; 576]; 64];
        let info = libc::in_pktinfo {
            ipi_ifindex: 0,
            ipi_spec_dst: libc::in_addr { s_addr: u32::from_be_bytes([127, 0, 0, 1]).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        loop {
            let mut parts: Vec<[IoSliceMut<'_>; 1]> = rooms.iter_mut().map(|room| [IoSliceMut::new(room)]).collect();
            let got = recvmmsg(socket.as_raw_fd(), &mut received, parts.iter_mut(), MsgFlags::MSG_WAITFORONE, None);
            let Ok(got) = got else { return };
            let heads: Vec<_> = got.map(|message| (message.bytes, message.address)).collect();
            if grouping {
                give_back_by_port(&socket, &info, &heads, &rooms);
                continue;
            }
            let peers: Vec<_> = heads.iter().map(|(_, address)| *address).collect();
            let parts: Vec<[IoSlice<'_>; 1]> =
                heads.iter().zip(&rooms).map(|((length, _), room)| [IoSlice::new(&room[..*length])]).collect();
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            let _ = sendmmsg(socket.as_raw_fd(), &mut sent, &parts, &peers, &control[..], MsgFlags::MSG_DONTWAIT);
        }
    });
    Entry::new(name, address, 0, None)
}

fn give_back_by_port(
    socket: &UdpSocket,
    info: &libc::in_pktinfo,
    heads: &[(usize, Option<SockaddrIn>)],
    rooms: &[[u8; 576]],
) {
    let mut order: Vec<usize> = (0..heads.len()).collect();
    let key = |at: &usize| (heads[*at].1.map(|peer| peer.port()), heads[*at].0);
    order.sort_unstable_by_key(key);
    for group in order.chunk_by(|one, other| key(one) == key(other)) {
        let (length, peer) = heads[group[0]];
        let parts: Vec<IoSlice<'_>> = group.iter().map(|at| IoSlice::new(&rooms[*at][..length])).collect();
        let size = u16::try_from(length).expect("questions are short");
        let both = [ControlMessage::UdpGsoSegments(&size), ControlMessage::Ipv4PacketInfo(info)];
        let control = if group.len() > 1 { &both[..] } else { &both[1..] };
        let _ = sendmsg(socket.as_raw_fd(), &parts, control, MsgFlags::MSG_DONTWAIT, peer.as_ref());
    }
}

/// Whether it gives an address to an allowed name and none to another, in time.
fn wait(world: &World, entry: &Entry, time: Duration) -> bool {
    let socket = client(world, entry.address);
    socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout is legal");
    let end = Instant::now() + time;
    let (mut buffer, mut id) = ([0; 1024], 0_u16);
    let mut ask = |name: &str| {
        id = id.wrapping_add(1);
        let _ = socket.send(&question(id, name));
        // Late answers to earlier questions are none.
        while socket.recv(&mut buffer).is_ok() {
            if buffer[..2] == id.to_be_bytes() {
                return Some((buffer[3] & 15, buffer[7]));
            }
        }
        None
    };
    while Instant::now() < end {
        if ask(&allowed(1)) == Some((0, 1)) && ask(&blocked(1)).is_some_and(|(code, _)| code == 3) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

fn client(world: &World, address: &str) -> UdpSocket {
    let socket = world.gateway.netns.enter(|| UdpSocket::bind("127.0.0.1:0")).expect("the gateway has sockets");
    socket.connect(address).expect("loopback is there");
    socket
}

/// A name that a rule allows exactly.
fn allowed(number: u32) -> String {
    rules().rule(number * 5 + 1).1
}

/// A name that no rule allows, in the zones of those that some do.
fn blocked(number: u32) -> String {
    format!("x{number}.z{}.example.com", number % 1000)
}

/// A name below a wildcard that nobody asked for before.
fn fresh(number: u32) -> String {
    format!("f{number}.{}", rules().rule(number % 100 * 5).1)
}

/// All servers in turn, round by round.
fn race(world: &World, entries: &mut [Entry]) {
    first_in_line();
    let mut next = 0;
    for entry in entries.iter() {
        pin_process(entry.pid, SERVER_CPU);
        first_in_line_process(entry.pid);
        for _ in 0..3 {
            closed_loop(world, entry.address, &packets((0..CACHED).map(allowed)), Some(CACHED as usize), 0);
        }
    }
    let (refused, cached) = (packets((0..20_000).map(blocked)), packets((0..CACHED).map(allowed)));
    for round in 0..rounds() {
        for place in order(round, entries.len()) {
            let entry = &mut entries[place];
            let new = packets((next..next + 60_000).map(fresh));
            next += 60_000;
            for (kind, (packets, count, code)) in
                [(&refused, None, 3), (&cached, None, 0), (&new, Some(3000), 0)].into_iter().enumerate()
            {
                // The echo gives back what it gets, whatever it is.
                if entry.pid == 0 && kind > 0 {
                    continue;
                }
                let code = if entry.pid == 0 { 0 } else { code };
                let before = processor_time(entry.pid);
                let (rate, answered, lost) = closed_loop(world, entry.address, packets, count, code);
                let spent = processor_time(entry.pid).saturating_sub(before);
                entry.rates[kind].push(rate);
                entry.cost[kind].push(spent.as_secs_f64() * 1e6 / answered as f64);
                entry.lost += lost;
            }
        }
    }
}

fn packets(names: impl Iterator<Item = String>) -> Vec<Vec<u8>> {
    names.enumerate().map(|(id, name)| question(id as u16, &name)).collect()
}

/// So many questions under way at any time, over [`PORTS`] ports; `count`: how many in all, else as many as fit into
/// [`cell`]. Answers a second, how many there were, and how many questions had none.
fn closed_loop(
    world: &World,
    address: &str,
    packets: &[Vec<u8>],
    count: Option<usize>,
    code: u8,
) -> (f64, usize, usize) {
    let sockets: Vec<UdpSocket> = (0..PORTS).map(|_| client(world, address)).collect();
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(UNDER_WAY, None);
    let mut rooms = vec![[0_u8; 576]; UNDER_WAY];
    let (mut next, mut answered, mut wrong, mut open) = (0, 0, 0, [0_usize; PORTS]);
    let most = count.unwrap_or(usize::MAX);
    let (start, mut last) = (Instant::now(), Instant::now());
    loop {
        let going = start.elapsed() < cell() || count.is_some();
        let mut idle = true;
        for (socket, open) in sockets.iter().zip(&mut open) {
            let room = (UNDER_WAY - *open).min(most - next.min(most));
            if going && room > 0 {
                let parts: Vec<[IoSlice<'_>; 1]> =
                    (next..next + room).map(|at| [IoSlice::new(&packets[at % packets.len()])]).collect();
                let peers = vec![None; room];
                let none: [ControlMessage<'_>; 0] = [];
                let sent = sendmmsg(socket.as_raw_fd(), &mut headers, &parts, &peers, &none[..], MsgFlags::empty());
                let sent = sent.map_or(0, Iterator::count);
                next += sent;
                *open += sent;
            }
            let mut parts: Vec<[IoSliceMut<'_>; 1]> = rooms.iter_mut().map(|room| [IoSliceMut::new(room)]).collect();
            let got = recvmmsg(socket.as_raw_fd(), &mut headers, parts.iter_mut(), MsgFlags::MSG_DONTWAIT, None);
            let got = got.map_or(0, Iterator::count);
            wrong += rooms[..got].iter().filter(|room| room[3] & 15 != code).count();
            answered += got;
            *open = open.saturating_sub(got);
            if got > 0 {
                last = Instant::now();
                idle = false;
            }
        }
        // Others on this processor (the upstream) get their turn when there is nothing to do.
        if idle {
            let mut waits: Vec<PollFd<'_>> =
                sockets.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN)).collect();
            let _ = poll(&mut waits, PollTimeout::from(20_u8));
        }
        let waiting: usize = open.iter().sum();
        let done = waiting == 0 && (!going || next >= most);
        if done || last.elapsed() > PATIENCE {
            assert!(wrong * 1000 <= answered, "{address}: {wrong} of {answered} answers are wrong");
            let time = (last - start).as_secs_f64();
            return (answered as f64 / time, answered, waiting);
        }
    }
}

fn print(entries: &[Entry]) {
    let mut table = Table::new(
        &format!(
            "{} rules, one processor for the server, {} under way: thousands of answers a second",
            rules().0,
            PORTS * UNDER_WAY
        ),
        &["server", "refused", "us", "ratio", "cached", "us", "ratio", "never seen", "us", "ratio", "lost", "MB"],
    );
    let ours = &entries[0];
    for entry in entries {
        let cells = [0, 1, 2].map(|kind| {
            let rates = &entry.rates[kind];
            if rates.is_empty() {
                return [String::new(), String::new(), String::new()];
            }
            let cost = if entry.pid == 0 { String::new() } else { format!("{:.1}", median(&entry.cost[kind])) };
            [format!("{:.0}", median(rates) / 1e3), cost, format!("{:.2}", ratio(&ours.rates[kind], rates))]
        });
        let [refused, cached, new] = cells;
        let mb = if entry.pid == 0 { String::new() } else { format!("{:.0}", memory(entry.pid).0) };
        let lost = entry.lost.to_string();
        let name = vec![entry.name.clone()];
        let cells = [name, refused.into(), cached.into(), new.into(), vec![lost, mb]].concat();
        let cells: [String; 12] = cells.try_into().expect("twelve columns");
        table.row(cells);
    }
    table.print();
    let best = |kind: usize| {
        let peers = entries[3..].iter().filter(|entry| !entry.rates[kind].is_empty());
        peers.map(|entry| ratio(&ours.rates[kind], &entry.rates[kind])).fold(f64::INFINITY, f64::min)
    };
    let [echo, by_port] = [1, 2].map(|place| ratio(&ours.rates[0], &entries[place].rates[0]));
    let seldom = best(2);
    let many = median(&ours.rates[2]);
    let mut table = Table::new(
        "Against the best of them, and the echo (clawgress / other, medians of rounds)",
        &["work", "ratio", "bar"],
    );
    for (what, ratio, least) in [
        ("refused names, to the best peer", best(0), 1.3),
        ("refused names, to the echo, each for itself", echo, 0.9),
        ("refused names, to the echo by port", by_port, 0.9),
        ("cached names, leases looked at", best(1), 1.3),
    ] {
        table.row([what.to_owned(), format!("{ratio:.2}"), bar(ratio >= least, &format!(">= {least:.2}"))]);
    }
    let reached = bar(seldom >= 1.0 || many >= 40e3, ">= 1.00, or 40 000/s");
    table.row([format!("names never seen ({many:.0}/s)"), format!("{seldom:.2}"), reached]);
    table.print();
}
