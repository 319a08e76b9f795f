//! The sink and the loader on a real MongoDB.

#![allow(clippy::large_futures, reason = "a test may use its stack")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking and tells what it measured"
)]

mod access;
mod analytics;
mod dead_letters;
mod fencing;
mod folding;
mod history;
mod load;
mod orders;
mod rate;
mod repair;
mod retyped;
mod staging;
mod support;
mod trail;
mod values;
