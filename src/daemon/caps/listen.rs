//! Hearing of caps that are used up.
//!
//! The packet path says so once to whoever listens to changes of the packet filter. To such a listener the kernel also
//! writes a message about each element that comes or goes, so nobody listens while there are no caps
//! (docs/decisions/0022-nobody-listens.md).

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::watch::Receiver;
use tracing::error;

use super::GROUP;
use crate::daemon::gate::Gate;
use crate::daemon::handle::{EndsTheProcess, Handle};
use crate::nft::{Event, Watch};
use crate::plan::meter::CapId;
use crate::plan::table::names;

/// How long nothing is heard before it is looked whether there is still a cap, milliseconds.
const GLANCE: u16 = 1000;
/// After an error of the socket, or of a look.
const AGAIN: Duration = Duration::from_millis(500);

/// Listens for caps that are used up, while there are any. `changed`: another policy is in force. Its thread ends with the
/// process.
pub fn listen(gate: Handle, changed: Receiver<()>) {
    let runtime = tokio::runtime::Handle::current();
    let work = move || {
        let _guard = EndsTheProcess("the watch over exfil caps");
        let Err(Gone) = (Listener { gate, runtime, changed }).listen();
    };
    if let Err(error) = std::thread::Builder::new().name("caps".into()).spawn(work) {
        error!("cannot hear when exfil caps are used up: {error}");
    }
}

/// The gate works no more: the process ends.
struct Gone;

struct Listener {
    gate: Handle,
    runtime: tokio::runtime::Handle,
    changed: Receiver<()>,
}

impl Listener {
    fn listen(&mut self) -> Result<Infallible, Gone> {
        let port = self.at_the_gate(|gate| gate.kernel().port())?;
        loop {
            while self.there_are_none()? {
                self.runtime.block_on(self.changed.changed()).map_err(|_| Gone)?;
            }
            let done = match Watch::open(port) {
                Ok(mut watch) => self.listen_while_there_are_some(&mut watch)?,
                Err(error) => {
                    error!("cannot hear when exfil caps are used up: {error}");
                    false
                }
            };
            if !done {
                std::thread::sleep(AGAIN);
            }
        }
    }

    fn at_the_gate<T: Send + 'static>(&self, work: impl FnOnce(&mut Gate) -> T + Send + 'static) -> Result<T, Gone> {
        self.runtime.block_on(self.gate.run(work)).map_err(|_| Gone)
    }

    fn there_are_none(&self) -> Result<bool, Gone> {
        self.at_the_gate(|gate| gate.state.caps.is_empty())
    }

    /// False: something failed, and something may have been missed.
    fn listen_while_there_are_some(&mut self, watch: &mut Watch) -> Result<bool, Gone> {
        // Whatever happened while nobody listened.
        let mut heard = self.at_the_gate(Gate::look_at_caps)?;
        while heard {
            let Ok(event) = watch.wait_for(GLANCE) else { return Ok(false) };
            if self.changed.has_changed().is_ok_and(|changed| changed) {
                self.changed.mark_unchanged();
                if self.there_are_none()? {
                    return Ok(true);
                }
            }
            heard = self.hear(watch, event)?;
        }
        Ok(false)
    }

    /// Takes an event and those that wait behind it together: one write, one transaction. False: some were lost, and the
    /// kernel does not say which.
    fn hear(&self, watch: &mut Watch, event: Option<Event>) -> Result<bool, Gone> {
        let (mut stopped, mut next) = (BTreeSet::new(), event);
        while let Some(event) = next {
            match event {
                Event::UsedUp(name) => stopped.extend(names::read_cap(&name)),
                Event::Changed(_) | Event::Deleted(_) => {}
                Event::Lost => return self.at_the_gate(Gate::look_at_caps),
            }
            next = if stopped.len() < GROUP { watch.try_next().ok().flatten() } else { None };
        }
        if !stopped.is_empty() {
            let stopped: Vec<CapId> = stopped.into_iter().collect();
            self.at_the_gate(move |gate| gate.caps_stopped(&stopped))?;
        }
        Ok(true)
    }
}
