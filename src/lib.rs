//! walferry ferries PostgreSQL's write-ahead log through Kafka into MongoDB.
//!
//! The engine and its command line. What a change is stands in `walferry_schema`, the seams to the
//! servers in `walferry_core`; here the two are put together.

pub mod access;
pub mod admin;
pub mod analytics;
pub mod apply;
pub mod backfill;
pub mod capture;
pub mod check;
pub mod cli;
pub mod config;
pub mod dead_letters;
mod debezium;
mod direct;
pub mod fidelity;
pub mod init;
pub mod merge;
pub mod moving;
pub mod orders;
pub mod pipeline;
pub mod plan;
pub mod preview;
pub mod progress;
pub mod reload;
pub(crate) mod service;
pub(crate) mod snapshot;
pub mod status;
mod succession;
mod supervise;
pub mod telemetry;
pub mod trace;
mod traces;
pub mod verify;
