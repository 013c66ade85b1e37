//! A zone as text, each record with the line of the policy that it comes from. Some forty octets more than the names have
//! while it is made, and written piece by piece.

use std::collections::HashSet;
use std::fmt::{self, Write};

use super::Action;
use super::closure::close;
use super::owners::{Line, Lists, Placed, Rule};

/// No remark, no wildcard.
const NONE: u32 = u32::MAX;

/// A record.
#[derive(Clone, Copy)]
struct Row {
    /// Where its owner stands in the names.
    at: u32,
    length: u32,
    action: Action,
    line: Line,
    /// The number of a remark.
    remark: u32,
    /// The owner of the wildcard from which it follows: where it stands.
    wildcard: u32,
    wildcard_length: u32,
}

/// The records of a zone, sorted by owner once all are there.
#[derive(Default)]
struct Sheet {
    names: String,
    rows: Vec<Row>,
    remarks: Vec<String>,
}

/// Writes the records of a zone into whose names so many octets fit; of equal owners the first rule speaks.
pub(super) fn write(out: &mut dyn Write, lists: &Lists, rules: impl Iterator<Item = Rule>, room: usize) -> fmt::Result {
    let mut sheet = Sheet::default();
    // What is too long is written as something else, so its owner does not tell whether it came before.
    let mut long = HashSet::new();
    for rule in rules {
        match rule.place(room) {
            Placed::Owner(owner, None) => sheet.push(&owner, rule.action(), rule.line(), NONE)?,
            _ if !long.insert(rule.pattern().clone()) => {}
            Placed::LeftOut(why) => {
                writeln!(out, "; left out, {why}: {} {}", rule.pattern(), lists.words(rule.line()))?;
            }
            Placed::Owner(owner, Some(remark)) => {
                let number = u32::try_from(sheet.remarks.len()).map_err(|_| fmt::Error)?;
                sheet.remarks.push(remark);
                sheet.push(&owner, rule.action(), rule.line(), number)?;
            }
        }
    }
    sheet.sort();
    sheet.close(room)?;
    sheet.write(out, lists)
}

impl Sheet {
    fn push(&mut self, owner: &str, action: Action, line: Line, remark: u32) -> fmt::Result {
        let (at, length) = self.name(owner)?;
        self.rows.push(Row { at, length, action, line, remark, wildcard: NONE, wildcard_length: 0 });
        Ok(())
    }

    /// More than four gigabytes of names are no text for people.
    fn name(&mut self, owner: &str) -> Result<(u32, u32), fmt::Error> {
        let place = (u32::try_from(self.names.len()), u32::try_from(owner.len()));
        let (Ok(at), Ok(length)) = place else { return Err(fmt::Error) };
        self.names.push_str(owner);
        Ok((at, length))
    }

    fn text(&self, at: u32, length: u32) -> &str {
        self.names.get(at as usize..at as usize + length as usize).unwrap_or_default()
    }

    fn owner(&self, row: &Row) -> &str {
        self.text(row.at, row.length)
    }

    fn sort(&mut self) {
        let mut rows = std::mem::take(&mut self.rows);
        rows.sort_by(|a, b| self.owner(a).cmp(self.owner(b)));
        rows.dedup_by(|later, first| self.owner(later) == self.owner(first));
        self.rows = rows;
    }

    /// Adds what the rows entail ([`close`]).
    fn close(&mut self, room: usize) -> fmt::Result {
        let mut more = Self::default();
        let rows = self.rows.iter().map(|row| (self.owner(row), row));
        close(rows, room, |owner, wildcard| more.follow(owner, wildcard))?;
        if more.rows.is_empty() {
            return Ok(());
        }
        let shift = u32::try_from(self.names.len()).map_err(|_| fmt::Error)?;
        u32::try_from(self.names.len() + more.names.len()).map_err(|_| fmt::Error)?;
        self.names.push_str(&more.names);
        // What was written speaks before what follows from it: it came first.
        self.rows.extend(more.rows.iter().map(|row| Row { at: row.at + shift, ..*row }));
        self.sort();
        Ok(())
    }

    /// What follows from a wildcard of another sheet.
    fn follow(&mut self, owner: &str, wildcard: &Row) -> fmt::Result {
        let (at, length) = self.name(owner)?;
        self.rows.push(Row { at, length, wildcard: wildcard.at, wildcard_length: wildcard.length, ..*wildcard });
        Ok(())
    }

    fn write(&self, out: &mut dyn Write, lists: &Lists) -> fmt::Result {
        for row in &self.rows {
            let remark = self.remarks.get(row.remark as usize).map_or("", String::as_str);
            let line = lists.words(row.line);
            write!(out, "{} CNAME {} ; {line}{remark}", self.owner(row), row.action.target())?;
            match row.wildcard {
                NONE => out.write_str("\n")?,
                at => writeln!(out, " ({})", self.text(at, row.wildcard_length))?,
            }
        }
        Ok(())
    }
}
