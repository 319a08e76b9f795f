//! MongoDB: values to BSON, write models, the fenced transactional sink.
//!
//! - [`MongoSink`] applies batches of row events, each with its checkpoint in one transaction.
//! - [`Loader`] fills a collection aside and renames it over its target, for the batch load.
//! - Both write the same documents: one encoder serves them.

mod batch;
mod bson_value;
mod claim;
mod command;
mod compare;
mod document;
mod error;
mod examine;
mod load;
mod naming;
mod orders;
mod position;
mod settings;
mod sink;
mod staging;
mod stop;
mod store;
mod trail;
mod transaction;
mod writer;
mod writes;

pub use batch::MongoBatch;
pub use bson_value::{Microseconds, NumericOverflow, Policies};
pub use compare::{FieldDifference, differences, show_id};
pub use document::Truncated;
pub use error::{Error, Result};
pub use examine::{KeptPosition, collections, examine, position};
pub use load::{DocumentBlock, KeyScan, LoadTarget, Loader};
pub use naming::Naming;
pub use orders::OrderBook;
pub use settings::Settings;
pub use sink::MongoSink;
pub use trail::{Oplog, Recorded, Trail, Written};
pub use writer::Writer;
