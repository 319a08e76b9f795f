//! The sink and the loader on a real MongoDB.

#![allow(clippy::large_futures, reason = "a test may use its stack")]

mod fencing;
mod folding;
mod load;
mod repair;
mod staging;
mod support;
mod values;
