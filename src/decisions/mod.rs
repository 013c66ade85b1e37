//! The decision log: who was refused what and why, for people at two in the morning.
//!
//! ```text
//! copies of packets ─┐
//! answers of DNS ────┼─▶ Sender ──▶ one thread: alike? ─▶ Record ─▶ ring ─▶ those who follow
//! the gate ──────────┘ (never waits)   counts instead        └────▶ files
//! ```
//!
//! A flood costs counting, not records: what is alike within ten seconds becomes two records, of which the second says
//! how many it stands for, what goes on for long becomes few more, and who tries ever new places fills up a share of its own. Nothing is lost without being
//! counted: each record stands for one refusal and as many as [`Record::suppressed`] says, and together they stand for
//! all that the kernel and DNS refused (docs/decisions/0010).

mod alike;
mod files;
mod filter;
mod log;
mod record;
mod rooms;
mod scan;
mod sender;
mod worker;

pub use alike::{Cause, Key, Who};
pub use files::{Keep, Reading, read};
pub use filter::Filter;
pub use log::{Follower, Guard, Log, News, Report};
pub use record::{Action, Layer, Record};
pub use scan::{Line, parts, scan};
pub use sender::{Sender, Sighting};
pub use worker::{Options, start};
