//! The source on a real server.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test says what is wrong by failing"
)]

mod login;
mod network;
mod proxy;
mod publication;
mod slot;
mod snapshot;
mod stream;
mod streaming;
mod support;
mod tls;
mod types;
