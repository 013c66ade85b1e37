//! Live flows come to be charged to caps that were not known to be theirs when they began.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tracing::error;

use super::Gate;
use crate::core::forecast::Live;
use crate::core::recharge::Recharged;
use crate::daemon::handle::Handle;
use crate::nft::{self, KernelError, Tracked};

/// The least time between two looks at all live flows.
const PAUSE: Duration = Duration::from_millis(100);
/// After a look, so many times as long as it took is let pass: many addresses of capped names must not keep a processor
/// busy.
const REST: u32 = 10;
/// After an error.
const AGAIN: Duration = Duration::from_secs(1);

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
            Ok(Ok(flows)) => flows,
            Ok(Err(error)) => {
                tell(format!("open flows to addresses of capped names cannot be looked for: {error}"));
                tokio::time::sleep(AGAIN).await;
                due.notify_one();
                continue;
            }
            Err(_) => return,
        };
        match gate.run(move |gate| gate.recharge(&flows)).await {
            Ok(Ok(0)) => tell(String::new()),
            Ok(Ok(anew)) => tell(format!(
                "{anew} open flows to addresses of capped names are judged anew: their host has too many classes to charge them"
            )),
            Ok(Err(error)) => {
                tell(format!("open flows to addresses of capped names cannot be charged: {error}"));
                tokio::time::sleep(AGAIN).await;
                due.notify_one();
            }
            Err(_) => return,
        }
        tokio::time::sleep(PAUSE.max(start.elapsed() * REST)).await;
    }
}

impl Gate {
    /// Told when live flows may have to be charged to more caps than their classes.
    pub fn recharge_due(&self) -> Arc<Notify> {
        Arc::clone(&self.recharge)
    }

    /// Gives those of `flows` another class whose far ends are charged to more caps than they are. Gives the number of
    /// flows for which there is no room; they are judged anew.
    ///
    /// # Errors
    /// The kernel refused; flows that have no other class yet go on as they are.
    fn recharge(&mut self, flows: &[Tracked]) -> Result<usize, KernelError> {
        let live: Vec<Live> = flows.iter().map(|flow| flow.live).collect();
        let Recharged { leased, moves, anew } = self.state.recharge(&live, self.now());
        if let Err(error) = self.kernel.commit(&leased.ops) {
            self.state.forget(leased);
            return Err(error);
        }
        let moves = moves.into_iter().filter_map(|(index, class)| Some((flows.get(index)?, class)));
        nft::reclassify(moves).map(|()| anew)
    }
}
