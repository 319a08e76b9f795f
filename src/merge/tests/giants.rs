//! Rule 17: a transaction above the limit comes in pieces, each exactly once.

use walferry_core::Checkpoint;
use walferry_core::fakes::FakeLogReader;
use walferry_schema::{Lsn, Phase, Position, Term};

use super::{GENERATION, Merge, MergeError, Rig, WholeLimits, error, name, nothing, rows};

/// Pieces of two rows.
const SMALL: WholeLimits = WholeLimits {
    rows: 2,
    bytes: 1 << 20,
};

const NOTHING: [u64; 0] = [];

impl Rig {
    /// Rows 1, 3, 5 … 11 of a transaction at 200, in turn over three partitions.
    fn giant(&self, term: Term) {
        for (ordinal, partition) in (1..12).step_by(2).zip([0, 1, 2].into_iter().cycle()) {
            self.row(partition, term, 200, ordinal);
        }
        self.commit(term, 200, [2, 2, 2]);
    }

    /// A merge that goes on from where a sink stands.
    async fn from(&self, checkpoint: Checkpoint) -> Merge<FakeLogReader> {
        let reader = FakeLogReader::new(&self.kafka);
        Merge::open(reader, Some(checkpoint), None, SMALL)
            .await
            .expect("it opens")
    }

    /// The checkpoint of a sink that has passed the snapshot.
    async fn checkpoint(&self) -> Checkpoint {
        self.live().await.checkpoint().clone()
    }
}

async fn piece(merge: &mut Merge<FakeLogReader>) -> Vec<u64> {
    let rows = rows(merge).await;
    assert_eq!(merge.checkpoint().position, Some(rows.position));
    let ordinals = rows.records.iter().map(|(_, row)| row.stamp.ordinal);
    ordinals.collect()
}

fn at(ordinal: u64) -> Position {
    Position {
        generation: GENERATION,
        phase: Phase::Stream(Lsn(200)),
        ordinal,
    }
}

#[tokio::test(start_paused = true)]
async fn rule_17_a_giant_comes_in_pieces_in_source_order() {
    let (rig, term) = Rig::streaming();
    let start = rig.checkpoint().await;
    rig.giant(term);
    rig.row(0, term, 300, 1);
    rig.commit(term, 300, [1, 0, 0]);
    let mut merge = rig.from(start.clone()).await;
    for (ordinals, last) in [([1, 3], 3), ([5, 7], 7), ([9, 11], 11)] {
        assert_eq!(piece(&mut merge).await, ordinals);
        let checkpoint = merge.checkpoint();
        assert_eq!(checkpoint.position, Some(at(last)));
        // Whoever begins again reads all of it again.
        assert_eq!(checkpoint.end_lsn, start.end_lsn);
        assert_eq!(checkpoint.partitions, start.partitions);
    }
    assert_eq!(piece(&mut merge).await, NOTHING);
    let end = Position::end_of(GENERATION, Phase::Stream(Lsn(200)));
    assert_eq!(merge.checkpoint().position, Some(end));
    assert_eq!(merge.checkpoint().partitions[&name(0)], 2);
    assert_eq!(piece(&mut merge).await, [1]);
    assert_eq!(merge.checkpoint().partitions[&name(0)], 3);
}

#[tokio::test(start_paused = true)]
async fn rule_17_a_giant_by_its_bytes_alone_comes_in_pieces() {
    let (rig, term) = Rig::streaming();
    let start = rig.checkpoint().await;
    rig.giant(term);
    let reader = FakeLogReader::new(&rig.kafka);
    // Each scripted row has ten bytes.
    let whole = WholeLimits { rows: 6, bytes: 25 };
    let mut merge = Merge::open(reader, Some(start), None, whole)
        .await
        .expect("it opens");
    assert_eq!(piece(&mut merge).await, [1, 3, 5]);
    assert_eq!(piece(&mut merge).await, [7, 9, 11]);
    assert_eq!(piece(&mut merge).await, NOTHING);
    nothing(&mut merge).await;
}

#[tokio::test(start_paused = true)]
async fn rule_17_a_giant_that_was_cut_short_goes_on_where_it_was() {
    let (rig, term) = Rig::streaming();
    let start = rig.checkpoint().await;
    rig.giant(term);
    let mut first = rig.from(start).await;
    assert_eq!(piece(&mut first).await, [1, 3]);
    let cut = first.checkpoint().clone();
    let mut second = rig.from(cut).await;
    assert_eq!(piece(&mut second).await, [5, 7]);
    assert_eq!(piece(&mut second).await, [9, 11]);
    assert_eq!(piece(&mut second).await, NOTHING);
    assert!(second.checkpoint().position.is_some_and(|it| it.is_end()));
}

#[tokio::test(start_paused = true)]
async fn rule_17_another_term_goes_on_with_a_giant_that_a_dead_reader_left() {
    let (rig, dead) = Rig::streaming();
    let start = rig.checkpoint().await;
    for (partition, ordinal) in [(0, 1), (1, 3), (2, 5), (0, 7)] {
        rig.row(partition, dead, 200, ordinal);
    }
    rig.commit(dead, 200, [2, 2, 2]);
    let mut merge = rig.from(start).await;
    assert_eq!(piece(&mut merge).await, [1, 3]);
    let cut = merge.checkpoint().clone();
    nothing(&mut merge).await;
    let next_term = rig.open(super::START);
    rig.giant(next_term);
    for mut merge in [merge, rig.from(cut).await] {
        assert_eq!(piece(&mut merge).await, [5, 7]);
        assert_eq!(piece(&mut merge).await, [9, 11]);
        assert_eq!(piece(&mut merge).await, NOTHING);
        assert_eq!(merge.checkpoint().end_lsn, Lsn(210));
    }
}

#[tokio::test(start_paused = true)]
async fn rule_17_a_giant_whose_rest_never_comes_is_a_named_error() {
    let (rig, dead) = Rig::streaming();
    let start = rig.checkpoint().await;
    for (partition, ordinal) in [(0, 1), (0, 3), (1, 5)] {
        rig.row(partition, dead, 200, ordinal);
    }
    rig.commit(dead, 200, [2, 2, 0]);
    let mut merge = rig.from(start).await;
    assert_eq!(piece(&mut merge).await, [1, 3]);
    let term = rig.open(super::START);
    rig.row(0, term, 300, 1);
    rig.commit(term, 300, [1, 0, 0]);
    let error = error(&mut merge).await;
    assert!(matches!(error, MergeError::RestMissing { .. }), "{error}");
}
