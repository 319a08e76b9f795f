//! One connection that copies tables out of a snapshot.

use std::sync::Arc;

use walferry_schema::{Relation, Row};

use super::{BEGIN, BlockRange, SnapshotTable, joining};
use crate::copy_text::{CopyTextDecoder, CopyTextError, SpooledError};
use crate::endpoint::Endpoint;
use crate::error::{Error, Result};
use crate::large::{LargeRows, SpooledFrame, row_with_key};
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
    large_rows: Option<LargeRows>,
    copy: Option<Copy>,
}

struct Copy {
    relation: Arc<Relation>,
    large_rows: Option<LargeRows>,
    /// None once the server has sent everything.
    decoder: Option<CopyTextDecoder>,
    /// Rows not yet handed out.
    rows: Vec<Row>,
    bytes: usize,
}

// === impl Copier ===

impl Copier {
    pub(super) async fn connect(
        endpoint: &Endpoint,
        snapshot: &str,
        large_rows: Option<LargeRows>,
    ) -> Result<Self> {
        let mut link = Link::connect(endpoint, Kind::Sql).await?;
        if let Some(large_rows) = large_rows.clone() {
            link.spool(large_rows);
        }
        link.query(JOINING, BEGIN).await?;
        link.query(JOINING, &joining(snapshot)).await?;
        link.query(JOINING, LIMIT_LOCKS).await?;
        Ok(Self {
            link,
            large_rows,
            copy: None,
        })
    }

    /// Starts to copy a range; the one before must have been read to its end.
    ///
    /// # Errors
    /// When the server refuses, or another range is still being copied.
    pub async fn start(&mut self, table: &SnapshotTable, range: BlockRange) -> Result<()> {
        self.begin(table, &table.select(range)).await
    }

    /// As [`start`](Self::start), but only the first rows of the whole table, in the order of a copy.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_first(&mut self, table: &SnapshotTable, most_rows: u32) -> Result<()> {
        let select = table.select(BlockRange::WHOLE);
        self.begin(table, &format!("{select} LIMIT {most_rows}"))
            .await
    }

    async fn begin(&mut self, table: &SnapshotTable, select: &str) -> Result<()> {
        if self.copy.is_some() {
            return Err(Error::Misuse(
                "copying a table: the range before is not read to its end",
            ));
        }
        let command = format!("COPY ({select}) TO STDOUT");
        self.link.write_query(COPYING, &command)?;
        self.link.flush(COPYING).await?;
        let relation = table.relation();
        let decoder = CopyTextDecoder::new(relation.columns.len());
        let copy = Copy {
            relation: relation.clone(),
            large_rows: self.large_rows.clone(),
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
                if let Some(file) = &frame.spooled {
                    return self.receive_spooled(file);
                }
                self.bytes += frame.body.len();
                let decoded = decoder.decode(frame.body, &mut self.rows);
                decoded.map_err(|source| self.malformed(source))
            }
            // CopyOutResponse, CopyDone, CommandComplete
            (b'H' | b'c' | b'C', _) => Ok(()),
            (b'Z', decoder) => {
                let finished = decoder.take().map_or(Ok(()), CopyTextDecoder::finish);
                finished.map_err(|source| self.malformed(source))
            }
            (tag, _) => Err(Error::Unexpected {
                doing: COPYING,
                tag: char::from(tag),
            }),
        }
    }

    /// Takes a row that is too large for memory; it ends what is handed out at a time.
    fn receive_spooled(&mut self, file: &SpooledFrame) -> Result<()> {
        let (Some(decoder), Some(large_rows)) = (&self.decoder, &self.large_rows) else {
            return Err(Error::Misuse("copying a table: a row was spooled"));
        };
        let row = decoder.decode_spooled(file, large_rows);
        let row = row.map_err(|error| match error {
            SpooledError::Text(source) => self.malformed(source),
            SpooledError::Spool(error) => error,
        })?;
        let row = row_with_key(row, &self.relation.key_columns());
        self.rows.push(row.map_err(Error::spool_row(large_rows))?);
        self.bytes = usize::MAX;
        Ok(())
    }

    fn malformed(&self, source: CopyTextError) -> Error {
        let table = self.relation.name.clone();
        Error::CopyText { table, source }
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
