//! What a change left in MongoDB is found again.

use bson::doc;
use walferry_core::{Batch, Checkpoint, RowEvent, Sink};
use walferry_harness::{PATIENCE, eventually};
use walferry_mongodb::{MongoSink, Oplog, Trail, Written};
use walferry_schema::{Lsn, Phase, Position};

use crate::support::{Fixture, Tested, checkpoint, columns, key, row};

const GENERATION: u64 = 7;
const GROUPS: i32 = 13;

/// The LSN that the commit record of a group's last transaction ends at.
fn end(group: i32) -> Lsn {
    Lsn(0x200 + 0x20 * u64::try_from(group).unwrap())
}

/// After a group, or after nothing happened for a while.
fn after(group: i32, end_lsn: Lsn) -> Checkpoint {
    let commit_lsn = Lsn(end(group).0 - 8);
    Checkpoint {
        position: Some(Position::end_of(GENERATION, Phase::Stream(commit_lsn))),
        end_lsn,
        committed_at: Some(group.into()),
        ..checkpoint(1)
    }
}

/// Groups of a row each and idle positions between them, over several seconds of the server's clock.
async fn write(fixture: &Fixture, sink: &mut MongoSink) -> Tested {
    let columns = columns();
    for group in 1..=GROUPS {
        let mut batch = sink.batch();
        let insert = RowEvent::Insert(row(&columns, group, 0, Some("x")));
        batch.push(&fixture.target(0), insert)?;
        sink.apply(batch, &after(group, end(group))).await?;
        let idle = after(group, Lsn(end(group).0 + 8));
        sink.apply(sink.batch(), &idle).await?;
        if group % 4 == 0 {
            next_second(fixture).await;
        }
    }
    Ok(())
}

async fn next_second(fixture: &Fixture) {
    let admin = fixture.database.client().database("admin");
    let second = async || {
        let hello = admin.run_command(doc! { "hello": 1 }).await.unwrap();
        hello.get_datetime("localTime").unwrap().timestamp_millis() / 1_000
    };
    let begun = second().await;
    let has_passed = eventually(PATIENCE, "the next second", async || {
        second().await > begun + 1
    });
    has_passed.await.unwrap();
}

fn found(oplog: Oplog) -> Result<Written, String> {
    match oplog {
        Oplog::Found(written) => Ok(written),
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test]
async fn the_write_that_first_covered_an_lsn_is_found_however_many_followed() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    write(&fixture, &mut sink).await?;
    // A claim is a write of the position that covers nothing.
    let _next = fixture.claimed().await;
    let trail = Trail::connect(fixture.settings.clone()).await?;
    let mut last = 0;
    for group in 2..=GROUPS {
        let end = end(group);
        // From where nothing happened before it, to its end.
        for lsn in [Lsn(end.0 - 0x17), end] {
            let written = found(trail.covering(GENERATION, lsn).await?)?;
            assert_eq!(written.end_lsn, end, "{lsn}");
            assert_eq!(written.commit_lsn, Some(Lsn(end.0 - 8)), "{lsn}");
            assert_eq!(written.committed_at, Some(group.into()), "{lsn}");
            assert!(written.at >= last, "{lsn}");
            last = written.at;
        }
        let idle = found(trail.covering(GENERATION, Lsn(end.0 + 1)).await?)?;
        assert_eq!((idle.commit_lsn, idle.committed_at), (None, None));
    }
    // Nothing before it shows that the first write was the first.
    let first = trail.covering(GENERATION, end(1)).await?;
    assert!(matches!(first, Oplog::Gone(_)), "{first:?}");
    let never = trail.covering(GENERATION, Lsn(end(GROUPS).0 + 9)).await?;
    assert!(matches!(never, Oplog::Gone(_)), "{never:?}");
    let recorded = trail.position().await?.unwrap();
    assert_eq!(recorded.checkpoint.committed_at, Some(GROUPS.into()));
    assert!(recorded.updated_at.is_some());
    Ok(())
}

#[tokio::test]
async fn a_rows_last_write_is_found_with_the_group_that_it_came_with() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    write(&fixture, &mut sink).await?;
    let columns = columns();
    let events = [
        RowEvent::Delete(key(&columns, 2)),
        RowEvent::Insert(row(&columns, 3, 1, Some("y"))),
    ];
    let mut batch = sink.batch();
    for (ordinal, event) in (0..).zip(events) {
        batch.push(&fixture.target(ordinal), event)?;
    }
    let again = GROUPS + 1;
    sink.apply(batch, &after(again, end(again))).await?;
    sink.apply(sink.batch(), &after(again, Lsn(0x1000))).await?;
    let trail = Trail::connect(fixture.settings.clone()).await?;
    for (id, group) in [(1, 1), (2, again), (3, again), (4, 4), (GROUPS, GROUPS)] {
        let oplog = trail.last_write(&fixture.table, &key(&columns, id)).await?;
        assert_eq!(found(oplog)?.end_lsn, end(group), "row {id}");
    }
    let never = trail.last_write(&fixture.table, &key(&columns, 99)).await?;
    assert!(matches!(never, Oplog::Gone(_)), "{never:?}");
    Ok(())
}
