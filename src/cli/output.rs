//! Writing to people and pipes.

use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, Stdout, Write as _};

use anyhow::Context as _;
use serde::Serialize;

use crate::policy::Diagnostic;
use crate::policy::wording::unprintable;

/// Standard output. Whoever reads it may go away: then the rest is not written, and that is no failure.
pub(super) struct Output {
    to: BufWriter<Stdout>,
    colours: bool,
    nobody_reads: bool,
}

/// How a word is shown on a terminal.
#[derive(Clone, Copy)]
pub(super) enum Tone {
    /// As it should be.
    Good,
    /// Not as it should be.
    Bad,
}

impl Output {
    pub fn new() -> Self {
        let stdout = io::stdout();
        // https://no-color.org: present and not empty, whatever the value.
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        let colours = stdout.is_terminal() && !refused;
        Self { to: BufWriter::new(stdout), colours, nobody_reads: false }
    }

    /// Writes a text as it is.
    pub fn text(&mut self, text: &str) -> anyhow::Result<()> {
        self.bytes(text.as_bytes())
    }

    /// Writes one line.
    pub fn line(&mut self, line: &str) -> anyhow::Result<()> {
        self.text(line)?;
        self.text("\n")
    }

    /// Writes a text that should end a line, and ends it if it does not.
    pub fn lines(&mut self, text: &str) -> anyhow::Result<()> {
        self.text(text)?;
        if text.is_empty() || text.ends_with('\n') { Ok(()) } else { self.text("\n") }
    }

    /// Writes a value as JSON, indented.
    pub fn json(&mut self, value: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(value).context("cannot write the answer as JSON")?;
        self.line(&text)
    }

    pub fn bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        if self.nobody_reads {
            return Ok(());
        }
        let written = self.to.write_all(bytes);
        self.settle(written)
    }

    /// The word, in colour if this is a terminal.
    pub fn toned(&self, tone: Tone, word: &str) -> String {
        if !self.colours {
            return word.to_owned();
        }
        let code = match tone {
            Tone::Good => 32,
            Tone::Bad => 31,
        };
        format!("\x1b[{code}m{word}\x1b[0m")
    }

    /// Writes what is still held back.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        if self.nobody_reads {
            return Ok(());
        }
        let flushed = self.to.flush();
        self.settle(flushed)
    }

    /// Whether anybody still reads what is written.
    pub fn is_read(&self) -> bool {
        !self.nobody_reads
    }

    fn settle(&mut self, result: io::Result<()>) -> anyhow::Result<()> {
        match result {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.nobody_reads = true;
                Ok(())
            }
            Err(error) => Err(anyhow::anyhow!("cannot write to standard output: {}", crate::store::words(&error))),
            Ok(()) => Ok(()),
        }
    }
}

/// Says on stderr why it failed.
pub(super) fn complain(reason: &str) {
    remark(&format!("error: {reason}"));
}

/// Says something on stderr.
pub(super) fn remark(line: &str) {
    // If stderr is closed there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Lists diagnostics on stderr, one line each, under a head line.
pub(super) fn remark_all(head: &str, diagnostics: &[Diagnostic]) {
    let mut text = format!("{head}\n");
    for diagnostic in diagnostics {
        text.push_str("  ");
        text.push_str(&told(diagnostic));
        text.push('\n');
    }
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// `path: message (hint)`. Keys of the document are part of the path, and may hold what steers a terminal.
pub(super) fn told(diagnostic: &Diagnostic) -> String {
    let path = if diagnostic.path.is_empty() { "policy" } else { &diagnostic.path };
    let mut text = String::with_capacity(path.len() + diagnostic.message.len());
    for character in path.chars() {
        if unprintable(character) {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text.push_str(&format!(": {}", diagnostic.message));
    if let Some(hint) = &diagnostic.hint {
        text.push_str(&format!(" ({hint})"));
    }
    text
}

/// `one mistake`, `7 mistakes`
pub(super) fn count(number: usize, singular: &str, plural: &str) -> String {
    if number == 1 { format!("one {singular}") } else { format!("{number} {plural}") }
}

/// Lines of columns, each as wide as its widest cell. `widths` counts characters, so colours come after.
pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(index) {
                Some(widest) => *widest = (*widest).max(width),
                None => widths.push(width),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
