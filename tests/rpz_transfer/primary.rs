//! The gateway's side: the zones, served on loopback without a daemon.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex};

use clawgress::dns::transfer::{self, Algorithm, Key, Limits, Secondary, Settings, Transfers};
use clawgress::plan::rpz::{Action, Edition, Image, Served};
use tokio::runtime::Runtime;

use super::resolvers::start::{KEY, Setup};
use super::resolvers::{free_port, upstream};

/// The secret that all share, base 64.
pub const SECRET: &str = KEY[2];
/// The zone of what is allowed.
pub const ALLOW: &str = "global.allow.rpz.clawgress.";
/// The zone that refuses the rest.
pub const DENY: &str = "deny.rpz.clawgress.";
/// Both.
static ZONES: LazyLock<[String; 2]> = LazyLock::new(|| [ALLOW, DENY].map(str::to_owned));

/// A secondary.
pub struct Who(Secondary);

impl Who {
    pub fn signed(address: Ipv4Addr, port: u16) -> Self {
        let key = Key::new(KEY[0], Algorithm::Sha256, SECRET).unwrap();
        Self(Secondary { address: (address, port).into(), key: Some(key), views: None })
    }

    pub fn unsigned(address: Ipv4Addr, port: u16) -> Self {
        Self(Secondary { address: (address, port).into(), key: None, views: None })
    }
}

/// A running primary; it ends with the test.
pub struct Primary {
    pub address: SocketAddr,
    pub transfers: Arc<Transfers>,
    last: Mutex<Option<[Arc<Edition>; 2]>>,
    _runtime: Runtime,
}

impl Primary {
    pub fn start(who: &[Who], limits: Limits) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listen = vec!["127.0.0.1:0".parse().unwrap()];
        let secondaries = who.iter().map(|who| who.0.clone()).collect();
        let guard = runtime.enter();
        let bound = transfer::bind(Settings { listen, secondaries, limits }).unwrap();
        drop(guard);
        let (address, transfers) = (bound.addresses()[0], bound.transfers());
        runtime.spawn(bound.serve(std::future::pending()));
        Self { address, transfers, last: Mutex::new(None), _runtime: runtime }
    }

    /// One that serves its first zones to one secondary, and how to set that one up.
    pub fn with_one(who: fn(Ipv4Addr, u16) -> Who, first: Image) -> (Self, Setup<'static>) {
        let port = free_port();
        let primary = Self::start(&[who(Ipv4Addr::LOCALHOST, port)], Limits::default());
        primary.publish(1000, first);
        let setup = Setup::following(primary.address, &*ZONES, port, upstream());
        (primary, setup)
    }

    /// What is known of the first secondary and the zone of what is allowed: the serials that it confirmed and that it took
    /// note of.
    pub fn known(&self) -> (Option<u32>, Option<u32>) {
        let report = &self.transfers.report()[0];
        let zone = report.zones.iter().find(|zone| zone.zone == ALLOW).expect("it is served");
        (zone.confirmed, zone.notified)
    }

    /// Serves what is allowed under a serial, as a step from what was served before.
    pub fn publish(&self, serial: u32, image: Image) {
        let mut last = self.last.lock().unwrap();
        let editions = match last.take() {
            Some([allow, deny]) => [Arc::new(allow.follow(image, serial)), deny],
            None => {
                let first = |name: &str, view: &str, image| {
                    Arc::new(Edition::first(Served { view: view.into(), name: name.into(), image }, serial))
                };
                [first(ALLOW, "*", image), first(DENY, "**", Image::from_records([("*", Action::Nxdomain)]))]
            }
        };
        self.transfers.publish(&editions);
        *last = Some(editions);
    }
}
