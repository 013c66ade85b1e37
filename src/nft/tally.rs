//! The counters of chains, read by a socket of its own: asking does not hold up the writer.

use super::error::KernelError;
use super::message::{Attrs, DUMP, INET, Writer};
use super::socket::Socket;
use super::uapi::{LIST_ELEM, counter, msg, rule};
use crate::plan::ir::TABLE;

/// Reads counters.
#[derive(Debug)]
pub struct Tally {
    socket: Socket,
    sequence: u32,
}

/// What the first counter of a chain says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// The kernel's number of the rule that has the counter; another rule counts from the beginning.
    pub handle: u64,
    /// Packets.
    pub packets: u64,
}

impl Tally {
    /// Opens the socket.
    ///
    /// # Errors
    /// The system has none left.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self { socket: Socket::open()?, sequence: 1 })
    }

    /// The first counter of a chain of the table; `None`: there is no such chain, or it has no counter.
    ///
    /// # Errors
    /// The socket's.
    pub fn first_counter(&mut self, chain: &str) -> Result<Option<Count>, KernelError> {
        let mut writer = Writer::new(self.sequence);
        writer.begin(msg::GET_RULE, DUMP, INET);
        writer.text(rule::TABLE, TABLE);
        writer.text(rule::CHAIN, chain);
        writer.end();
        self.sequence = writer.next_sequence();
        let mut found = None;
        // A refusal says that there is no such chain.
        let _ = self.socket.ask(&writer.octets, |message| {
            let attrs = message.attrs();
            if found.is_none() && attrs.text(rule::CHAIN) == Some(chain) {
                found = packets(attrs).map(|packets| Count { handle: attrs.u64(rule::HANDLE).unwrap_or(0), packets });
            }
        })?;
        Ok(found)
    }
}

fn packets(rule: Attrs<'_>) -> Option<u64> {
    let expressions = rule.nested(rule::EXPRESSIONS)?;
    expressions.into_iter().filter(|(kind, _)| *kind == LIST_ELEM).find_map(|(_, expression)| {
        let expression = Attrs(expression);
        let counts = expression.text(rule::EXPR_NAME) == Some("counter");
        counts.then(|| expression.nested(rule::EXPR_DATA)?.u64(counter::PACKETS)).flatten()
    })
}
