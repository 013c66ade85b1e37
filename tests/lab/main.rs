//! The lab: what the gateway promises, shown with packets.
//!
//! Each file is one chapter of the promises, each test one promise; the world they act in is in [`world`].
//! Root rights are needed. `cargo test --test lab world_` tests the lab itself, without the daemon.

#[allow(dead_code, unused_imports, reason = "the demo uses the same world; neither uses all of it")]
mod world;

/// A new world, or the end of the test where there are no root rights.
macro_rules! world {
    () => {
        match crate::world::World::build() {
            Some(world) => world,
            None => return,
        }
    };
}

/// A public address and a second one, and the same for IPv6.
const SITE: &str = "93.184.216.34";
const SITE6: &str = "2606:4700::34";
const OTHER: &str = "93.184.216.99";
const OTHER6: &str = "2606:4700::99";
/// What agents a and b send from.
const A: [&str; 2] = ["192.168.10.10/32", "fd00:10::10/128"];
const B: [&str; 2] = ["192.168.11.10/32", "fd00:11::10/128"];
/// The segments of a and b, without that of bystander c.
const AGENTS: [&str; 4] = ["192.168.10.0/24", "192.168.11.0/24", "fd00:10::/64", "fd00:11::/64"];

/// How often a test repeats what must go right every time; `LAB_ROUNDS` overrides it.
fn rounds(usual: usize) -> usize {
    std::env::var("LAB_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

mod attack_caps;
mod attack_monitor;
mod attack_rest;
mod attack_turn;
mod back;
mod bursts;
mod cap;
mod cap_period;
mod cap_restart;
mod cap_scale;
mod cap_shared;
mod daemon;
mod deb;
mod deny;
mod differential;
mod dns;
mod early;
mod faults;
mod flood;
mod foreign;
mod hosts;
mod icmp;
mod kill9;
mod lease;
mod lists;
mod log;
mod log_sums;
mod monitor;
mod notrack;
mod plan;
mod ports;
mod rate;
mod ready;
mod refusal;
mod rest;
mod scale;
mod scales;
mod scope;
mod services;
mod spoof;
mod swap;
mod telemetry;
mod vyos;
mod watchdog;
mod window;
mod world_smoke;
mod zones;
