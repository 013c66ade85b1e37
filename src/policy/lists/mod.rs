//! Names kept in files: what the lines of the four formats mean, and the compact form that look-ups use.
//!
//! A file is read as a stream ([`Reader`]); what comes out is a [`Contents`], which every host that has the list shares.
//! Nothing in a file is fatal but its size: a line that means nothing is counted and told by its number
//! ([`Report`]), and so is what means something that a gateway cannot evaluate. A report never repeats a line's text:
//! a policy can name any file that root can read.
//!
//! In every format the closest line decides, as in a response-policy zone: the name itself before a wildcard, a longer
//! wildcard before a shorter one. An exception ends the matter for its own list only.

mod adblock;
mod contents;
mod copy;
mod plain;
mod reader;
mod report;
mod summary;
mod table;
mod trigger;
mod zone;

pub use contents::{Contents, Entry, Network};
pub use copy::{COPY_LINE, CopyReader};
pub use reader::{MAX_BYTES, MAX_LINE, MAX_RULES, Reader, Refused};
pub use report::{Aside, Fault, MAX_TOLD, Report};
pub use summary::{Summary, emptied, remarks, summaries};
pub(crate) use table::Table;
