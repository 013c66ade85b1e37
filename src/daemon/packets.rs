//! Listens to the kernel's copies of refused packets, and reads its counters: what was refused and not copied is known
//! by its number.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::decided::{Decided, cause};
use crate::decisions::{Guard, Log};
use crate::nft::{Count, KernelError, Receiver, Tally};
use crate::plan::table::refusals::{GROUP, REFUSALS};
use crate::policy::model::Mode;

/// How often counters are read.
const TICK: Duration = Duration::from_secs(1);
/// How long the thread looks away at most, milliseconds: so long may the end of the daemon wait for it.
const GLANCE: u16 = 100;
/// Datagrams taken in before the clock is looked at.
const DATAGRAMS: usize = 64;
/// Before the group is asked for again.
const AGAIN: Duration = Duration::from_secs(2);
/// The part of the log that has trouble when nobody tells of packets.
const PACKETS: &str = "packets";

/// What was refused since the start, by [`REFUSALS`].
pub struct Totals {
    tally: Tally,
    counters: [(Option<Count>, u64); REFUSALS.len()],
}

impl Totals {
    /// Counts from now on.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn start() -> Result<Self, KernelError> {
        let mut totals = Self { tally: Tally::open()?, counters: [(None, 0); REFUSALS.len()] };
        totals.read()?;
        totals.counters.iter_mut().for_each(|(_, total)| *total = 0);
        Ok(totals)
    }

    fn read(&mut self) -> Result<(), KernelError> {
        for (refusal, (last, total)) in REFUSALS.iter().zip(&mut self.counters) {
            let Some(count) = self.tally.first_counter(refusal.chain)? else { continue };
            *total += grown(*last, count);
            *last = Some(count);
        }
        Ok(())
    }

    fn list(&self) -> Vec<(crate::decisions::Cause, u64)> {
        self.counters.iter().enumerate().map(|(place, (_, total))| (cause(place, Mode::Enforce), *total)).collect()
    }
}

/// How much was counted since the last look. A rule that was written anew, by a repair, counts from the beginning.
fn grown(last: Option<Count>, count: Count) -> u64 {
    match last {
        Some(last) if last.handle == count.handle && last.packets <= count.packets => count.packets - last.packets,
        _ => count.packets,
    }
}

/// The listening thread.
pub struct Packets {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Packets {
    /// Starts it. `receiver`: `Err` is tried again, and told as the log's trouble until it succeeds.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        totals: Option<Totals>,
        receiver: Result<Receiver, KernelError>,
        decided: Decided,
        log: Arc<Log>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let guard = Guard { log: Arc::clone(&log), without: "refused packets are not recorded" };
        let mut listener = Listener { totals, decided, log, lost: 0, stop: told };
        let work = move || {
            let _guard = guard;
            listener.work(receiver);
        };
        let thread = std::thread::Builder::new().name("packets".into()).spawn(work)?;
        Ok(Self { stop, thread })
    }

    /// Ends it; what the kernel has copied is taken in before.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

struct Listener {
    totals: Option<Totals>,
    decided: Decided,
    log: Arc<Log>,
    /// Copies that earlier receivers lost.
    lost: u64,
    stop: Arc<AtomicBool>,
}

impl Listener {
    fn work(&mut self, mut receiver: Result<Receiver, KernelError>) {
        loop {
            let error = match receiver {
                Ok(open) => {
                    if self.log.set_trouble(PACKETS, None) {
                        info!("refused packets are recorded again");
                    }
                    match self.listen(open) {
                        Ok(()) => return,
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            let sentence = format!("refused packets are refused and counted, but not recorded one by one: {error}");
            if self.log.set_trouble(PACKETS, Some(sentence.clone())) {
                warn!("{sentence}");
            }
            let end = Instant::now() + AGAIN;
            while Instant::now() < end {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(GLANCE.into()));
            }
            self.count();
            receiver = Receiver::bind(GROUP);
        }
    }

    /// Until told to stop.
    fn listen(&mut self, mut receiver: Receiver) -> Result<(), KernelError> {
        let mut tick = Instant::now() + TICK;
        loop {
            if receiver.wait(GLANCE)? {
                self.take(&mut receiver, DATAGRAMS)?;
            }
            let stop = self.stop.load(Ordering::Relaxed);
            if stop || Instant::now() >= tick {
                tick = Instant::now() + TICK;
                // All that was copied when the counters were last read is told before they are read again.
                while self.take(&mut receiver, DATAGRAMS)? {}
                self.count();
            }
            if stop {
                std::thread::sleep(Duration::from_millis(GLANCE.into()));
                while self.take(&mut receiver, DATAGRAMS)? {}
                self.tell();
                return Ok(());
            }
        }
    }

    fn take(&mut self, receiver: &mut Receiver, most: usize) -> Result<bool, KernelError> {
        let decided = &self.decided;
        let more = receiver.take(most, |copied| decided.packet(&copied));
        self.log.set_lost(self.lost + receiver.lost());
        if more.is_err() {
            self.lost += receiver.lost();
        }
        more
    }

    fn count(&mut self) {
        // Without the counters the sums are wrong, and nothing else.
        if let Some(totals) = &mut self.totals
            && totals.read().is_ok()
        {
            self.tell();
        }
    }

    fn tell(&self) {
        if let Some(totals) = &self.totals {
            self.decided.sender().totals(totals.list());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_begin_again_lose_nothing() {
        let count = |handle, packets| Count { handle, packets };
        assert_eq!(grown(None, count(3, 7)), 7, "a table that was made since");
        assert_eq!(grown(Some(count(3, 7)), count(3, 12)), 5);
        assert_eq!(grown(Some(count(3, 7)), count(4, 9)), 9, "another rule");
        assert_eq!(grown(Some(count(3, 7)), count(3, 2)), 2, "the rule of a new table");
    }
}
