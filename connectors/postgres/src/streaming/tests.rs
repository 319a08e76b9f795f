#![allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "tests build their own inputs"
)]

use std::path::Path;
use std::sync::Arc;

use walferry_core::{Class, Classify};

use super::*;
use crate::pgoutput::{self, Message};

const TOP: u32 = 7;

fn kept(directory: &Path, limit_bytes: u64) -> Streaming {
    let large_rows = LargeRows {
        max_row_bytes: 1 << 20,
        directory: Arc::new(directory.to_owned()),
    };
    Streaming {
        large_rows,
        limit_bytes,
    }
}

/// A stream into a spool of its own, and what came out as short texts.
struct Told {
    spool: Spool,
    texts: Vec<String>,
    directory: tempfile::TempDir,
    lsn: u64,
}

impl Told {
    fn new() -> Self {
        Self::with_limit(u64::MAX)
    }

    fn with_limit(limit_bytes: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            spool: Spool::open(kept(directory.path(), limit_bytes)).unwrap(),
            texts: Vec::new(),
            directory,
            lsn: 0,
        }
    }

    fn send(&mut self, tag: u8, numbers: &[u32], rest: &[u8]) -> Result<()> {
        let mut message = BytesMut::from(&[tag][..]);
        for number in numbers {
            message.put_u32(*number);
        }
        message.put_slice(rest);
        self.lsn += 1;
        let mut next = self.spool.accept(Lsn(self.lsn), message.freeze())?;
        while let Some(frame) = next {
            self.texts.push(text(frame));
            next = self.spool.replayed()?;
        }
        Ok(())
    }

    fn start(&mut self, xid: u32) {
        self.send(b'S', &[xid], b"\x01").unwrap();
    }

    fn stop(&mut self) {
        self.send(b'E', &[], b"").unwrap();
    }

    /// A truncate of the table with this number.
    fn change(&mut self, xid: u32, table: u32) {
        self.send(b'T', &[xid, 1], &[&[0], &table.to_be_bytes()[..]].concat())
            .unwrap();
    }

    /// A block of one transaction: changes as their xids and tables.
    fn block(&mut self, top: u32, changes: &[(u32, u32)]) {
        self.start(top);
        for (xid, table) in changes {
            self.change(*xid, *table);
        }
        self.stop();
    }

    fn abort(&mut self, top: u32, xid: u32) {
        self.send(b'A', &[top, xid], b"").unwrap();
    }

    fn commit(&mut self, xid: u32) {
        let rest = [&[0][..], &[0; 7], &[9], &[0; 7], &[10], &[0; 8]].concat();
        self.send(b'c', &[xid], &rest).unwrap();
    }

    fn files(&self) -> usize {
        std::fs::read_dir(self.directory.path()).unwrap().count()
    }
}

fn text(frame: StreamFrame) -> String {
    match frame {
        StreamFrame::Keepalive { lsn, .. } => format!("keepalive {lsn}"),
        StreamFrame::Data { lsn, message } => match pgoutput::decode(message).unwrap() {
            Message::Begin { xid, .. } => format!("begin {xid}"),
            Message::Commit { .. } => "commit".to_owned(),
            Message::Truncate { relations } => format!("{} {}", relations[0], lsn.0),
            Message::Origin { name, .. } => name,
            other => format!("{other:?}"),
        },
        StreamFrame::Spooled { lsn, message } => {
            let at = DATA_HEADER_BYTES as u64;
            let mut bytes = vec![0; usize::try_from(message.bytes() - at).unwrap()];
            message.read_at(at, &mut bytes).unwrap();
            assert!(bytes[1..].iter().all(|byte| *byte == b'x'));
            format!(
                "{} and {} x {}",
                char::from(bytes[0]),
                bytes.len() - 1,
                lsn.0
            )
        }
    }
}

/// A message as the link leaves it in a file.
fn in_a_file(told: &Told, content: &[&[u8]]) -> SpooledFrame {
    let mut file = told.spool.settings.large_rows.file().unwrap();
    file.write(&[7; DATA_HEADER_BYTES]).unwrap();
    for part in content {
        file.write(part).unwrap();
    }
    file
}

#[test]
fn a_transaction_leaves_whole_at_its_commit_with_the_lsns_of_its_changes() {
    let mut told = Told::new();
    told.block(TOP, &[(TOP, 1), (TOP, 2)]);
    told.block(TOP, &[(8, 3)]);
    assert_eq!(told.texts.len(), 0);
    assert_eq!(told.spool.spooled().transactions, 1);
    told.commit(TOP);
    assert_eq!(told.texts, ["begin 7", "1 2", "2 3", "3 6", "commit"]);
    assert_eq!(told.spool.spooled(), Spooled::default());
}

#[test]
fn a_change_that_is_too_large_for_memory_leaves_in_a_file_as_it_came() {
    let mut told = Told::new();
    let large = vec![b'x'; 3 << 20];
    told.start(TOP);
    told.change(TOP, 1);
    for xid in [TOP, 8] {
        let message = in_a_file(&told, &[b"I", &xid.to_be_bytes(), &large]);
        let passed = told.spool.accept_large(Lsn(40), message).unwrap();
        assert!(passed.is_none());
    }
    told.change(8, 2);
    told.stop();
    told.abort(TOP, 8);
    told.commit(TOP);
    assert_eq!(
        told.texts,
        ["begin 7", "1 2", "I and 3145728 x 40", "commit"]
    );
    // Outside a block it is nobody's but the assembler's.
    let message = in_a_file(&told, &[b"Ixx"]);
    let passed = told.spool.accept_large(Lsn(41), message).unwrap();
    assert_eq!(text(passed.expect("it passes")), "I and 2 x 41");
}

#[test]
fn transactions_in_turns_leave_in_the_order_of_their_commits() {
    let mut told = Told::new();
    told.block(TOP, &[(TOP, 1)]);
    told.block(20, &[(20, 2)]);
    told.block(TOP, &[(TOP, 3)]);
    told.commit(20);
    told.commit(TOP);
    let order: Vec<_> = told.texts.iter().map(|it| &it[..1]).collect();
    assert_eq!(order, ["b", "2", "c", "b", "1", "3", "c"]);
}

#[test]
fn nothing_of_what_was_rolled_back_leaves() {
    let mut told = Told::new();
    told.block(TOP, &[(TOP, 1), (8, 2), (9, 3), (8, 4)]);
    told.abort(TOP, 9);
    told.abort(TOP, 8);
    told.block(TOP, &[(10, 5), (TOP, 6)]);
    told.block(30, &[(30, 7)]);
    told.abort(30, 30);
    told.commit(TOP);
    let tables: Vec<_> = told.texts.iter().map(|it| &it[..1]).collect();
    assert_eq!(tables, ["b", "1", "5", "6", "c"]);
}

#[test]
fn a_transaction_of_which_nothing_is_left_is_not_mentioned() {
    let mut told = Told::new();
    told.start(TOP);
    told.send(b'O', &[0, 0], b"origin\0").unwrap();
    told.change(8, 1);
    told.stop();
    told.abort(TOP, 8);
    told.commit(TOP);
    assert_eq!(told.texts, ["keepalive 0/A"]);
}

#[test]
fn an_origin_comes_after_the_begin() {
    let mut told = Told::new();
    told.start(TOP);
    told.send(b'O', &[0, 0], b"origin\0").unwrap();
    told.change(TOP, 1);
    told.stop();
    told.commit(TOP);
    assert_eq!(told.texts, ["begin 7", "origin", "1 3", "commit"]);
}

#[test]
fn what_is_not_in_progress_passes_at_once() {
    let mut told = Told::new();
    told.block(TOP, &[(TOP, 1)]);
    told.send(b'T', &[1], &[&[0], &5u32.to_be_bytes()[..]].concat())
        .unwrap();
    assert_eq!(told.texts, ["5 4"]);
}

#[test]
fn what_is_larger_than_a_buffer_comes_back_and_leaves_no_file() {
    let mut told = Told::new();
    let blocks = 20u32;
    for block in 0..blocks {
        let changes: Vec<_> = (0..1_000).map(|_| (TOP + block % 2, block)).collect();
        told.block(TOP, &changes);
        assert_eq!(told.files(), 0);
    }
    told.commit(TOP);
    assert_eq!(told.texts.len(), 20_002);
    let expected = (0..blocks).flat_map(|block| (0..1_000).map(move |_| block.to_string()));
    let found = told.texts[1..20_001].iter();
    assert!(
        found
            .map(|it| it.split(' ').next().unwrap_or_default())
            .eq(expected)
    );
    drop(told.spool);
    assert_eq!(std::fs::read_dir(told.directory.path()).unwrap().count(), 0);
}

#[test]
fn more_than_the_limit_is_refused_and_what_was_rolled_back_does_not_count() {
    let mut told = Told::with_limit(200_000);
    for round in 0..10 {
        told.start(TOP);
        (0..3_000).for_each(|_| told.change(100 + round, 1));
        told.stop();
        told.abort(TOP, 100 + round);
    }
    told.start(TOP);
    let change = [&[0], &[0; 4][..]].concat();
    let refused = (0..30_000).find_map(|_| told.send(b'T', &[TOP, 1], &change).err());
    let error = refused.expect("the limit is noticed");
    assert_eq!(error.class(), Class::Fatal);
    assert!(error.to_string().contains("raise source.spool_limit"));
}

#[test]
fn a_directory_that_is_not_there_is_refused_by_name() {
    let settings = kept("/nowhere".as_ref(), 1);
    let error = Spool::open(settings).err().expect("an error").to_string();
    assert!(
        error.contains("/nowhere") && error.contains("source.spool"),
        "{error}"
    );
}

#[test]
fn a_full_disk_is_named() {
    let settings = kept("/spool".as_ref(), 1);
    let error = settings.failed(KEEPING, io::ErrorKind::StorageFull.into());
    assert_eq!(error.class(), Class::Fatal);
    let text = error.to_string();
    assert!(text.starts_with("no space is left in /spool"), "{text}");
}

#[test]
fn blocks_that_are_not_closed_and_transactions_that_did_not_begin_are_errors() {
    let mut told = Told::new();
    assert!(told.send(b'E', &[], b"").is_err());
    assert!(told.send(b'c', &[TOP], &[0; 25]).is_err());
    told.start(TOP);
    assert!(told.send(b'S', &[8], b"\x01").is_err());
    assert!(told.send(b'A', &[TOP, TOP], b"").is_err());
    assert!(told.send(b'T', &[], b"\0\0").is_err());
}

proptest::proptest! {
    #[test]
    fn any_messages_are_kept_passed_or_refused_and_never_a_panic(
        messages in proptest::collection::vec((proptest::sample::select(b"SEcATOM".to_vec()), proptest::collection::vec(0..3u8, 0..30)), 0..40)
    ) {
        let mut told = Told::new();
        for (tag, rest) in messages {
            let message = [&[tag], rest.as_slice()].concat();
            if told.spool.accept(Lsn(1), message.into()).is_err() {
                break;
            }
            while let Ok(Some(_)) = told.spool.replayed() {}
        }
    }
}
