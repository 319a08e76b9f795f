//! What comes over a link in streaming mode.

use bytes::Bytes;
use walferry_schema::Lsn;

use crate::large::SpooledFrame;

/// What stands before a message of the output plugin: a type, two LSNs and a time.
pub(crate) const DATA_HEADER_BYTES: usize = 25;

/// What the server sends while streaming.
pub(crate) enum StreamFrame {
    /// A message of the output plugin.
    Data { lsn: Lsn, message: Bytes },
    /// The same where it is too large for memory: the file that holds it from [`DATA_HEADER_BYTES`] on.
    Spooled { lsn: Lsn, message: SpooledFrame },
    /// The server is alive and has decoded up to an LSN.
    Keepalive { lsn: Lsn, wants_reply: bool },
}
