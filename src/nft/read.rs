//! Asking the kernel what it holds.

use std::collections::{BTreeMap, HashSet};

use nix::errno::Errno;

use super::Kernel;
use super::elements::whole_set;
use super::error::KernelError;
use super::held::{Held, HeldElement, Reader, marked};
use super::message::{ACK, Attrs, DUMP, INET, Message, Writer};
use super::socket::Refusal;
use super::uapi::{element, list, msg, set, table};
use crate::plan::ir::{Key, TABLE};

/// How often a dump is tried when others change the ruleset meanwhile.
const TRIES: usize = 8;

/// How many elements a dump of a set should give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// So many, if none has expired.
    Known(usize),
    /// The kernel does not say. Thorough: a second dump has to agree.
    Unknown { thorough: bool },
    /// It does not matter: dumps of sets with intervals are whole.
    Once,
}

impl Size {
    fn of(attrs: Attrs<'_>, thorough: bool) -> Self {
        if attrs.u32(set::FLAGS).unwrap_or(0) & set::INTERVAL != 0 {
            return Size::Once;
        }
        attrs.u32(set::COUNT).map_or(Size::Unknown { thorough }, |count| Size::Known(count as usize))
    }
}

impl Kernel {
    /// What the kernel holds of the table, as of one moment; `None`: there is no table.
    ///
    /// Takes about 3 to 5 µs per element with 100 000 elements in a set, and longer per element in larger ones, because
    /// the kernel walks the set anew for each 32 KiB.
    ///
    /// # Errors
    /// The socket's, and [`super::ErrorKind::Unknown`] when others keep changing the ruleset meanwhile.
    pub fn read(&mut self) -> Result<Option<Held>, KernelError> {
        self.consistent(|kernel| {
            let mut reader = Reader::default();
            let whole = kernel.walk(|message| reader.take(message))?;
            Ok(whole.then(|| reader.finish()))
        })
    }

    /// The messages that [`Kernel::read`] reads, for fault reports; see [`Held::parse`].
    ///
    /// # Errors
    /// As [`Kernel::read`].
    pub fn dump(&mut self) -> Result<Vec<u8>, KernelError> {
        self.consistent(|kernel| {
            let mut octets = Vec::new();
            let whole = kernel.walk(|message| message.copy_to(&mut octets))?;
            Ok(whole.then_some(octets))
        })
    }

    /// The elements of one set with their counters; `None`: there is no such set.
    ///
    /// Not as of one moment: elements that come or go meanwhile may be in it or not. On kernels that do not tell a
    /// set's size, some elements can be missing within milliseconds after very many were added.
    ///
    /// # Errors
    /// The socket's.
    pub fn elements(&mut self, name: &str) -> Result<Option<BTreeMap<Key, HeldElement>>, KernelError> {
        let mut reader = Reader::default();
        let question = |writer: &mut Writer| {
            writer.begin(msg::GET_TABLE, ACK, INET);
            writer.text(table::NAME, TABLE);
            writer.end();
        };
        if self.question(question, |message| reader.take(message))?.is_none() {
            return Ok(None);
        }
        let Some(size) = self.size_of(name, |message| reader.take(message))? else { return Ok(None) };
        if self.walk_set(name, size, |message| reader.take(message))?.is_none() {
            return Ok(None);
        }
        Ok(reader.finish().and_then(|mut held| held.sets.remove(name)).map(|set| set.elements))
    }

    /// Passes on the elements of a set of marks with their counters, some of them perhaps more than once, and keeps
    /// none. What is said of [`Kernel::elements`] holds here, too; a set that is not there has no elements.
    ///
    /// # Errors
    /// The socket's.
    pub fn counts(&mut self, name: &str, mut each: impl FnMut(u32, HeldElement)) -> Result<(), KernelError> {
        if let Some(size) = self.size_of(name, |_| ())? {
            let mut all = |message: &Message<'_>| marked(message.attrs()).for_each(|(mark, one)| each(mark, one));
            self.walk_set(name, size, &mut all)?;
        }
        Ok(())
    }

    /// How many elements a set has; `None`: there is no such set. What the kernel says of it is passed on.
    fn size_of(&mut self, name: &str, mut each: impl FnMut(&Message<'_>)) -> Result<Option<Size>, KernelError> {
        let question = |writer: &mut Writer| {
            writer.begin(msg::GET_SET, ACK, INET);
            writer.text(set::TABLE, TABLE);
            writer.text(set::NAME, name);
            writer.end();
        };
        let mut size = Size::Unknown { thorough: false };
        let answer = self.question(question, |message| {
            size = Size::of(message.attrs(), false);
            each(message);
        })?;
        Ok(answer.map(|_| size))
    }

    /// Passes on all that the kernel says of the table; `false`: the ruleset changed meanwhile.
    fn walk(&mut self, mut each: impl FnMut(&Message<'_>)) -> Result<bool, KernelError> {
        let before = self.generation()?;
        let found = self.question(
            |writer| {
                writer.begin(msg::GET_TABLE, ACK, INET);
                writer.text(table::NAME, TABLE);
                writer.end();
            },
            &mut each,
        )?;
        if found.is_none() {
            return Ok(true);
        }
        let mut whole = true;
        let mut sets: Vec<(String, Size)> = Vec::new();
        for kind in [msg::GET_CHAIN, msg::GET_RULE, msg::GET_SET] {
            let question = |writer: &mut Writer| {
                writer.begin(kind, DUMP, INET);
                // Chains are not filtered by the kernel, the reader sorts out those of other tables.
                writer.text(table::NAME, TABLE);
                writer.end();
            };
            let answer = self.question(question, |message| {
                let attrs = message.attrs();
                if kind == msg::GET_SET && attrs.text(set::TABLE) == Some(TABLE) {
                    sets.extend(attrs.text(set::NAME).map(|name| (name.to_owned(), Size::of(attrs, true))));
                }
                each(message);
            })?;
            whole &= answer.unwrap_or(false);
        }
        whole &= self.question(super::objects::dump, &mut each)?.unwrap_or(false);
        for (name, size) in sets {
            whole &= self.walk_set(&name, size, &mut each)?.unwrap_or(false);
        }
        Ok(whole && self.generation()? == before)
    }

    /// Passes on the elements of a set, some of them more than once: while the kernel still grows the table behind a
    /// hash set (for milliseconds after many elements came), a dump gives some twice and leaves others out.
    fn walk_set(
        &mut self,
        name: &str,
        size: Size,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<Option<bool>, KernelError> {
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        for _ in 0..TRIES {
            let before = seen.len();
            let mut found = 0;
            let answer = self.question(
                |writer| whole_set(writer, msg::GET_ELEMENTS, DUMP, name),
                |message| {
                    if size != Size::Once {
                        for (_, one) in message.attrs().nested(list::ELEMENTS).into_iter().flatten() {
                            found += 1;
                            seen.extend(Attrs(one).get(element::KEY).map(<[u8]>::to_vec));
                        }
                    }
                    each(message);
                },
            )?;
            let Some(true) = answer else { return Ok(answer) };
            // Expired elements count in a known size until the kernel collects them.
            let stable = seen.len() == before;
            let done = match size {
                Size::Once => true,
                Size::Known(size) => seen.len() >= size || stable,
                Size::Unknown { thorough } => stable || !thorough && before == 0 && seen.len() == found,
            };
            if done {
                break;
            }
        }
        Ok(Some(true))
    }

    fn consistent<T>(
        &mut self,
        mut attempt: impl FnMut(&mut Self) -> Result<Option<T>, KernelError>,
    ) -> Result<T, KernelError> {
        for _ in 0..TRIES {
            if let Some(result) = attempt(self)? {
                return Ok(result);
            }
        }
        Err(KernelError::unknown("others keep changing the packet filter while it is read; try again"))
    }

    /// Asks one question. `None`: what it asks for is not there; `Some(false)`: it changed meanwhile.
    pub(super) fn question(
        &mut self,
        write: impl FnOnce(&mut Writer),
        each: impl FnMut(&Message<'_>),
    ) -> Result<Option<bool>, KernelError> {
        let mut writer = Writer::new(self.sequence);
        write(&mut writer);
        self.sequence = writer.next_sequence();
        match self.socket.ask(&writer.octets, each)? {
            Ok(whole) => Ok(Some(whole)),
            Err(Refusal { errno: Errno::ENOENT, .. }) => Ok(None),
            Err(Refusal { errno: Errno::EINTR | Errno::EAGAIN, .. }) => Ok(Some(false)),
            Err(Refusal { errno, hint, .. }) => {
                Err(KernelError::refused(None, "say what it holds", errno, hint.as_deref()))
            }
        }
    }
}
