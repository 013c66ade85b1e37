//! Live flows come to be charged to caps that were not known to be theirs when they began.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::error;

use super::Gate;
use crate::core::forecast::Live;
use crate::core::recharge::Recharged;
use crate::daemon::handle::Handle;
use crate::nft::{self, KernelError, Left, Tracked};

/// The least time between two looks at all live flows.
const PAUSE: Duration = Duration::from_millis(100);
/// After a look, so many times as long as it took is let pass: many addresses of capped names must not keep a processor
/// busy.
const REST: u32 = 10;
/// After an error.
const AGAIN: Duration = Duration::from_secs(1);
/// Flows that get their classes in one job, in about a millisecond; leases are granted between two.
const SLICE: usize = 256;

/// What came of flows.
#[derive(Debug, Default)]
struct Charged {
    /// For so many there was no room; they are judged anew.
    anew: usize,
    /// So many go on as they are.
    left: Left,
}

impl Charged {
    fn add(&mut self, other: Self) {
        self.anew += other.anew;
        self.left.flows += other.left.flows;
        self.left.why = self.left.why.take().or(other.left.why);
    }

    /// What is said about it; nothing if all is well.
    fn tell(&self) -> String {
        let mut said = Vec::new();
        if let Some(why) = &self.left.why {
            let flows = self.left.flows;
            said.push(format!("{flows} open flows to addresses of capped names cannot be charged: {why}"));
        }
        if self.anew > 0 {
            said.push(format!(
                "{} open flows to addresses of capped names are judged anew: their host has too many classes to charge them",
                self.anew
            ));
        }
        said.join("; ")
    }
}

/// The places of so many flows, job by job.
fn slices(flows: usize) -> impl Iterator<Item = Range<usize>> {
    (0..flows).step_by(SLICE).map(move |first| first..flows.min(first + SLICE))
}

/// Looks at the live flows whenever `due` is told.
pub async fn follow(gate: Handle, due: Arc<Notify>, stopped: impl Future<Output = ()>) {
    tokio::select! {
        () = look(&gate, &due) => {}
        () = stopped => {}
    }
}

/// Until the gate stops. What goes wrong is tried again, and told once until something else comes of it.
async fn look(gate: &Handle, due: &Notify) {
    let mut told = String::new();
    let mut tell = |what: String| {
        if what != told && !what.is_empty() {
            error!("{what}");
        }
        told = what;
    };
    loop {
        due.notified().await;
        let start = Instant::now();
        // Beside the gate: there may be many flows. One that begins meanwhile has its class from the new leases.
        let flows = match tokio::task::spawn_blocking(nft::flows).await {
            Ok(Ok(flows)) => Arc::<[Tracked]>::from(flows),
            Ok(Err(error)) => {
                tell(format!("open flows to addresses of capped names cannot be looked for: {error}"));
                tokio::time::sleep(AGAIN).await;
                due.notify_one();
                continue;
            }
            Err(_) => return,
        };
        let mut charged = Charged::default();
        for slice in slices(flows.len()) {
            let flows = Arc::clone(&flows);
            let Ok(one) = gate.run(move |gate| gate.recharge(&flows[slice])).await else { return };
            charged.add(one);
        }
        tell(charged.tell());
        if charged.left.flows > 0 {
            tokio::time::sleep(AGAIN).await;
            due.notify_one();
        }
        tokio::time::sleep(PAUSE.max(start.elapsed() * REST)).await;
    }
}

impl Gate {
    /// Told when live flows may have to be charged to more caps than their classes.
    pub fn recharge_due(&self) -> Arc<Notify> {
        Arc::clone(&self.recharge)
    }

    /// Gives those of `flows` another class whose far ends are charged to more caps than they are. What the kernel refuses
    /// goes on as it is.
    fn recharge(&mut self, flows: &[Tracked]) -> Charged {
        let live: Vec<Live> = flows.iter().map(|flow| flow.live).collect();
        let Recharged { leased, moves, anew } = self.state.recharge(&live, self.now());
        let refused = |why: KernelError| Left { flows: moves.len(), why: Some(why) };
        if let Err(error) = self.kernel.commit(&leased.ops) {
            self.state.forget(leased);
            return Charged { anew: 0, left: refused(error) };
        }
        let flows = moves.iter().filter_map(|(index, class)| Some((flows.get(*index)?, *class)));
        Charged { anew, left: nft::reclassify(flows).unwrap_or_else(refused) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_has_its_turn_and_no_job_many() {
        for flows in [0, 1, SLICE, SLICE + 1, 40_000] {
            let all: Vec<Range<usize>> = slices(flows).collect();
            assert!(all.iter().all(|slice| slice.len() <= SLICE));
            assert_eq!(all.into_iter().flatten().collect::<Vec<_>>(), (0..flows).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_left_is_told_as_one_number_with_the_first_reason() {
        let mut charged = Charged::default();
        assert_eq!(charged.tell(), "");
        for what in ["busy", "lost"] {
            let why = KernelError { kind: crate::nft::ErrorKind::Unknown, op_index: None, errno: 0, what: what.into() };
            charged.add(Charged { anew: 1, left: Left { flows: 2, why: Some(why) } });
            charged.add(Charged::default());
        }
        let said = charged.tell();
        assert!(
            said.starts_with("4 open flows") && said.contains("busy; 2 open flows") && !said.contains("lost"),
            "{said}"
        );
    }
}
