//! MongoDB: values to BSON, write models, the fenced transactional sink.
//!
//! - [`MongoSink`] applies batches of row events, each with its checkpoint in one transaction.
//! - [`Loader`] fills a collection aside and renames it over its target, for the batch load.
//! - Both write the same documents: one encoder serves them.
//! - [`Analyst`] asks about what was delivered, and keeps the answers.
//! - [`Gatekeeper`] makes roles that see some of what was delivered.

mod access;
mod analytics;
mod batch;
mod bson_value;
mod claim;
mod command;
mod compare;
mod dead_letters;
mod discard;
mod document;
mod error;
mod examine;
mod extended_json;
mod fidelity;
mod history;
mod identity;
mod load;
mod naming;
mod order;
mod orders;
mod parked;
mod parking;
mod position;
mod replay;
mod settings;
mod sink;
mod staging;
mod stop;
mod store;
mod suspects;
mod sweep;
mod touched;
mod trail;
mod transaction;
mod versions;
mod whole;
mod writer;
mod writes;

pub use access::{
    AccessError, Condition, Fields, Found, Gatekeeper, Grants, Join, Literal, Made, Mask, Masked,
    Parent, Privilege, Rows, Shown, ShownId, Step, TableFields, Taken, Unfit,
};
pub use analytics::{
    Analyst, AnalyticsError, Answer, AsOf, Aside, ByHand, FoundValues, Holders, Kept, Part, Query,
    Refused, Row, Standing, ValueSet,
};
pub use batch::MongoBatch;
pub use bson_value::{Microseconds, NumericOverflow, Policies};
pub use compare::{FieldDifference, differences, show_id};
pub use dead_letters::{DeadLetter, Lacking, LetterText};
pub use document::Truncated;
pub use error::{Error, Result};
pub use examine::{KeptPosition, collections, examine, indexes, position};
pub use extended_json::ExtendedJson;
pub use fidelity::{ColumnForm, Fidelity, Note};
pub use history::{Histories, history_of};
pub use identity::identity;
pub use load::{DocumentBlock, KeyScan, LoadTarget, Loader};
pub use naming::Naming;
pub use orders::OrderBook;
pub use settings::Settings;
pub use sink::MongoSink;
pub use touched::{Changes, Documents, Opened, Touched};
pub use trail::{Oplog, Recorded, Trail, Written};
pub use writer::Writer;
