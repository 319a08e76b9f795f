//! The connector on a Kafka of its own.
#![allow(
    clippy::pedantic,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may panic, print what it measured, and cast small numbers"
)]

mod consume;
mod dead_letters;
mod measure;
mod produce;
mod rig;
mod topics;
