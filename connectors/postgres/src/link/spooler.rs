//! COPY data that is too large for memory goes to a file as it comes.
//!
//! - While a message is spooled, the read buffer holds nothing but bytes of it that came last.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::Bytes;

use super::buffer::{Frame, ReadBuffer};
use crate::error::{Error, Result};
use crate::large::{LargeRows, SpooledFrame};

const COPY_DATA: u8 = b'd';

/// Takes frames out of a read buffer, the large ones into files.
pub(super) struct Spooler {
    large_rows: LargeRows,
    begun: Option<Begun>,
}

/// A message of which a part has come.
struct Begun {
    file: SpooledFrame,
    left: usize,
}

// === impl Spooler ===

impl Spooler {
    pub(super) fn new(large_rows: LargeRows) -> Self {
        Self {
            large_rows,
            begun: None,
        }
    }

    /// The first frame if all of it is here.
    pub(super) fn next_frame(&mut self, read: &mut ReadBuffer) -> Result<Option<Frame>> {
        let mut begun = match self.begun.take() {
            Some(begun) => begun,
            None => match read.take_header(COPY_DATA, self.large_rows.max_row_bytes)? {
                Some(left) => Begun {
                    file: self
                        .large_rows
                        .file()
                        .map_err(Error::spool_row(&self.large_rows))?,
                    left,
                },
                None => return Ok(read.next_frame()?),
            },
        };
        let part = read.take(begun.left);
        let written = begun.file.write(&part);
        written.map_err(Error::spool_row(&self.large_rows))?;
        begun.left = begun.left.saturating_sub(part.len());
        if begun.left > 0 {
            self.begun = Some(begun);
            return Ok(None);
        }
        Ok(Some(Frame {
            tag: COPY_DATA,
            body: Bytes::new(),
            spooled: Some(begun.file),
        }))
    }
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests build their own inputs"
)]
mod tests {
    use super::*;
    use crate::large::tests::large_rows;

    const LIMIT: usize = 300_000;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag], length.to_be_bytes().as_slice(), body].concat()
    }

    #[tokio::test]
    async fn only_large_copy_data_is_spooled_and_no_byte_is_lost_around_it() {
        let large: Vec<u8> = (0..=250).cycle().take(3 * LIMIT).collect();
        let data = [
            frame(b'd', b"before"),
            frame(b'd', &large),
            frame(b'd', &large[..LIMIT]),
            frame(b'D', &large),
            frame(b'd', &large),
            frame(b'd', b"after"),
        ]
        .concat();
        let (mut data, mut read) = (data.as_slice(), ReadBuffer::new());
        let (mut spooler, mut found) = (Spooler::new(large_rows(LIMIT)), Vec::new());
        while read.fill(&mut data).await.unwrap() > 0 {
            while let Some(frame) = spooler.next_frame(&mut read).unwrap() {
                let body = frame.spooled.map(|file| {
                    let mut body = vec![0; usize::try_from(file.bytes()).unwrap()];
                    file.read_at(0, &mut body).unwrap();
                    body
                });
                found.push((frame.tag, frame.body.to_vec(), body));
            }
            assert!(spooler.begun.is_none() || read.is_empty());
        }
        let expected = [
            (b'd', b"before".to_vec(), None),
            (b'd', Vec::new(), Some(large.clone())),
            (b'd', large[..LIMIT].to_vec(), None),
            (b'D', large.clone(), None),
            (b'd', Vec::new(), Some(large)),
            (b'd', b"after".to_vec(), None),
        ];
        assert!(found == expected, "{} frames", found.len());
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_named() {
        let mut large_rows = large_rows(1);
        large_rows.directory = std::sync::Arc::new("/nowhere".into());
        let error = large_rows.file().map_err(Error::spool_row(&large_rows));
        let error = error.expect_err("it is not there").to_string();
        assert!(
            error.contains("/nowhere") && error.contains("source.spool"),
            "{error}"
        );
    }
}
