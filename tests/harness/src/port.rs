//! Free ports.

use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};

use crate::{Error, Result};

/// Below the range that the kernel hands to outgoing connections: there a client that keeps trying a server
/// that is down could connect to itself, or take its port before the restart.
const FIRST: u16 = 15_000;
const COUNT: u16 = 17_000;

/// A port of 127.0.0.1 that nobody listens on.
///
/// # Errors
/// When none of many tried is free.
pub fn free_port() -> Result<u16> {
    let seed = RandomState::new().hash_one(std::process::id());
    let start = u16::try_from(seed % u64::from(COUNT)).unwrap_or_default();
    (0..COUNT)
        .map(|i| FIRST + (start + i) % COUNT)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .ok_or_else(|| Error::io("looking for a free port")(std::io::ErrorKind::AddrInUse.into()))
}
