//! How fast transactions are, held against plain inserts on one connection.

use std::time::Instant;

use walferry_core::{Batch, RowEvent, Sink};
use walferry_mongodb::Loader;

use crate::support::{Fixture, Tested, checkpoint, columns, row};

const ROUNDS: i32 = 100;
const ROWS: i32 = 1_000;

#[tokio::test]
#[ignore = "measures; run alone, with --release and --nocapture"]
async fn transactions_of_a_thousand_inserts_are_about_as_fast_as_plain_inserts() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    sink.stage(1, &[fixture.spec()]).await?;
    sink.swap(1, &[fixture.spec()]).await?;
    let begun = Instant::now();
    for round in 0..ROUNDS {
        let mut batch = sink.batch();
        for id in round * ROWS..(round + 1) * ROWS {
            batch.push(
                &fixture.target(0),
                RowEvent::Insert(row(&columns, id, id, Some("some text"))),
            )?;
        }
        sink.apply(batch, &checkpoint(round.into())).await?;
    }
    let transactions = rate(begun);
    let loader = Loader::connect(fixture.settings.clone()).await?;
    let target = loader.begin(&fixture.table).await?;
    let begun = Instant::now();
    for round in 0..ROUNDS {
        let mut block = loader.block(&fixture.table)?;
        for id in round * ROWS..(round + 1) * ROWS {
            block.push(&row(&columns, id, id, Some("some text")))?;
        }
        target.insert(block).await?;
    }
    let plain = rate(begun);
    target.finish().await?;
    println!("transactions {transactions:.0}, plain inserts {plain:.0} documents/s");
    assert!(transactions > plain / 3.0);
    Ok(())
}

fn rate(begun: Instant) -> f64 {
    f64::from(ROUNDS * ROWS) / begun.elapsed().as_secs_f64()
}
