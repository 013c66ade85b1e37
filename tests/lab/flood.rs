//! A flood of refusals does not slow down what is allowed, and fills neither memory nor disk.
//!
//! The flood comes in by one processor and what is allowed by the other, as a network card with two queues would have
//! it. `FLOOD_SECONDS` says how long each flood lasts.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clawgress::decisions::Layer;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde_json::json;

use crate::log_sums::{counted, recorded};
use crate::world::{Agent, World};
use crate::{A, B, SITE};

/// Refused packets a second.
const RATE: u64 = 100_000;
/// The least share of the rate before that what is allowed must keep.
const SHARE: f64 = 0.9;
/// The most of one processor that the daemon may take, built without optimisation.
const DAEMON: f64 = 0.3;
/// Measurements with and without a flood; the best pair counts, because others work on this machine as well.
const ROUNDS: usize = 6;
/// Packets handed over by one system call.
const BATCH: usize = 64;
/// Megabytes on disk that the daemon may use here. A flood of minutes has more, because what is removed adds up to nothing.
const DISK: [u64; 2] = [1, 64];
/// Memory that the daemon may need for a flood, KiB.
const MEMORY: u64 = 48 << 10;

/// How long each flood lasts where somebody says so.
fn wanted_span() -> Option<Duration> {
    let seconds = std::env::var("FLOOD_SECONDS").ok().and_then(|text| text.parse().ok());
    seconds.map(Duration::from_secs_f64)
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    // Where there is one processor only, all share it.
    let _ = set.set(cpu).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
}

/// Sends to the places in turn until told to stop, so many a second at most. What a packet meets on its way is work of
/// the thread that sends it: gives how many were sent in a second, and in a second of its processor's time.
fn send(agent: &Agent, cpu: usize, places: &[Ipv4Addr], rate: u64, stop: &AtomicBool) -> (f64, f64) {
    agent.netns.enter(|| {
        pin(cpu);
        let socket = UdpSocket::bind((agent.v4, 0)).expect("a port is free");
        let mut headers = MultiHeaders::preallocate(BATCH, None);
        let packet = [IoSlice::new(&[7; 64])];
        let packets: Vec<_> = (0..BATCH).map(|_| packet).collect();
        let mut turn = places.iter().cycle();
        let (start, busy, mut sent) = (Instant::now(), processor_time(), 0);
        while !stop.load(Ordering::Relaxed) {
            if sent >= start.elapsed().as_micros() as u64 * rate / 1_000_000 {
                std::hint::spin_loop();
                continue;
            }
            let to: Vec<_> =
                turn.by_ref().take(BATCH).map(|to| Some(SockaddrIn::from(SocketAddrV4::new(*to, 443)))).collect();
            let _ = sendmmsg(socket.as_raw_fd(), &mut headers, &packets, &to, [], MsgFlags::empty()).map(|_| ());
            sent += BATCH as u64;
        }
        (sent as f64 / start.elapsed().as_secs_f64(), sent as f64 / (processor_time() - busy).as_secs_f64())
    })
}

/// The processor's time that this thread has had.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every thread has one");
    Duration::from(time)
}

/// Packets that b gets through: in a second, and in a second of a processor's time. The latter does not depend on what
/// else this machine does.
fn allowed_rate(world: &World, span: Duration) -> (f64, f64) {
    let stop = AtomicBool::new(false);
    let site = [SITE.parse().expect("an address")];
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| send(&world.b, 1, &site, u64::from(u32::MAX), &stop));
        let before = arrived(world);
        std::thread::sleep(span);
        stop.store(true, Ordering::Relaxed);
        let (rate, efficiency) = sender.join().expect("the sender ends");
        let share = (arrived(world) - before) as f64 / (rate * span.as_secs_f64());
        (rate * share, efficiency * share)
    })
}

/// Packets that the internet's interface has received.
fn arrived(world: &World) -> u64 {
    let text = world.internet.peer.netns.enter(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let text = text.expect("proc is mounted");
    let line = text.lines().find_map(|line| line.trim().strip_prefix("eth0:")).expect("the internet has eth0");
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a line of counters")
}

/// Processor's time that the daemon has had.
fn daemon_time(world: &World) -> Duration {
    /// `USER_HZ`, the unit of proc_pid_stat(5).
    const TICKS: u64 = 100;
    let pid = world.gateway.pid().expect("it runs");
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("proc is mounted");
    let fields = text.rsplit(") ").next().expect("a name in parentheses").split(' ').skip(11).take(2);
    let ticks: u64 = fields.map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// Resident memory of the daemon, KiB.
fn memory(world: &World) -> u64 {
    let pid = world.gateway.pid().expect("it runs");
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("proc is mounted");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of memory");
    line.split_whitespace().next().and_then(|word| word.parse().ok()).expect("a number")
}

fn disk(world: &World) -> u64 {
    let entries = std::fs::read_dir(world.gateway.path("state/decisions")).expect("the directory");
    entries.map(|entry| entry.expect("an entry").metadata().map_or(0, |data| data.len())).sum()
}

#[test]
fn a_flood_of_refusals_slows_nobody_down_and_is_counted_whole() {
    let mut world = world!();
    for rule in [
        "add table inet sink".to_owned(),
        "add chain inet sink in { type filter hook prerouting priority -400 ; }".to_owned(),
        "add rule inet sink in udp dport 443 drop".to_owned(),
    ] {
        let mut nft = world.internet.peer.netns.command("nft");
        assert!(nft.arg(rule).status().is_ok_and(|status| status.success()), "is nft installed? run `make setup`");
    }
    let room = DISK[usize::from(wanted_span().is_some())];
    world.gateway.settings(&format!("[log]\nkeep_megabytes = {room}\n"));
    world.gateway.enforce(json!({ "version": 1, "hosts": {
        "a": { "sources": A, "allow": { "domains": ["api.example.com"] } },
        "b": { "sources": B, "allow": { "ips": [SITE] } } } }));
    let places: Vec<Ipv4Addr> = (0..4096).map(|n| Ipv4Addr::from_bits(0x9765_0000 | n)).collect();
    allowed_rate(&world, Duration::from_millis(200));
    let (before, mut best) = (memory(&world), 0.0_f64);
    let span = wanted_span().unwrap_or(Duration::from_millis(700));
    for round in 0..ROUNDS {
        // Floods disturb the tests beside this one.
        if round > 1 && best >= SHARE && wanted_span().is_none() {
            break;
        }
        let (plain, alone) = allowed_rate(&world, span);
        let (stop, daemon) = (AtomicBool::new(false), daemon_time(&world));
        let ((flooded, beside), (flood, _)) = std::thread::scope(|scope| {
            let flood = scope.spawn(|| send(&world.a, 0, &places, RATE, &stop));
            let flooded = allowed_rate(&world, span);
            stop.store(true, Ordering::Relaxed);
            (flooded, flood.join().expect("the sender ends"))
        });
        let daemon = (daemon_time(&world) - daemon).as_secs_f64() / span.as_secs_f64();
        println!(
            "round {round}: {plain:.0} packets/s, {flooded:.0} beside {flood:.0} refused; {alone:.0} in a processor's second, \
             {beside:.0} ({:.3}); the daemon took {daemon:.3} of a processor",
            beside / alone
        );
        best = best.max(beside / alone);
        assert!(daemon < DAEMON, "the daemon took {daemon:.2} of a processor");
        assert!(disk(&world) <= room << 20, "{} octets on disk", disk(&world));
    }
    let grown = memory(&world).saturating_sub(before);
    println!("the daemon grew by {grown} KiB and has {} octets on disk", disk(&world));
    assert!(grown < MEMORY, "the daemon grew by {grown} KiB");
    assert!(best >= SHARE, "what is allowed keeps {best:.2} of its rate at best");
    let kernel = counted(&world.gateway);
    world.gateway.terminate();
    assert!(kernel > 10_000, "only {kernel} were refused");
    assert_eq!(recorded(&world.gateway, Layer::Packet), kernel, "the records stand for all of it");
}
