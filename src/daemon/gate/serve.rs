//! The gate's thread.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::{GROUP, Gate};
use crate::daemon::handle::{self, EndsTheProcess, Group, Handle, Message, Waiting};

impl Gate {
    /// Starts the gate's thread.
    pub fn spawn(self) -> std::io::Result<(Handle, std::thread::JoinHandle<()>)> {
        let (leases, waiting) = (Arc::clone(&self.leases), Arc::clone(&self.waiting));
        let gate = Arc::new(Mutex::new(self));
        let handle = handle::to(&gate, leases, &waiting);
        let work = move || {
            let _guard = EndsTheProcess("the gate");
            serve(&gate, &waiting);
        };
        let thread = std::thread::Builder::new().name("gate".into()).spawn(work)?;
        Ok((handle, thread))
    }
}

/// Does what waits until the end. The gate is locked only while it works, so that leases need not wait for this thread.
fn serve(gate: &Mutex<Gate>, waiting: &Mutex<Waiting>) {
    let wait = || waiting.lock().unwrap_or_else(PoisonError::into_inner);
    let wanted = Arc::clone(&wait().wanted);
    loop {
        let Some(first) = wait().next() else { return };
        let (mut job, mut leases, mut taken) = (None, Group::default(), 0);
        let mut next = Some(first);
        // Leases that wait go together and first; a job ends the group.
        while let Some(message) = next.take() {
            taken += 1;
            match message {
                Message::Lease(requests, done) => leases.add(requests, done),
                Message::Job(work) => job = Some(work),
                Message::Stop => return,
            }
            if job.is_none() && leases.len() < GROUP {
                next = wait().try_next();
            }
        }
        let mut gate = gate.lock().unwrap_or_else(PoisonError::into_inner);
        gate.lease(leases);
        if let Some(job) = job {
            job(&mut gate);
        }
        drop(gate);
        wanted.fetch_sub(taken, Ordering::SeqCst);
    }
}
