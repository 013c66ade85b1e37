//! Telemetry: usage and denials over time, from the kernel's counters and from DNS (docs/decisions/0011).
//!
//! A thread of its own reads beside the gate and never holds it up; whoever asks reads for himself, so that every answer
//! is of this moment.

mod clerk;
mod notes;
mod tell;

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use notes::Notes;
pub use tell::{check, metrics, report, stats};

use clerk::Clerk;

use crate::nft::Removals;

/// How long the thread looks away at most: so long may the end of the daemon wait for it.
const GLANCE: Duration = Duration::from_millis(100);
/// Removals come in groups, and are written down in groups. Where the table is not ours alone, leases make events as
/// well, of which nothing is wanted.
const BREATH: Duration = Duration::from_millis(20);

/// The way to the books.
pub struct Telemetry {
    clerk: Arc<Mutex<Clerk>>,
    /// Where others note what happens.
    pub notes: Arc<Notes>,
    started_at: DateTime<Utc>,
    /// The last metrics, and when they were made.
    exposed: Mutex<Option<(Instant, String)>>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Telemetry {
    /// Reads from now on, and takes in what is removed. To be called before the gate changes anything.
    ///
    /// # Errors
    /// The kernel cannot be asked, or the system has no thread left.
    pub fn start(state_dir: &Path, removals: Removals) -> anyhow::Result<Self> {
        let notes = Arc::new(Notes::default());
        let clerk =
            Clerk::open(state_dir, Arc::clone(&notes), removals).context("cannot read the kernel's counters")?;
        let ears = clerk.ears().context("cannot listen to changes of the packet filter")?;
        let (clerk, stop) = (Arc::new(Mutex::new(clerk)), Arc::new(AtomicBool::new(false)));
        let (own, told) = (Arc::clone(&clerk), Arc::clone(&stop));
        let work = move || work(&own, &ears, &told);
        let thread = std::thread::Builder::new().name("telemetry".into()).spawn(work);
        let thread = thread.context("cannot start the telemetry's thread")?;
        Ok(Self {
            clerk,
            notes,
            started_at: Utc::now(),
            exposed: Mutex::default(),
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Ends it: what was counted until now is on the disk.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    fn clerk(&self) -> MutexGuard<'_, Clerk> {
        lock(&self.clerk)
    }
}

fn lock(clerk: &Mutex<Clerk>) -> MutexGuard<'_, Clerk> {
    clerk.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(clerk: &Mutex<Clerk>, ears: &OwnedFd, stop: &AtomicBool) {
    loop {
        let pause = lock(clerk).next.saturating_duration_since(Instant::now()).min(GLANCE);
        let pause = u16::try_from(pause.as_millis()).unwrap_or(u16::MAX);
        let mut descriptors = [PollFd::new(ears.as_fd(), PollFlags::POLLIN)];
        let heard = poll(&mut descriptors, PollTimeout::from(pause)).is_ok_and(|ready| ready > 0);
        if stop.load(Ordering::Relaxed) {
            return lock(clerk).close();
        }
        let mut clerk = lock(clerk);
        if heard {
            clerk.hear();
        }
        if Instant::now() >= clerk.next {
            clerk.read();
        }
        drop(clerk);
        if heard {
            std::thread::sleep(BREATH);
        }
    }
}
