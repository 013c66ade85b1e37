//! What people write, and what it means. No I/O, no clock: see the tour in [`crate`].

mod closed;
pub mod decision;
pub mod diagnostic;
pub mod domain;
pub mod enforceable;
pub mod json;
pub mod lists;
pub mod model;
pub mod name;
pub mod normal;
pub mod parse;
pub mod patterns;
pub mod period;
mod reader;
pub mod reference;
pub mod schedule;
pub mod schema;
pub(crate) mod wording;

pub use closed::closed;
pub use diagnostic::{Diagnostic, Mistake};
pub use enforceable::not_yet_enforced;
pub use model::Policy;
pub use normal::{digest, document_digest, normalised};
pub use parse::{Parsed, parse, parse_with_warnings};
pub use schema::schema;
