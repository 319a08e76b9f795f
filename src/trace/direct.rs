//! The way without Kafka: PostgreSQL and MongoDB are all there is to ask.
//!
//! - The position says when the last transaction of its group was committed; of the others nobody keeps it.

use walferry_core::Fault;
use walferry_mongodb::Written;
use walferry_schema::Lsn;

use super::journey::{Journey, Place, time};
use super::key::Key;
use super::{Asking, landing};

/// The journey of the transaction that ended at an LSN.
pub(super) async fn lsn(asking: &Asking<'_>, lsn: Lsn) -> Result<Journey, Fault> {
    let mut journey = Journey::new(lsn.to_string());
    let position = asking.trail.position().await?;
    let checkpoint = position.map(|it| it.checkpoint);
    let covered = checkpoint.as_ref().map(|it| it.end_lsn);
    let Some(checkpoint) = checkpoint.filter(|it| it.end_lsn >= lsn) else {
        return asking.in_the_source(journey, lsn, covered).await;
    };
    let generation = checkpoint.generation;
    let mut written = asking.landed(&mut journey, generation, lsn).await?;
    let is_idle = |it: &Written| it.end_lsn == lsn && it.commit_lsn.is_none();
    if written.as_ref().is_some_and(is_idle) && checkpoint.end_lsn > lsn {
        // A commit record can begin where nothing ended.
        written = asking
            .landed(&mut journey, generation, Lsn(lsn.0 + 1))
            .await?;
    }
    match written {
        Some(written) if written.commit_lsn.is_none() => Ok(journey.unknown(format!(
            "no transaction of a streamed table ended at {lsn}: it wrote other tables only, was rolled back, or is part of \
             the copy that generation {generation} began with"
        ))),
        Some(written) => Ok(applied(journey, &written, Some(lsn))),
        None => Ok(journey.applied(format!(
            "applied: MongoDB holds everything up to {}",
            checkpoint.end_lsn
        ))),
    }
}

/// The journey of a row's last change.
pub(super) async fn row(asking: &Asking<'_>, key: &Key) -> Result<Journey, Fault> {
    let (table, shown) = (key.table(), key.record_key());
    let shown = String::from_utf8_lossy(&shown);
    let mut journey = Journey::new(format!("{table} {shown}"));
    let oplog = asking.trail.last_write(table, &key.image()).await?;
    journey.notes.push(
        "without Kafka only what is applied can be followed by its key; ask for the LSN of what is not".to_owned(),
    );
    let known = journey.notes.len();
    if let Some(written) = landing(&mut journey, oplog) {
        return Ok(applied(journey, &written, None));
    }
    let why = journey.notes.split_off(known).join("; ");
    Ok(journey.unknown(format!("no write of this row is known: {why}")))
}

fn applied(mut journey: Journey, written: &Written, lsn: Option<Lsn>) -> Journey {
    let (last, end) = (written.commit_lsn.unwrap_or_default(), written.end_lsn);
    let is_last = lsn.is_some_and(|lsn| (last..=end).contains(&lsn));
    match written.committed_at {
        Some(at) if is_last => journey.reached(Place::Postgresql, at),
        Some(at) => journey.notes.push(format!(
            "it came with a group whose last transaction, {last}, was committed at {}; when this one was is not kept",
            time(at)
        )),
        None => journey
            .notes
            .push("when it was committed is not known: the position did not say so then".to_owned()),
    }
    journey.reached(Place::Mongodb, written.at * 1_000);
    journey.applied(format!(
        "applied with the group that ends at {end}: readers of MongoDB see it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: Written = Written {
        at: 2_500,
        end_lsn: Lsn(110),
        commit_lsn: Some(Lsn(100)),
        committed_at: Some(2_000_000),
    };

    #[test]
    fn the_last_transaction_of_a_group_has_both_stages() {
        for lsn in [100, 105, 110] {
            let journey = applied(Journey::new(""), &WRITTEN, Some(Lsn(lsn)));
            assert_eq!(journey.total_seconds, Some(0.5), "{lsn}");
        }
    }

    #[test]
    fn a_commit_time_is_never_lent_to_another_transaction() {
        for lsn in [None, Some(Lsn(99))] {
            let journey = applied(Journey::new(""), &WRITTEN, lsn);
            assert_eq!(journey.stages.len(), 1);
            assert!(journey.notes[0].contains("last transaction, 0/64,"));
        }
    }
}
