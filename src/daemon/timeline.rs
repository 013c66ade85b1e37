//! The edges of windows: one timer, set to the next of them.
//!
//! The closing edge needs nobody: the kernel's elements end by themselves. This opens what opens, and writes the ends
//! anew when somebody sets the clock, because the kernel counts down on a clock that does not step.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::gate::Gate;
use super::handle::Handle;

/// How far ahead the timer is set where no window changes, so that it notices when the clock is set.
const FAR: TimeDelta = TimeDelta::days(30);
/// After a failure.
const AGAIN: Duration = Duration::from_millis(500);

/// Keeps the doors as the windows say. `changed`: another policy came into force.
pub async fn keep(gate: Handle, changed: watch::Receiver<()>, stopped: impl Future<Output = ()>) {
    match Timer::start() {
        Ok(timer) => tokio::select! {
            () = work(gate, changed, timer) => {}
            () = stopped => {}
        },
        Err(error) => error!("no timer for time windows, they close but do not open: {error}"),
    }
}

async fn work(gate: Handle, mut changed: watch::Receiver<()>, mut timer: Timer) {
    let mut stepped = false;
    loop {
        let edge = match gate.run(move |gate| gate.tick(stepped)).await {
            Ok(Ok(edge)) => edge,
            Ok(Err(error)) => {
                error!("windows cannot be opened or closed now: {error}");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(_) => return,
        };
        // Between two groups of caps leases get their turn.
        let turn = loop {
            match gate.run(Gate::turn_caps).await {
                Ok(Some(turn)) if turn <= Utc::now() => {}
                Ok(turn) => break turn,
                Err(_) => return,
            }
        };
        if let Err(error) = timer.set(edge.into_iter().chain(turn).min()) {
            warn!("the timer of the time windows cannot be set: {error}");
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        stepped = tokio::select! {
            event = timer.events.recv() => event.unwrap_or(false),
            told = changed.changed() => if told.is_ok() { false } else { return },
        };
        if stepped {
            info!("the clock was set; the ends of time windows are written anew");
        }
    }
}

/// A timer on the wall clock that is cancelled when the clock is set (timerfd_create(2)). A thread waits for it.
pub(super) struct Timer {
    timer: Arc<TimerFd>,
    /// True: the clock was set. False: the time has come.
    pub events: mpsc::Receiver<bool>,
}

impl Timer {
    pub fn start() -> std::io::Result<Self> {
        let timer = Arc::new(TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_CLOEXEC)?);
        let (tell, events) = mpsc::channel(1);
        let waiting = Arc::clone(&timer);
        let wait = move || {
            loop {
                let event = match waiting.wait() {
                    Ok(()) => false,
                    Err(Errno::ECANCELED) => true,
                    Err(Errno::EINTR) => continue,
                    Err(_) => return,
                };
                if tell.blocking_send(event).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("timeline".into()).spawn(wait)?;
        Ok(Self { timer, events })
    }

    /// Sets it to an instant; `None`: far away.
    pub fn set(&self, next: Option<DateTime<Utc>>) -> nix::Result<()> {
        let at = next.unwrap_or_else(|| Utc::now() + FAR);
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        self.timer.set(Expiration::OneShot(TimeSpec::new(at.timestamp(), at.timestamp_subsec_nanos().into())), flags)
    }
}
