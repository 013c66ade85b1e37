//! Changes that come from elsewhere: other programs in our table, and the machine itself.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::handle::{EndsTheProcess, Handle};
use super::world;
use crate::core::state::World;
use crate::nft::{self, Event, Kernel, KernelError, Options, Watch};
use crate::settings::Settings;
use crate::store;

/// How often the machine is looked at: its addresses, and whether another table switches tracking off.
const LOOK: Duration = Duration::from_secs(2);
/// Foreign changes come in bursts; the repair waits until one is over, so that it repairs once.
const SETTLE: Duration = Duration::from_millis(50);
/// After an error on the watching socket.
const AGAIN: Duration = Duration::from_millis(500);

/// Keeps the picture of the machine current.
pub async fn world(gate: Handle, listen: Vec<SocketAddr>, settings: Settings, stopped: impl Future<Output = ()>) {
    let listen: Arc<[SocketAddr]> = listen.into();
    let redirect = settings.dns.redirect;
    let work = async {
        let mut noted = BTreeSet::new();
        loop {
            note(&gate, &settings.state_dir, &mut noted).await;
            tokio::time::sleep(LOOK).await;
            let Ok((policy, reports)) = gate.run(|gate| (gate.policy.clone(), gate.world.reports)).await else {
                return;
            };
            let listen = Arc::clone(&listen);
            // Beside the gate: all rules of the machine are read, ours with them, and those may be many.
            let look = move || {
                let mut kernel = Kernel::open(Options::default())?;
                Ok::<_, KernelError>(world::look(&mut kernel, &listen, redirect, reports, policy.as_deref()))
            };
            let Ok(Ok(fresh)) = tokio::task::spawn_blocking(look).await else { continue };
            let result = gate
                .run(move |gate| {
                    let now = gate.now();
                    gate.sweep(now.ms);
                    let swollen = gate.settle();
                    gate.retry_caps();
                    (swollen, gate.meet(World { reports: gate.world.reports, ..fresh }))
                })
                .await;
            let Ok((swollen, followed)) = result else { return };
            if swollen {
                // Here: one more thread would take an arena of the allocator that the next reading of a policy could use.
                nft::give_back_memory();
            }
            match followed {
                Ok(true) => info!("the machine's addresses or other tables changed; the table follows"),
                Ok(false) => {}
                Err(refused) => error!("the table cannot follow the machine's change: {refused}"),
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = stopped => {}
    }
}

/// Writes down for the next boot behind which interfaces agents live. Interfaces that are gone for a while do not make
/// the list empty: what was known is better than nothing.
async fn note(gate: &Handle, state_dir: &Path, noted: &mut BTreeSet<String>) {
    let Ok(guarded) = gate.run(|gate| gate.world.guarded.clone()).await else { return };
    if guarded.is_empty() || guarded == *noted {
        return;
    }
    let (dir, list) = (state_dir.to_owned(), guarded.clone());
    match tokio::task::spawn_blocking(move || store::write_guarded(&dir, &list)).await {
        Ok(Ok(())) => *noted = guarded,
        // Told by others where it matters, and tried again.
        Ok(Err(error)) => debug!("{error}"),
        Err(_) => {}
    }
}

/// Undoes what others do to our table; for kernels that cannot lock it. Its thread ends with the process.
pub fn table(gate: Handle) {
    let runtime = tokio::runtime::Handle::current();
    let work = move || {
        let _guard = EndsTheProcess("the watch over the table");
        let Ok(port) = runtime.block_on(gate.run(|gate| gate.kernel().port())) else { return };
        loop {
            let mut watch = match Watch::open(port) {
                Ok(watch) => watch,
                Err(error) => {
                    error!("cannot watch the table for changes by other programs: {error}");
                    std::thread::sleep(AGAIN);
                    continue;
                }
            };
            // Whatever happened while nobody watched.
            let mut done = repair(&runtime, &gate, None);
            while done == Repair::Done {
                let Ok(event) = watch.wait() else { break };
                if matches!(event, Event::UsedUp(_)) {
                    continue;
                }
                std::thread::sleep(SETTLE);
                while matches!(watch.try_next(), Ok(Some(_))) {}
                done = repair(&runtime, &gate, Some(&event));
            }
            if done == Repair::Gone {
                return;
            }
            std::thread::sleep(AGAIN);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("watch".into()).spawn(work) {
        error!("cannot watch the table for changes by other programs: {error}");
    }
}

/// What came of an attempt to repair.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repair {
    /// The table is as it should be.
    Done,
    /// The kernel refused; to be tried again, because nobody may ever change the table again.
    Refused,
    /// The gate has stopped.
    Gone,
}

fn repair(runtime: &tokio::runtime::Handle, gate: &Handle, event: Option<&Event>) -> Repair {
    let foreign = matches!(event, Some(Event::Changed(_) | Event::Deleted(_)));
    match runtime.block_on(gate.run(move |gate| gate.repair_after(foreign))) {
        Ok(Ok(true)) => {
            match event {
                Some(Event::Changed(who)) => {
                    warn!("{} (process {}) changed the table; it was restored", who.name, who.pid);
                }
                Some(Event::Deleted(who)) => {
                    warn!("{} (process {}) removed the table; it was restored", who.name, who.pid);
                }
                Some(Event::Lost | Event::UsedUp(_)) | None => {
                    warn!("the table was not as it should be; it was restored")
                }
            }
            Repair::Done
        }
        Ok(Ok(false)) => Repair::Done,
        Ok(Err(error)) => {
            error!("somebody changed the table and it cannot be restored: {error}");
            Repair::Refused
        }
        Err(_) => Repair::Gone,
    }
}
