//! Private PostgreSQL, Kafka and MongoDB servers on free ports of 127.0.0.1, for tests and the demo.
//!
//! - A server that already runs on the machine is never touched.
//! - A server dies with the process that started it, even when that process is killed with SIGKILL.
//! - A server's directory is removed when its handle is dropped, or after the process that started it is gone.
//! - `restart` comes back on the same port with the same data, after `stop` and after `kill`.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let stack = walferry_harness::Stack::shared().await?;
//! let database = stack.fresh_database("orders").await?;
//! database.sql().await?.batch_execute("create table t (id int primary key)").await?;
//! # Ok(()) }
//! ```

mod authority;
mod directory;
mod error;
mod kafka;
mod mongo;
mod poll;
mod port;
mod postgres;
mod process;
mod scans;
mod stack;
mod tools;

pub use authority::{Authority, Issued, ServerTls};
pub use directory::{fresh_directory, run_directory};
pub use error::{Error, Result};
pub use kafka::{Kafka, KafkaOptions, KafkaTls};
pub use mongo::{Mongo, MongoOptions};
pub use poll::{Outcome, PATIENCE, eventually};
pub use port::free_port;
pub use postgres::{Postgres, PostgresOptions};
pub use process::{Process, Signal};
pub use scans::Scans;
pub use stack::{Database, Stack, unique};
pub use tools::{postgres_program, project_root};
