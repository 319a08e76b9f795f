//! Rules over what was delivered: questions to MongoDB, one file each, and what such a file may say.
//!
//! - A rule is data: nothing here knows what it asks about.
//! - All mistakes of all files are told at once, each with its file, line and column.
//! - Rules come in an order in which each one reads what the others have written before.
//! - An answer depends on the documents and the parameters alone, never on the time or on chance.

mod extended_json;
mod json;
mod mistake;
mod order;
mod parameter;
mod pipeline;
mod reach;
mod read;
mod rule;
mod set;
mod source;
mod stage;

pub use json::Place;
pub use mistake::Mistake;
pub use parameter::{Given, Parameter, ParameterError, Values};
pub use pipeline::{Names, Pipeline};
pub use reach::{Obstacle, Reach, Through, Way};
pub use rule::{Index, Kind, Rule};
pub use set::{RuleFile, RuleSet, Unknown, values};
pub use source::Source;
