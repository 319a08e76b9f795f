//! What becomes of each table, the plan of a batch load, and rules over what was delivered. Pure: no runtime, no I/O.
//!
//! - The first pattern that matches a table decides; a table that none matches is left alone.
//! - A plan never holds a table that is streamed or ignored.
//! - The biggest table of a plan comes first.

pub mod analytics;
mod plan;
mod selection;

pub use plan::{Candidate, Plan, PlanError, Refusal};
pub use selection::{Mode, Rule, RuleError, RuleErrorKind, Selection};
