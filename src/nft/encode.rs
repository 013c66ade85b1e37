//! Operations as one batch of messages, with a note of which message came from which operation.

use std::collections::BTreeSet;

use super::elements::{self, Elements, MAX_COMMENT};
use super::error::{KernelError, describe};
use super::exprs;
use super::library::Library;
use super::message::{CREATE, ECHO, INET, Writer};
use super::objects;
use super::pieces::c_text;
use super::uapi::{self, chain, msg, set, table};
use crate::plan::ir::{Key, Rule, TABLE, Value};
use crate::plan::ops::Op;

/// Longest name of a chain or set, in octets (SPEC: 31; nft lists longer ones, the kernel takes 255).
const MAX_NAME: usize = 31;
/// Longest comment of a rule, in octets, that nft reads back (`NFTNL_UDATA_COMMENT_MAXLEN` less the final zero).
const MAX_RULE_COMMENT: usize = 127;

/// What the kernel understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dialect {
    /// It has `DESTROY_ELEMENTS`.
    pub(super) destroy: bool,
    /// The table is to have an owner and to outlive it.
    pub(super) own: bool,
    /// The kernel is to say what removed elements had counted.
    pub(super) report: bool,
}

/// Where a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) op: usize,
    /// The message removes only this element of the operation's list.
    pub(super) removes: Option<usize>,
}

/// A transaction ready to send.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) octets: Vec<u8>,
    /// The number of the message that asks for an answer.
    pub(super) last: u32,
    /// The number behind the last message.
    pub(super) next: u32,
    first: u32,
    origins: Vec<Origin>,
    /// It asks the kernel to tell what it removes, or removes the table.
    pub(super) reports: bool,
}

impl Batch {
    /// Nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        self.origins.is_empty()
    }

    /// The origin of a message by its number; `None`: it marks the batch's begin or end.
    pub(super) fn origin(&self, sequence: u32) -> Option<Origin> {
        self.origins.get(sequence.wrapping_sub(self.first) as usize).copied()
    }
}

/// Elements (operation, place in its list) that a kernel without `DESTROY_ELEMENTS` said are not there.
pub(super) type Absent = BTreeSet<(usize, usize)>;

/// Encodes the operations into a buffer; the messages are numbered from `sequence`.
pub(super) fn encode(
    ops: &[Op],
    dialect: Dialect,
    absent: &Absent,
    library: &mut Library,
    sequence: u32,
    buffer: Vec<u8>,
) -> Result<Batch, KernelError> {
    let mut writer = Writer::within(buffer, sequence);
    writer.batch_mark(libc::NFNL_MSG_BATCH_BEGIN);
    let first = writer.next_sequence();
    let origins = Vec::with_capacity(ops.len());
    let mut encoder = Encoder { writer, origins, dialect, absent, library, reports: false };
    for (index, op) in ops.iter().enumerate() {
        encoder
            .op(index, op)
            .map_err(|what| KernelError::invalid(Some(index), format!("cannot {}: {what}", describe(op))))?;
    }
    let Encoder { mut writer, origins, reports, .. } = encoder;
    let last = writer.next_sequence().wrapping_sub(1);
    if !origins.is_empty() {
        writer.acknowledge_last();
    }
    writer.batch_mark(libc::NFNL_MSG_BATCH_END);
    let next = writer.next_sequence();
    Ok(Batch { octets: writer.octets, last, next, first, origins, reports })
}

struct Encoder<'a> {
    writer: Writer,
    origins: Vec<Origin>,
    dialect: Dialect,
    absent: &'a Absent,
    library: &'a mut Library,
    reports: bool,
}

impl Encoder<'_> {
    fn op(&mut self, index: usize, op: &Op) -> Result<(), String> {
        match op {
            Op::AddTable => {
                self.writer.begin(msg::NEW_TABLE, CREATE, INET);
                self.writer.text(table::NAME, TABLE);
                if self.dialect.own {
                    self.writer.u32(table::FLAGS, table::OWNER | table::PERSIST);
                }
                self.writer.end();
            }
            Op::DelTable => {
                self.reports |= self.dialect.report;
                self.named(msg::DEL_TABLE, None);
            }
            Op::AddChain(name, base) => {
                let name = c_text(checked(name)?)?;
                let message = self.library.add_chain(&name, base.as_ref(), self.writer.next_sequence());
                self.writer.whole(message);
            }
            Op::DelChain(name) => self.named(msg::DEL_CHAIN, Some((chain::NAME, checked(name)?))),
            Op::FlushChain(name) => self.named(msg::DEL_RULE, Some((uapi::rule::CHAIN, checked(name)?))),
            Op::AddRule(chain, rule) => self.rule(chain, rule)?,
            Op::AddObject(name, object) => objects::add(&mut self.writer, checked(name)?, object),
            Op::SetQuota(name, limit) => objects::set_quota(&mut self.writer, checked(name)?, *limit),
            Op::DelObject(name, kind) => objects::remove(&mut self.writer, checked(name)?, *kind),
            Op::AddSet(name, spec) => {
                // Rules name sets by name, so the number only has to differ within the batch.
                let id = index as u32 + 1;
                elements::declare(&mut self.writer, checked(name)?, spec, id);
            }
            Op::DelSet(name) => self.named(msg::DEL_SET, Some((set::NAME, checked(name)?))),
            Op::FlushSet(name) => {
                self.reports |= self.dialect.report;
                let flags = if self.dialect.report { ECHO } else { 0 };
                elements::whole_set(&mut self.writer, msg::DEL_ELEMENTS, flags, checked(name)?);
            }
            Op::Fill(name, elements) => return self.add(index, checked(name)?, elements.iter()),
            Op::AddElements(name, list) => return self.add(index, checked(name)?, pairs(list)),
            Op::DelElements(name, keys) => {
                self.remove(index, checked(name)?, keys.iter());
                return Ok(());
            }
            Op::PutElements(name, list) => {
                self.remove(index, checked(name)?, list.iter().map(|(key, _)| key));
                return self.add(index, name, pairs(list));
            }
        }
        self.origins.push(Origin { op: index, removes: None });
        Ok(())
    }

    /// A message that names the table and at most one thing in it.
    fn named(&mut self, kind: i32, thing: Option<(u16, &str)>) {
        self.writer.begin(kind, 0, INET);
        self.writer.text(table::NAME, TABLE);
        if let Some((attribute, name)) = thing {
            self.writer.text(attribute, name);
        }
        self.writer.end();
    }

    fn rule(&mut self, chain: &str, rule: &Rule) -> Result<(), String> {
        let chain = c_text(checked(chain)?)?;
        if rule.comment.len() > MAX_RULE_COMMENT {
            return Err(format!("its comment has more than {MAX_RULE_COMMENT} octets; shorten it"));
        }
        let exprs = exprs::rule(rule)?;
        let message = self.library.add_rule(&chain, &exprs, self.writer.next_sequence());
        self.writer.whole(message);
        if !rule.comment.is_empty() {
            // nftnl's own way takes 125 octets, nft's 127.
            self.writer.attr(uapi::rule::USERDATA, &elements::comment(&rule.comment));
            self.writer.end();
        }
        Ok(())
    }

    fn add<'e>(
        &mut self,
        index: usize,
        name: &str,
        list: impl Iterator<Item = (&'e Key, &'e Value)> + Clone,
    ) -> Result<(), String> {
        if let Some((key, _)) =
            list.clone().find(|(_, value)| value.comment.as_ref().is_some_and(|comment| comment.len() > MAX_COMMENT))
        {
            let key = crate::plan::text::render_key(key);
            return Err(format!("the comment of {key} has more than {MAX_COMMENT} octets; shorten it"));
        }
        let mut writer = Elements::new(&mut self.writer, msg::NEW_ELEMENTS, CREATE, name);
        for (key, value) in list {
            writer.push(key, Some(value));
        }
        let messages = writer.finish();
        self.origins.extend(std::iter::repeat_n(Origin { op: index, removes: None }, messages));
        Ok(())
    }

    fn remove<'k>(&mut self, index: usize, name: &str, keys: impl Iterator<Item = &'k Key>) {
        let mut keys = keys.peekable();
        // Those of marks count.
        let report = self.dialect.report && matches!(keys.peek(), Some(Key::Mark(_)));
        self.reports |= report;
        let flags = if report { ECHO } else { 0 };
        if self.dialect.destroy {
            let mut writer = Elements::new(&mut self.writer, msg::DESTROY_ELEMENTS, flags, name);
            for key in keys {
                writer.push(key, None);
            }
            let messages = writer.finish();
            self.origins.extend(std::iter::repeat_n(Origin { op: index, removes: None }, messages));
            return;
        }
        // One message each, so that the kernel's answer tells which ones are not there.
        for (place, key) in keys.enumerate() {
            if self.absent.contains(&(index, place)) {
                continue;
            }
            let mut writer = Elements::new(&mut self.writer, msg::DEL_ELEMENTS, flags, name);
            writer.push(key, None);
            writer.finish();
            self.origins.push(Origin { op: index, removes: Some(place) });
        }
    }
}

fn pairs(list: &[(Key, Value)]) -> impl Iterator<Item = (&Key, &Value)> + Clone {
    list.iter().map(|(key, value)| (key, value))
}

fn checked(name: &str) -> Result<&str, String> {
    if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
        return Err(format!("{name:?} is no name for a chain or set; use 1 to {MAX_NAME} octets"));
    }
    Ok(name)
}
