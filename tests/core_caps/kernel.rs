//! The packet filter as far as one exfil cap goes, step by step: what a packet does between two steps of others.

use clawgress::core::caps::Reading;
use clawgress::plan::meter::CapState;

use super::random::Random;

/// Longer packets are several in one.
const LONGEST_SINGLE: u64 = 1500;
/// Headers of IPv4 and of IPv6 with TCP and its timestamps.
const HEADERS: [u64; 2] = [52, 72];

/// Where in the order of reading that counter is.
const PASSED: usize = 2;

/// A packet on its way through the rules.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Octets as the kernel sees it.
    len: u64,
    /// Octets over the wire behind the gateway.
    wire: u64,
    v6: bool,
    /// Another cap, charged after this one, refuses it.
    refused_behind: bool,
}

impl Packet {
    /// Up to 64 KiB, merged or not.
    pub fn random(random: &mut Random) -> Self {
        let v6 = random.below(2) == 0;
        let refused_behind = random.below(20) == 0;
        if random.below(2) == 0 {
            let len = 40 + random.below(LONGEST_SINGLE - 39);
            return Self { len, wire: len, v6, refused_behind };
        }
        Self { refused_behind, ..Self::merged(2 + random.below(43), 1280 + random.below(221), v6) }
    }

    /// So many packets of so many octets in one.
    pub fn merged(parts: u64, octets: u64, v6: bool) -> Self {
        let headers = HEADERS[usize::from(v6)];
        let parts = parts.min((65_535 - headers) / (octets - headers)).max(1);
        let len = headers + parts * (octets - headers);
        Self { len, wire: parts * octets, v6, refused_behind: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Charge,
    Tell,
    ChargeRest,
    CountOver,
    TellRest,
    CountStopped,
    Spill,
    CountMerged,
    Count,
}

/// One of two quotas: what `nft_quota` does.
#[derive(Clone, Copy, Debug, Default)]
struct Quota {
    limit: u64,
    used: u64,
    told: bool,
}

impl Quota {
    fn charge(&mut self, len: u64) -> bool {
        self.used += len;
        self.used >= self.limit
    }

    fn set(&mut self, limit: u64) {
        (self.limit, self.told) = (limit, false);
    }
}

/// The objects of one cap.
#[derive(Debug, Default)]
pub struct Kernel {
    first: Quota,
    rest: Quota,
    counted: Reading,
    /// Packets beyond both limits are refused and not only dropped.
    pub last: bool,
    on_the_way: Vec<(Packet, Step)>,
    /// Quotas that told to be used up and were not heard yet.
    pub events: usize,
    /// Octets that left the gateway.
    pub wire: u64,
    /// The same when the last reading was taken.
    pub marked: u64,
    /// Packets that were refused.
    pub refused: u64,
}

impl Kernel {
    /// The objects as a policy makes them.
    pub fn make(&mut self, state: &CapState) {
        let wire = self.wire;
        *self = Self { wire, last: state.last, ..Self::default() };
        (self.first.limit, self.rest.limit) = (state.limit, state.rest);
    }

    /// Like a rewrite of the table by somebody who knows that the kernel counted no less than this.
    pub fn make_anew(&mut self, state: &CapState, counted: Reading) {
        self.make(state);
        let charged = counted.passed + counted.spilled;
        self.first = Quota { limit: state.limit.max(charged), used: charged, told: false };
        self.rest = Quota { limit: state.rest.max(counted.over), used: counted.over, told: false };
        self.counted = counted;
    }

    /// New limits.
    pub fn set(&mut self, state: &CapState) {
        self.first.set(state.limit);
        self.rest.set(state.rest);
        self.last = state.last;
    }

    /// The limits that a dump shows.
    pub fn state(&self) -> CapState {
        CapState { limit: self.first.limit, rest: self.rest.limit, last: false, lenient: false }
    }

    /// Whether the first quota is used up.
    pub fn is_over(&self) -> bool {
        self.first.used >= self.first.limit
    }

    /// Octets that left or that no limit can stop any more.
    pub fn settled(&self) -> u64 {
        let passing = self
            .on_the_way
            .iter()
            .filter(|(_, step)| matches!(step, Step::CountOver | Step::CountMerged | Step::Count));
        self.wire + passing.map(|(packet, _)| packet.wire).sum::<u64>()
    }

    /// A packet comes.
    pub fn arrive(&mut self, packet: Packet) {
        self.on_the_way.push((packet, Step::Charge));
    }

    /// A packet comes and goes.
    pub fn pass(&mut self, packet: Packet) {
        self.drain();
        self.arrive(packet);
        self.drain();
    }

    /// All packets end their way.
    pub fn drain(&mut self) {
        while !self.on_the_way.is_empty() {
            self.step(0);
        }
    }

    /// The counters, one after the other in the order in which they are read; packets go on meanwhile.
    pub fn read(&mut self, random: &mut Random) -> Reading {
        let mut octets = [0; 5];
        for (index, octet) in octets.iter_mut().enumerate() {
            self.advance(random);
            *octet = self.counted.into_array()[index];
            if index == PASSED {
                self.marked = self.wire;
            }
        }
        Reading::from_array(octets)
    }

    /// Some packets come, some go on.
    pub fn advance(&mut self, random: &mut Random) {
        for _ in 0..random.below(12) {
            if self.on_the_way.len() < 4 && random.below(6) == 0 {
                self.arrive(Packet::random(random));
            }
            if !self.on_the_way.is_empty() {
                self.step(usize::try_from(random.below(self.on_the_way.len() as u64)).unwrap());
            }
        }
    }

    fn step(&mut self, index: usize) {
        let (packet, step) = self.on_the_way[index];
        let settled = if packet.refused_behind { Step::Spill } else { Step::CountMerged };
        let next = match step {
            Step::Charge if self.first.charge(packet.len) => Some(Step::Tell),
            Step::Charge => Some(settled),
            Step::Tell => {
                self.events += usize::from(!std::mem::replace(&mut self.first.told, true));
                Some(Step::ChargeRest)
            }
            Step::ChargeRest if self.rest.charge(packet.len) => Some(Step::TellRest),
            Step::ChargeRest => Some(Step::CountOver),
            Step::CountOver => {
                self.counted.over += packet.len;
                Some(settled)
            }
            Step::TellRest => {
                self.events += usize::from(!std::mem::replace(&mut self.rest.told, true));
                Some(Step::CountStopped)
            }
            Step::CountStopped => {
                self.counted.over += packet.len;
                Some(Step::Spill)
            }
            Step::Spill => {
                self.counted.spilled += packet.len;
                self.refused += u64::from(self.last);
                None
            }
            Step::CountMerged => {
                if packet.len > LONGEST_SINGLE {
                    let merged = if packet.v6 { &mut self.counted.merged6 } else { &mut self.counted.merged4 };
                    *merged += packet.len;
                }
                Some(Step::Count)
            }
            Step::Count => {
                self.counted.passed += packet.len;
                self.wire += packet.wire;
                None
            }
        };
        match next {
            Some(next) => self.on_the_way[index].1 = next,
            None => drop(self.on_the_way.remove(index)),
        }
    }
}
