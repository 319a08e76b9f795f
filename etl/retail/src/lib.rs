//! The retail system that walferry was built for first: its schema, its data and its sales.
//!
//! - [`schema`] holds the SQL of `schema/retail`, inside the binary, and applies it;
//! - [`generate`] writes twelve CSV files distributed like the published data, the same bytes for the same seed;
//! - [`load`] brings such a directory into PostgreSQL, in one transaction, and twice is once;
//! - [`sell`] calls `insert_transaction` at a steady rate until it is told to stop;
//! - [`story`] tells a short story of fraud, in sales that the analytics find.

mod calendar;
pub mod cli;
mod command;
mod error;
pub mod generate;
pub mod load;
mod model;
mod progress;
pub mod schema;
pub mod sell;
mod session;
pub mod story;
mod table;

pub use command::run;
pub use error::{Error, explain};
pub use session::{Session, parse_url};
