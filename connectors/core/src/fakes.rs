//! Scripted fakes of every seam, for tests that must misbehave on order.
//!
//! - Deterministic: nothing happens but what a test asked for, and nothing sleeps.
//! - What outlives a process ([`FakeKafka`], [`FakeServer`], [`FakeDatabase`]) is apart from the
//!   connection that a process has to it ([`FakeLog`], [`FakeLogReader`], [`FakeSource`],
//!   [`FakeSink`]): dropping the latter is a crash.
//! - A caller that breaks a seam's contract gets a fatal error, not a benefit of the doubt.

mod batch;
mod changes;
mod database;
mod error;
mod kafka;
mod log;
mod log_reader;
mod server;
mod sink;
mod source;
mod table;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use batch::FakeBatch;
pub use database::{FakeDatabase, Group, Script};
pub use error::FakeError;
pub use kafka::{FakeKafka, Place};
pub use log::FakeLog;
pub use log_reader::FakeLogReader;
pub use server::{FakeChange, FakeServer};
pub use sink::FakeSink;
pub use source::FakeSource;
pub use table::{SERVER_ID, table, table_spec};

/// A row as a sink holds it: column to text.
pub type Document = BTreeMap<String, String>;
/// All documents, by collection and key.
pub type Documents = BTreeMap<String, BTreeMap<String, Document>>;

/// A test that failed while it held the lock says so itself.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
