//! One connection that copies tables out of a snapshot.

use walferry_schema::{Row, TableName};

use super::{BEGIN, BlockRange, SnapshotTable, joining};
use crate::copy_text::CopyTextDecoder;
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::link::{Kind, Link};

const JOINING: &str = "joining a snapshot";
const COPYING: &str = "copying a table";
/// The tables are locked already, against all that conflicts with reading, by the session that exported or described
/// the snapshot. What waits all the same is queued behind somebody who waits for that very lock: the two would wait for
/// each other for good, and the server, which sees two sessions of ours as strangers, would not notice.
const LIMIT_LOCKS: &str = "SET LOCAL lock_timeout = '2s'";

/// One connection that reads a snapshot, one range of a table after another.
pub struct Copier {
    link: Link,
    copy: Option<Copy>,
}

struct Copy {
    table: TableName,
    /// None once the server has sent everything.
    decoder: Option<CopyTextDecoder>,
    /// Rows not yet handed out.
    rows: Vec<Row>,
    bytes: usize,
}

// === impl Copier ===

impl Copier {
    pub(super) async fn connect(endpoint: &Endpoint, snapshot: &str) -> Result<Self> {
        let mut link = Link::connect(endpoint, Kind::Sql).await?;
        link.query(JOINING, BEGIN).await?;
        link.query(JOINING, &joining(snapshot)).await?;
        link.query(JOINING, LIMIT_LOCKS).await?;
        Ok(Self { link, copy: None })
    }

    /// Starts to copy a range; the one before must have been read to its end.
    ///
    /// # Errors
    /// When the server refuses, or another range is still being copied.
    pub async fn start(&mut self, table: &SnapshotTable, range: BlockRange) -> Result<()> {
        if self.copy.is_some() {
            return Err(Error::Misuse(
                "copying a table: the range before is not read to its end",
            ));
        }
        let command = format!("COPY ({}) TO STDOUT", table.select(range));
        self.link.write_query(COPYING, &command)?;
        self.link.flush(COPYING).await?;
        let relation = table.relation();
        let decoder = CopyTextDecoder::new(relation.columns.len());
        let copy = Copy {
            table: relation.name.clone(),
            decoder: Some(decoder),
            rows: Vec::new(),
            bytes: 0,
        };
        self.copy = Some(copy);
        Ok(())
    }

    /// The next rows of the range: `most_rows` or about `most_bytes` of text, less only at the end; `None` after the
    /// last, when another range can be started.
    ///
    /// # Errors
    /// When the connection fails or the server reports an error; the copier is of no more use then.
    ///
    /// # Cancel safety
    /// Cancel safe: no row is lost.
    pub async fn next_rows(
        &mut self,
        most_rows: usize,
        most_bytes: usize,
    ) -> Result<Option<Vec<Row>>> {
        let Some(copy) = &mut self.copy else {
            return Ok(None);
        };
        while copy.decoder.is_some() && copy.rows.len() < most_rows && copy.bytes < most_bytes {
            copy.receive(&mut self.link).await?;
        }
        let rows = copy.take(most_rows);
        if rows.is_empty() {
            self.copy = None;
            return Ok(None);
        }
        Ok(Some(rows))
    }
}

// === impl Copy ===

impl Copy {
    async fn receive(&mut self, link: &mut Link) -> Result<()> {
        let frame = link.receive(COPYING).await?;
        match (frame.tag, &mut self.decoder) {
            (b'd', Some(decoder)) => {
                self.bytes += frame.body.len();
                let decoded = decoder.decode(frame.body, &mut self.rows);
                decoded.map_err(|source| Error::CopyText {
                    table: self.table.clone(),
                    source,
                })
            }
            // CopyOutResponse, CopyDone, CommandComplete
            (b'H' | b'c' | b'C', _) => Ok(()),
            (b'Z', decoder) => {
                let finished = decoder.take().map_or(Ok(()), CopyTextDecoder::finish);
                finished.map_err(|source| Error::CopyText {
                    table: self.table.clone(),
                    source,
                })
            }
            (tag, _) => Err(Error::Unexpected {
                doing: COPYING,
                tag: char::from(tag),
            }),
        }
    }

    /// Up to `most` rows; a message may have brought more.
    fn take(&mut self, most: usize) -> Vec<Row> {
        self.bytes = 0;
        if self.rows.len() <= most {
            return std::mem::take(&mut self.rows);
        }
        let rest = self.rows.split_off(most);
        std::mem::replace(&mut self.rows, rest)
    }
}
