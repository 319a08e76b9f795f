//! The way through Kafka.

use walferry_core::{Checkpoint, Fault, Held, PartitionOffset};
use walferry_kafka::{KafkaLogReader, partition_of};
use walferry_mongodb::Recorded;
use walferry_schema::{Commit, Lsn, Phase};

use super::journey::{Journey, Place, Transaction, time};
use super::key::Key;
use super::rows::{Located, locate, newest_of};
use super::search::{Copy, Search, search};
use super::{Asking, TraceError};
use crate::config::Kafka;
use crate::pipeline::connect::log_reader;

/// The journey of the transaction that ended at an LSN.
pub(super) async fn lsn(asking: &Asking<'_>, kafka: &Kafka, lsn: Lsn) -> Result<Journey, Fault> {
    let mut log = log_reader(asking.config, kafka);
    let journey = Journey::new(lsn.to_string());
    Box::pin(follow(asking, &mut log, journey, lsn)).await
}

/// The journey of a row's last change.
pub(super) async fn row(
    asking: &Asking<'_>,
    kafka: &Kafka,
    key: &Key,
) -> Result<Journey, TraceError> {
    let mut log = log_reader(asking.config, kafka);
    let (table, record_key) = (key.table(), key.record_key());
    let shown = String::from_utf8_lossy(&record_key);
    let mut journey = Journey::new(format!("{table} {shown}"));
    let Some(position) = asking.trail.position().await? else {
        return Ok(journey.unknown("MongoDB holds no position of this pipeline: no sink has begun"));
    };
    let mut tables = position.checkpoint.tables.iter();
    let spec = tables.find(|it| it.name == *table);
    let spec = spec.ok_or_else(|| TraceError::NotInGeneration(table.clone()))?;
    let topic = &spec.topic;
    let mut looked = Vec::new();
    let mut newest = None;
    for partition in partitions(key, &record_key, spec.partitions) {
        let name = PartitionOffset {
            topic: topic.clone(),
            partition,
        };
        let (found, looked_to) = Box::pin(newest_of(&mut log, &name, &record_key)).await?;
        newest = found.map(|found| (found, partition));
        if newest.is_some() {
            break;
        }
        looked.push(format!("partition {partition} from offset {looked_to} on"));
    }
    let Some((found, partition)) = newest else {
        return Ok(journey.unknown(format!(
            "{topic} has no record of this key in {}, the oldest that was looked at",
            looked.join(", ")
        )));
    };
    match found.stamp.phase {
        Phase::Snapshot(chunk) => Ok(journey.unknown(format!(
            "it has not changed since generation {} copied it, in chunk {chunk}",
            found.stamp.term.generation
        ))),
        Phase::Stream(commit_lsn) => {
            let offset = found.offset;
            journey.notes.push(format!(
                "its last record is at offset {offset} of {topic}, partition {partition}; a TRUNCATE has no key and is not \
                 looked for"
            ));
            Ok(Box::pin(follow(asking, &mut log, journey, commit_lsn)).await?)
        }
    }
}

/// The partitions where a key may be: with a schema, it is the whole that is hashed, of which only the payload is known.
fn partitions(key: &Key, record_key: &[u8], count: i32) -> std::ops::Range<i32> {
    if key.has_schema() {
        return 0..count;
    }
    let partition = partition_of(Some(record_key), count);
    partition..partition + 1
}

async fn follow(
    asking: &Asking<'_>,
    log: &mut KafkaLogReader,
    journey: Journey,
    lsn: Lsn,
) -> Result<Journey, Fault> {
    if !log.has_log().await? {
        return asking.in_the_source(journey, lsn, None).await;
    }
    let found = search(log, lsn).await?;
    // Asked after the log: what it held then may be applied by now, and not the other way round.
    let position = asking.trail.position().await?;
    match found {
        Search::Found(copies) => found_in_log(asking, log, journey, copies, position).await,
        Search::Nothing => Ok(journey.unknown(format!(
            "no transaction of a streamed table ended at {lsn}: it wrote other tables only, was rolled back, or ended \
             elsewhere: others write too, so ask by the table and the key"
        ))),
        Search::NotYet(covered) => asking.in_the_source(journey, lsn, covered).await,
        Search::Copied { generation } => Ok(journey.unknown(format!(
            "generation {generation} copied the tables after {lsn}: what was committed there is part of the copy"
        ))),
        Search::Deleted(first) => deleted(asking, journey, lsn, first, position).await,
    }
}

async fn found_in_log(
    asking: &Asking<'_>,
    log: &mut KafkaLogReader,
    mut journey: Journey,
    copies: Vec<Copy>,
    position: Option<Recorded>,
) -> Result<Journey, Fault> {
    let checkpoint = position.as_ref().map(|it| &it.checkpoint);
    let (copy, located) = effective(log, &mut journey, copies).await?;
    let Copy { commit, offset, .. } = &copy;
    journey.transaction = Some(Transaction::new(commit, *offset));
    journey.reached(Place::Postgresql, commit.committed_at);
    if let Some(at) = located.decoded_at {
        journey.reached(Place::Reader, at);
    }
    if let Some(at) = log.logged_at(*offset).await? {
        journey.reached(Place::Kafka, at * 1_000);
    }
    journey.records = located.records;
    if checkpoint.is_some_and(|it| is_held(it, commit)) {
        return landed(asking, journey, commit, checkpoint).await;
    }
    journey.stands_at = Some(Place::Kafka);
    let why = match (&copy.followed_by, located.is_incomplete) {
        (Some(next), true) => format!(
            "void: term {} ended before its rows were all in Kafka; term {} sends it again, and has not come so far",
            commit.term.number, next.number
        ),
        _ => stands(*offset, commit, position.as_ref()),
    };
    Ok(journey.waiting(why))
}

/// The copy that takes effect: the first whose rows are all there.
async fn effective(
    log: &mut KafkaLogReader,
    journey: &mut Journey,
    copies: Vec<Copy>,
) -> Result<(Copy, Located), Fault> {
    let mut void: Vec<(Copy, Located)> = Vec::new();
    for copy in copies {
        let located = locate(log, &copy.commit).await?;
        if located.is_incomplete {
            void.push((copy, located));
            continue;
        }
        journey.notes.extend(void.iter().map(|(it, _)| {
            format!(
                "void: the same at offset {} of the commit log, by term {}, which ended before its rows were all in Kafka",
                it.offset, it.commit.term.number
            )
        }));
        return Ok((copy, located));
    }
    let last = void.pop();
    Ok(last.expect("a transaction that is found has a copy"))
}

/// A transaction that is applied: when, if the oplog tells.
async fn landed(
    asking: &Asking<'_>,
    mut journey: Journey,
    commit: &Commit,
    checkpoint: Option<&Checkpoint>,
) -> Result<Journey, Fault> {
    let generation = checkpoint.map_or(0, |it| it.generation);
    if generation > commit.term.generation {
        return Ok(journey.applied(format!(
            "applied, at the latest with the copy of generation {generation}, which took its place"
        )));
    }
    let written = asking
        .landed(&mut journey, generation, commit.end_lsn)
        .await?;
    if let Some(written) = written {
        journey.reached(Place::Mongodb, written.at * 1_000);
    }
    Ok(journey.applied("applied: readers of MongoDB see it"))
}

fn is_held(checkpoint: &Checkpoint, commit: &Commit) -> bool {
    let phase = Phase::Stream(commit.commit_lsn);
    checkpoint.held(commit.term.generation, phase) == Held::All
}

/// Why a transaction that is in the log is not applied.
fn stands(offset: i64, commit: &Commit, position: Option<&Recorded>) -> String {
    let Some(Recorded {
        checkpoint,
        updated_at,
    }) = position
    else {
        return format!(
            "in Kafka, at offset {offset} of the commit log: MongoDB holds no position of this pipeline, no sink has begun"
        );
    };
    let phase = Phase::Stream(commit.commit_lsn);
    if let Held::UpTo(ordinal) = checkpoint.held(commit.term.generation, phase) {
        return format!(
            "being applied in pieces, up to its change {ordinal}: it is larger than sink.whole_rows or sink.whole_bytes"
        );
    }
    let (next, at) = (checkpoint.log_offset, checkpoint.end_lsn);
    let before = (offset - next).max(0);
    let since = updated_at.map_or_else(String::new, |it| format!(", since {}", time(it * 1_000)));
    format!(
        "in Kafka, at offset {offset} of the commit log: the sink stands at {at}, offset {next}, {before} records before \
         it{since}; see that one runs"
    )
}

/// What is known of a transaction whose record Kafka no longer holds.
async fn deleted(
    asking: &Asking<'_>,
    mut journey: Journey,
    lsn: Lsn,
    first: i64,
    position: Option<Recorded>,
) -> Result<Journey, Fault> {
    let older = format!("older than the commit log's first record, offset {first}");
    let checkpoint = position.map(|it| it.checkpoint);
    let Some(checkpoint) = checkpoint.filter(|it| it.end_lsn >= lsn) else {
        return Ok(journey.unknown(format!(
            "{older}, and not applied: `walferry run` says what follows"
        )));
    };
    let covered = format!(
        "applied: MongoDB holds everything up to {}",
        checkpoint.end_lsn
    );
    let written = asking
        .landed(&mut journey, checkpoint.generation, lsn)
        .await?;
    if let Some(written) = written {
        journey.reached(Place::Mongodb, written.at * 1_000);
    }
    Ok(journey.applied(format!("{covered}; {older}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use walferry_schema::{Position, Term};

    const GENERATION: u64 = 7;

    fn commit(lsn: u64) -> Commit {
        Commit {
            term: Term {
                generation: GENERATION,
                number: 3,
            },
            xid: 1,
            commit_lsn: Lsn(lsn),
            end_lsn: Lsn(lsn + 10),
            committed_at: 0,
            records: Vec::new(),
            after: Lsn::ZERO,
        }
    }

    fn recorded(position: Position) -> Recorded {
        let checkpoint = Checkpoint {
            generation: GENERATION,
            position: Some(position),
            end_lsn: Lsn(0x6E),
            log_offset: 12,
            ..Checkpoint::blank()
        };
        Recorded {
            checkpoint,
            updated_at: Some(1_500),
        }
    }

    #[test]
    fn what_is_not_applied_says_where_the_sink_stands() {
        let at = recorded(Position::end_of(GENERATION, Phase::Stream(Lsn(100))));
        assert!(is_held(&at.checkpoint, &commit(100)));
        assert!(!is_held(&at.checkpoint, &commit(200)));
        let says = stands(15, &commit(200), Some(&at));
        let expected = "the sink stands at 0/6E, offset 12, 3 records before it, since 1970-01-01T00:00:01.500000Z";
        assert!(says.contains(expected), "{says}");
        assert!(stands(15, &commit(200), None).contains("no sink has begun"));
    }

    #[test]
    fn a_giant_that_is_applied_in_pieces_is_told() {
        let at = recorded(Position {
            generation: GENERATION,
            phase: Phase::Stream(Lsn(200)),
            ordinal: 41,
        });
        let says = stands(15, &commit(200), Some(&at));
        assert!(says.contains("in pieces, up to its change 41"), "{says}");
    }
}
