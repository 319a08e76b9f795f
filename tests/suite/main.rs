//! The whole engine, end to end, on real servers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod access;
mod acls;
mod admin;
mod alerts;
mod analytics;
mod analytics_at_once;
mod analytics_rules;
mod backfill;
mod check;
mod command_line;
mod daemon;
mod ddl;
mod dead_letters;
mod debezium;
mod deployment;
mod faults;
mod fidelity;
mod first_contact;
mod giant;
mod grants;
mod history;
mod incumbents;
mod large;
mod messages;
mod operations;
mod oracle;
mod orders;
mod reliability;
mod reload;
mod restarts;
mod retail;
mod site;
mod status;
mod stream;
mod tls;
mod to_do;
mod top;
mod torture;
mod trace;
mod traces;
mod types;
mod verify;
mod workload;
