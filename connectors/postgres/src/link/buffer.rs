//! The read buffer: large reads in, frames out, nothing copied but the beginning of a frame whose end is not here yet.
//!
//! - Any bytes give frames, a wait for more, or an error, never a panic.
//! - A frame larger than the buffer gets a buffer of its own size, which goes with the frame.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::large::SpooledFrame;

/// One read takes up to this much.
const BUFFER_BYTES: usize = 256 * 1024;
/// A read with less room than this is not worth a system call.
const LEAST_ROOM_BYTES: usize = 64 * 1024;
/// PostgreSQL makes no message of a gigabyte or more.
const MOST_FRAME_BYTES: usize = 1 << 30;
const HEADER_BYTES: usize = 5;
/// The length field counts itself.
const LENGTH_BYTES: usize = 4;

/// One message of the server.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) tag: u8,
    pub(crate) body: Bytes,
    /// The body, where it is too large for memory; `body` is empty then.
    pub(crate) spooled: Option<SpooledFrame>,
}

/// A message whose length cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of type {tag:#04x} says that it is {length} bytes long")]
pub struct FrameError {
    tag: u8,
    length: u32,
}

#[derive(Debug)]
pub(super) struct ReadBuffer {
    bytes: BytesMut,
    /// What `bytes` was made for.
    allocated: usize,
}

// === impl ReadBuffer ===

impl ReadBuffer {
    /// An empty buffer; room is made at the first read.
    pub(super) fn new() -> Self {
        Self {
            bytes: BytesMut::new(),
            allocated: 0,
        }
    }

    /// Takes the first frame if all of it is here.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((tag, total)) = self.first_frame()? else {
            return Ok(None);
        };
        if self.bytes.len() < total {
            return Ok(None);
        }
        let mut body = self.bytes.split_to(total).freeze();
        body.advance(HEADER_BYTES);
        Ok(Some(Frame {
            tag,
            body,
            spooled: None,
        }))
    }

    /// Takes the header of the first frame if it is of this type and its body larger than that: the body's size.
    pub(super) fn take_header(
        &mut self,
        tag: u8,
        most_bytes: usize,
    ) -> Result<Option<usize>, FrameError> {
        let Some((found, total)) = self.first_frame()? else {
            return Ok(None);
        };
        let bytes = total.saturating_sub(HEADER_BYTES);
        if found != tag || bytes <= most_bytes {
            return Ok(None);
        }
        self.bytes.advance(HEADER_BYTES);
        Ok(Some(bytes))
    }

    /// Takes what is here, at most so many bytes.
    pub(super) fn take(&mut self, most_bytes: usize) -> BytesMut {
        let bytes = self.bytes.len().min(most_bytes);
        self.bytes.split_to(bytes)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads once, as much as has arrived and fits: the number of bytes, 0 at the end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn fill(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<usize> {
        self.make_room();
        stream.read_buf(&mut self.bytes).await
    }

    /// The first frame's type and whole length, once its header is here.
    fn first_frame(&self) -> Result<Option<(u8, usize)>, FrameError> {
        let Some(&[tag, a, b, c, d]) = self.bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]);
        match usize::try_from(length) {
            Ok(bytes) if (LENGTH_BYTES..MOST_FRAME_BYTES).contains(&bytes) => {
                Ok(Some((tag, bytes.saturating_add(1))))
            }
            _ => Err(FrameError { tag, length }),
        }
    }

    fn make_room(&mut self) {
        let total = self
            .first_frame()
            .ok()
            .flatten()
            .map_or(0, |(_, total)| total);
        let free = self.bytes.capacity().saturating_sub(self.bytes.len());
        let missing = total.saturating_sub(self.bytes.len());
        // The end of a large frame may need less room than a read is otherwise worth.
        if free >= LEAST_ROOM_BYTES.max(missing) || (total > BUFFER_BYTES && free >= missing.max(1))
        {
            return;
        }
        let wanted = BUFFER_BYTES.max(total);
        let is_right_size = self.allocated == wanted;
        if is_right_size
            && self
                .bytes
                .try_reclaim(wanted.saturating_sub(self.bytes.len()))
        {
            return;
        }
        let mut fresh = BytesMut::with_capacity(wanted);
        fresh.extend_from_slice(&self.bytes);
        self.bytes = fresh;
        self.allocated = wanted;
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
    use proptest::prelude::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + LENGTH_BYTES).unwrap();
        [&[tag], length.to_be_bytes().as_slice(), body].concat()
    }

    async fn read_all(data: &[u8], mut each: impl FnMut(&ReadBuffer, Frame)) -> ReadBuffer {
        let (mut buffer, mut data) = (ReadBuffer::new(), data);
        while buffer.fill(&mut data).await.unwrap() > 0 {
            while let Some(frame) = buffer.next_frame().unwrap() {
                each(&buffer, frame);
            }
        }
        buffer
    }

    #[tokio::test]
    async fn a_large_frame_gets_room_and_gives_it_back() {
        let large = vec![7; 3 * BUFFER_BYTES];
        let mut data = frame(b'd', &large);
        for _ in 0..BUFFER_BYTES {
            data.extend(frame(b'd', b"small"));
        }
        let mut frames = 0;
        let buffer = read_all(&data, |_, frame| {
            assert!(frames > 0 || frame.body == large);
            frames += 1;
        });
        let buffer = buffer.await;
        assert_eq!(frames, BUFFER_BYTES + 1);
        assert_eq!(buffer.allocated, BUFFER_BYTES);
    }

    #[tokio::test]
    async fn a_length_that_cannot_be_is_an_error() {
        for length in [0, 3, 1 << 30, u32::MAX] {
            let mut buffer = ReadBuffer::new();
            let header = [b"d", u32::to_be_bytes(length).as_slice()].concat();
            buffer.fill(&mut header.as_slice()).await.unwrap();
            assert_eq!(
                buffer.next_frame().unwrap_err(),
                FrameError { tag: b'd', length }
            );
        }
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..40)) {
            let data: Vec<u8> = bodies.iter().flat_map(|body| frame(b'd', body)).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut read = Vec::new();
            runtime.block_on(read_all(&data, |_, frame| read.push(frame.body.to_vec())));
            prop_assert_eq!(read, bodies);
        }

        #[test]
        fn any_bytes_are_frames_or_an_error_and_never_a_panic(data: Vec<u8>) {
            let mut buffer = ReadBuffer { bytes: data.as_slice().into(), allocated: 0 };
            while let Ok(Some(_)) = buffer.next_frame() {}
            buffer.make_room();
        }
    }
}
