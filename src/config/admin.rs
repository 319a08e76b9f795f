//! `[admin]`: where status and metrics are shown.

use std::net::SocketAddr;

use super::Section;

/// Where status, metrics and the page are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admin {
    /// `listen`: the address and port; nothing listens by default.
    pub listen: Option<SocketAddr>,
}

// === impl Admin ===

impl Admin {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let listen = section.optional("listen");
        section.finish();
        Self { listen }
    }
}
