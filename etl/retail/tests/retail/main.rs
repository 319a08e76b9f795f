//! The retail system on a real PostgreSQL: its schema, its data and its sales.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it skips"
)]

mod command;
mod flat;
mod generate;
mod load;
mod replication;
mod sale;
mod sell;
mod shop;
mod story;
mod tenants;
