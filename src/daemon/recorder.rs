//! The decision log's threads, started before anything is refused and ended after everything else.

use std::sync::Arc;
use std::thread::JoinHandle;

use anyhow::Context;

use super::decided::Decided;
use super::packets::{Packets, Totals};
use crate::decisions::{self, Keep, Log, Options, Sender};
use crate::nft::{ErrorKind, KernelError, Receiver};
use crate::plan::situation::Reports;
use crate::plan::table::refusals::GROUP;
use crate::settings::{Decisions, Settings};

/// The directory of the records in the state directory.
const DIRECTORY: &str = "decisions";

/// The log is there, and the kernel's copies can come; nobody takes them in yet.
pub struct Recorder {
    /// The way in.
    pub sender: Sender,
    /// The way out.
    pub log: Arc<Log>,
    /// What the table shall copy.
    pub reports: Reports,
    totals: Option<Totals>,
    receiver: Option<Result<Receiver, KernelError>>,
    thread: JoinHandle<()>,
}

/// All of it at work.
pub struct Listening {
    sender: Sender,
    packets: Option<Packets>,
    thread: JoinHandle<()>,
}

impl Recorder {
    /// # Errors
    /// The system has no thread left. That packets are not told of is no error: they are refused all the same.
    pub fn start(settings: &Settings) -> anyhow::Result<Self> {
        let keep = Keep { bytes: settings.log.keep_bytes, age: settings.log.keep_age };
        let options = Options { dir: settings.state_dir.join(DIRECTORY), keep, wanted: settings.log.decisions };
        let (sender, log, thread) = decisions::start(&options).context("cannot start the decision log's thread")?;
        let mut reports = match settings.log.decisions {
            Decisions::None => Reports::None,
            Decisions::Block => Reports::Refused,
            Decisions::All => Reports::All,
        };
        let (mut totals, mut receiver) = (None, None);
        if reports != Reports::None {
            // Counters first: what is refused in between is counted and not told, which is the truth.
            totals = Totals::start().ok();
            let bound = Receiver::bind(GROUP);
            if bound.as_ref().is_err_and(|error| error.kind == ErrorKind::NoPacketLog) {
                // The kernel would refuse rules that log, and the whole table with them.
                reports = Reports::None;
            }
            receiver = Some(bound);
        }
        Ok(Self { sender, log, reports, totals, receiver, thread })
    }

    /// Takes in what the kernel copies.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn listen(self, decided: Decided) -> std::io::Result<Listening> {
        let Self { sender, log, totals, receiver, thread, .. } = self;
        let packets = receiver.map(|receiver| Packets::start(totals, receiver, decided, log)).transpose()?;
        Ok(Listening { sender, packets, thread })
    }
}

impl Listening {
    /// Ends it; what was decided until now is recorded.
    pub fn stop(self) {
        if let Some(packets) = self.packets {
            packets.stop();
        }
        self.sender.stop();
        let _ = self.thread.join();
    }
}
