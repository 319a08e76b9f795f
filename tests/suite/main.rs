//! The whole engine, end to end, on real servers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking"
)]

mod daemon;
mod oracle;
mod stream;
mod workload;
