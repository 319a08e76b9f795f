//! The search over scripted logs.

use walferry_core::fakes::{FakeKafka, FakeLogReader, Place, SERVER_ID, table_spec};
use walferry_schema::{
    Commit, Generation, Heartbeat, LogRecord, Lsn, Open, ServerIdentity, SnapshotEnd, Term,
};

use super::{Search, search};

/// Where the snapshot ends and the first term begins.
const START: u64 = 100;

/// A log with a generation whose snapshot is complete.
struct Rig {
    kafka: FakeKafka,
    generation: u64,
    /// How far the newest term covers the source.
    covered: u64,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            kafka: FakeKafka::new(),
            generation: 0,
            covered: 0,
        };
        rig.generation(START);
        rig
    }

    /// A generation with an empty snapshot at `lsn`.
    fn generation(&mut self, lsn: u64) {
        self.generation += 1;
        let end = SnapshotEnd {
            chunks: None,
            term: self.announce(self.generation),
            lsn: Lsn(lsn),
            tables: Vec::new(),
        };
        self.kafka.append_log(&LogRecord::SnapshotEnd(end));
        self.covered = lsn;
    }

    fn announce(&self, generation: u64) -> Term {
        let announced = Generation {
            generation,
            follows: self.kafka.newest_term(),
            server: server(),
            slot: "slot".into(),
            tables: vec![table_spec("p", "a", 3)],
        };
        let number = self.kafka.append_log(&LogRecord::Generation(announced));
        Term { generation, number }
    }

    fn open(&mut self, start: u64) -> Term {
        self.open_after(self.kafka.newest_term(), start)
    }

    /// An `open` that follows the term with this number.
    fn open_after(&mut self, follows: i64, start: u64) -> Term {
        self.covered = start;
        let open = Open {
            moved: false,
            generation: self.generation,
            follows,
            start_lsn: Lsn(start),
            server: server(),
            tables: vec![table_spec("p", "a", 3)],
        };
        Term {
            generation: self.generation,
            number: self.kafka.append_log(&LogRecord::Open(open)),
        }
    }

    /// A commit at an LSN, which ends ten after it.
    fn commit(&mut self, term: Term, lsn: u64) -> i64 {
        let commit = Commit {
            after: Lsn(self.covered),
            term,
            xid: 1,
            commit_lsn: Lsn(lsn),
            end_lsn: Lsn(lsn + 10),
            committed_at: 0,
            records: Vec::new(),
        };
        self.covered = self.covered.max(lsn + 10);
        self.kafka.append_log(&LogRecord::Commit(commit))
    }

    fn beat(&mut self, term: Term, lsn: u64) {
        let beat = Heartbeat {
            term,
            lsn: Lsn(lsn),
            after: Lsn(self.covered),
        };
        self.covered = self.covered.max(lsn);
        self.kafka.append_log(&LogRecord::Heartbeat(beat));
    }

    async fn search(&self, lsn: u64) -> Search {
        let mut reader = FakeLogReader::new(&self.kafka);
        search(&mut reader, Lsn(lsn)).await.unwrap()
    }

    /// The offsets of the copies that are found, and whether each one's term was followed.
    async fn found(&self, lsn: u64) -> Vec<(i64, bool)> {
        match self.search(lsn).await {
            Search::Found(copies) => copies
                .iter()
                .map(|it| (it.offset, it.followed_by.is_some()))
                .collect(),
            other => panic!("{lsn}: {other:?}"),
        }
    }
}

fn server() -> ServerIdentity {
    ServerIdentity {
        system_id: SERVER_ID.into(),
        timeline: 1,
    }
}

#[tokio::test]
async fn every_transaction_of_a_long_log_is_found_by_its_commit_its_end_and_what_is_between() {
    let mut rig = Rig::new();
    let mut offsets = Vec::new();
    for round in 0..7 {
        let covered = rig.covered;
        let term = rig.open(covered);
        for n in 0..300 {
            let lsn = 1_000 + (round * 300 + n) * 40;
            offsets.push((lsn, rig.commit(term, lsn)));
            if n % 7 == 0 {
                rig.beat(term, lsn + 20);
            }
        }
    }
    let newest = rig.kafka.newest_term();
    for (lsn, offset) in offsets.into_iter().step_by(97) {
        let expected = vec![(offset, offset < newest)];
        for asked in [lsn - 5, lsn, lsn + 3, lsn + 10] {
            assert_eq!(rig.found(asked).await, expected, "{asked}");
        }
    }
}

#[tokio::test]
async fn an_lsn_that_ends_one_transaction_and_commits_the_next_is_the_next_one() {
    let mut rig = Rig::new();
    let term = rig.open(START);
    let first = rig.commit(term, 200);
    let second = rig.commit(term, 210);
    assert_eq!(rig.found(209).await, [(first, false)]);
    assert_eq!(rig.found(210).await, [(second, false)]);
    assert_eq!(rig.found(220).await, [(second, false)]);
}

#[tokio::test]
async fn where_a_term_begins_the_one_before_tells_what_ended_there() {
    let mut rig = Rig::new();
    let first = rig.open(START);
    let ended = rig.commit(first, 200);
    let second = rig.open(210);
    let next = rig.commit(second, 300);
    assert_eq!(rig.found(210).await, [(ended, true)]);
    assert_eq!(rig.found(211).await, [(next, false)]);
    rig.beat(second, 500);
    let third = rig.open(500);
    let later = rig.commit(third, 700);
    assert_eq!(rig.found(500).await, [(later, false)]);
}

#[tokio::test]
async fn a_transaction_that_was_sent_again_is_found_as_often_as_it_stands_there() {
    let mut rig = Rig::new();
    let first = rig.open(START);
    rig.commit(first, 200);
    let once = rig.commit(first, 300);
    let second = rig.open(150);
    rig.commit(second, 200);
    // The second reader died before it came to the transaction; the third did.
    let third = rig.open(150);
    rig.commit(third, 200);
    let again = rig.commit(third, 300);
    let later = rig.commit(third, 400);
    assert_eq!(rig.found(300).await, [(once, true), (again, false)]);
    assert_eq!(rig.found(310).await, [(once, true), (again, false)]);
    assert_eq!(rig.found(400).await, [(later, false)]);
}

#[tokio::test]
async fn what_a_dead_reader_wrote_late_is_not_taken_for_a_copy() {
    let mut rig = Rig::new();
    let first = rig.open(START);
    let second = rig.open(START);
    rig.commit(first, 200);
    rig.covered = START;
    let counts = rig.commit(second, 200);
    assert_eq!(rig.found(200).await, [(counts, false)]);
}

#[tokio::test]
async fn what_no_transaction_of_a_streamed_table_ended_at_is_told_from_what_is_not_there_yet() {
    let mut rig = Rig::new();
    let term = rig.open(START);
    rig.commit(term, 200);
    rig.beat(term, 500);
    assert_eq!(rig.search(300).await, Search::Nothing);
    assert_eq!(rig.search(501).await, Search::NotYet(Some(Lsn(500))));
    // A commit record can begin where a heartbeat ends.
    assert_eq!(rig.search(500).await, Search::NotYet(Some(Lsn(500))));
    let next = rig.open(500);
    rig.beat(next, 600);
    assert_eq!(rig.search(500).await, Search::Nothing);
    let offset = rig.commit(next, 600);
    assert_eq!(rig.found(600).await, [(offset, false)]);
}

#[tokio::test]
async fn an_empty_log_has_not_come_to_anything_unless_all_of_it_was_deleted() {
    let kafka = FakeKafka::new();
    let mut reader = FakeLogReader::new(&kafka);
    let found = search(&mut reader, Lsn(1)).await.unwrap();
    assert_eq!(found, Search::NotYet(None));
    let rig = Rig::new();
    rig.kafka.trim(&Place::Log, 2);
    assert_eq!(rig.search(1).await, Search::Deleted(2));
}

#[tokio::test]
async fn what_was_before_the_snapshot_is_in_it_unless_an_older_generation_has_it() {
    let mut rig = Rig::new();
    let old = rig.open(START);
    let offset = rig.commit(old, 200);
    rig.generation(1_000);
    assert_eq!(rig.search(900).await, Search::Copied { generation: 2 });
    assert_eq!(
        rig.search(1_050).await,
        Search::NotYet(Some(Lsn(1_000))),
        "copied, and not streamed yet"
    );
    let term = rig.open(1_000);
    rig.commit(term, 1_100);
    assert_eq!(rig.found(200).await, [(offset, true)]);
    assert_eq!(rig.search(50).await, Search::Copied { generation: 2 });
    assert_eq!(rig.search(900).await, Search::Copied { generation: 2 });
}

#[tokio::test]
async fn while_the_tables_are_copied_nothing_is_there_yet() {
    let rig = Rig {
        kafka: FakeKafka::new(),
        generation: 0,
        covered: 0,
    };
    rig.announce(1);
    assert_eq!(rig.search(200).await, Search::NotYet(None));
}

#[tokio::test]
async fn what_the_log_no_longer_holds_is_not_mistaken_for_what_comes_first_in_it() {
    let mut rig = Rig::new();
    let term = rig.open(START);
    rig.commit(term, 200);
    rig.commit(term, 300);
    let kept = rig.commit(term, 400);
    rig.beat(term, 500);
    rig.kafka.trim(&Place::Log, kept);
    assert_eq!(rig.search(200).await, Search::Deleted(kept));
    assert_eq!(rig.search(305).await, Search::Deleted(kept));
    assert_eq!(rig.found(350).await, [(kept, false)]);
    assert_eq!(rig.found(400).await, [(kept, false)]);
    assert_eq!(rig.search(600).await, Search::NotYet(Some(Lsn(500))));
    // A later term does not know the LSN either.
    let next = rig.open_after(term.number, 500);
    rig.commit(next, 600);
    assert_eq!(rig.search(200).await, Search::Deleted(kept));
    assert_eq!(rig.found(400).await, [(kept, true)]);
}
