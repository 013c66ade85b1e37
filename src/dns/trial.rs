//! The driver without its sockets and without the kernel, for trying it with octets that no program would send
//! (`fuzz/`). Nothing here waits, sends or leases, so nothing of it can open an address.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use hickory_proto::op::Message;

use super::budget::Budget;
use super::counters::Counters;
use super::filter::Answer;
use super::pending::Pending;
use super::query::{Parsed, Transport, parse};
use super::quick::{Quick, Turn};
use super::reply;
use super::resolver::Resolver;
use super::service::{Client, Service, Step};
use super::settings::OutOfScope;
use super::upstream::{Pool, Upstream};
use crate::core::judge::Judge;
use crate::core::lease::{Acked, Done, LeaseError, LeaseRequest, Leaser, Wanted};

/// What became of a client's packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It gets no answer.
    Dropped,
    /// This goes back, and no upstream was asked.
    Answered(Vec<u8>),
    /// An upstream would be asked now.
    LookedUp,
}

/// Leases nothing.
struct Nobody;

impl Leaser for Nobody {
    async fn lease(&self, _request: LeaseRequest) -> Result<Acked, LeaseError> {
        Err(LeaseError::Busy)
    }

    fn lease_all(self: &Arc<Self>, requests: Vec<LeaseRequest>, done: Done) {
        done(requests.iter().map(|_| Err(LeaseError::Busy)).collect());
    }

    fn held(&self, _wanted: &Wanted<'_>) -> Option<Acked> {
        None
    }
}

/// The driver up to the point where it would have to wait for somebody.
pub struct Trial<J> {
    service: Arc<Service<J, Nobody>>,
}

impl<J: Judge> Trial<J> {
    /// A driver under one policy that refuses queries from outside the scope. `None`: its upstreams cannot be named.
    pub fn new(judge: Arc<J>) -> Option<Self> {
        let counters = Arc::new(Counters::default());
        // Never asked: whoever would ask is dropped before.
        let upstream = Upstream::plain(SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
        let pool = Pool::new(&[upstream], Arc::clone(&counters), || Err("not encrypted".to_owned())).ok()?;
        Some(Self {
            service: Arc::new(Service {
                judge: Arc::new(ArcSwapOption::new(Some(judge))),
                leaser: Arc::new(Nobody),
                resolver: Resolver::new(pool, Arc::clone(&counters), 1).ok()?,
                pending: Pending::default(),
                budget: Budget::new(None),
                counters,
                out_of_scope: OutOfScope::Refuse,
                observer: Arc::new(()),
            }),
        })
    }

    /// What the quick way answers to a packet by UDP; `None`: it leaves the packet to [`Trial::take`], which gives the same.
    pub fn quick(&self, packet: &[u8], source: IpAddr, interface: Option<&str>) -> Option<Vec<u8>> {
        let mut answer = Vec::new();
        let way = Turn::begin(&self.service).answer(packet, source, interface, &mut answer);
        matches!(way, Quick::Told).then_some(answer)
    }

    /// Takes a client's packet.
    pub fn take(&self, packet: &[u8], source: IpAddr, interface: Option<&str>, tcp: bool) -> Taken {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let client = Client { source, interface: interface.map(Arc::from) };
        match self.service.take(packet, client, transport, None) {
            Step::Drop => Taken::Dropped,
            Step::Ready(bytes) => Taken::Answered(bytes),
            Step::Later(_) => Taken::LookedUp,
        }
    }
}

/// The answer to `packet` with all that an upstream said, as hosts in monitor mode get it. `None`: `packet` asks nothing.
pub fn unpoliced(packet: &[u8], upstream: &Message, age: u32) -> Option<Vec<u8>> {
    with(packet, |query| Answer::unpoliced(query, upstream, age))
}

/// The answer to `packet` with an answer that was filtered. `None`: `packet` asks nothing.
pub fn filtered(packet: &[u8], answer: Answer) -> Option<Vec<u8>> {
    with(packet, |_| answer)
}

fn with(packet: &[u8], answer: impl FnOnce(&hickory_proto::rr::Name) -> Answer) -> Option<Vec<u8>> {
    match parse(packet, Transport::Udp) {
        Parsed::Query(query) => Some(reply::answer(&query, answer(&query.name), false)),
        _ => None,
    }
}
