//! The watchdog of the service manager (sd_watchdog_enabled(3)): it is told that the daemon lives only after the gate's
//! thread has done something, because a daemon whose gate hangs answers nobody while everything else looks well.

use std::future::Future;
use std::time::Duration;

use super::handle::Handle;

/// Signs of life within the time after which the manager kills, so that one may come late.
const SIGNS: u32 = 3;

/// Tells the service manager while the gate works; nothing where nobody waits for it.
pub async fn tell(gate: Handle, stopped: impl Future<Output = ()>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    tokio::select! {
        () = work(gate, limit / SIGNS) => {}
        () = stopped => {}
    }
}

async fn work(gate: Handle, pause: Duration) {
    while gate.run(|_| ()).await.is_ok() {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]);
        tokio::time::sleep(pause).await;
    }
}
