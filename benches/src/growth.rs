//! How a drain changes with the size and shape of its backlog.

use std::time::Instant;

use crate::error::Result;
use crate::report::{Line, Unit};
use crate::rig::{Pipeline, Rig, Way};
use crate::screen;

/// One shape of backlog.
#[derive(Clone, Copy)]
struct Shape {
    rows: u64,
    /// Rows of one transaction.
    per_transaction: u64,
    row_bytes: u64,
}

/// Rows of 10 KB are fewer, so that no shape takes ten times as long as the others.
const FEWER_WIDE: u64 = 20;

/// Drains through Kafka: a fifth of `rows` and twice as many, then other transactions and rows.
pub(crate) async fn measure(rig: &Rig, rows: u64) -> Result<Vec<Line>> {
    let base = Shape {
        rows,
        per_transaction: 10,
        row_bytes: 100,
    };
    let shapes = [
        Shape {
            rows: rows / 5,
            ..base
        },
        Shape {
            rows: rows * 2,
            ..base
        },
        Shape {
            per_transaction: 1,
            ..base
        },
        Shape {
            per_transaction: 1_000,
            ..base
        },
        Shape {
            rows: rows / FEWER_WIDE,
            row_bytes: 10_000,
            ..base
        },
    ];
    let mut lines = Vec::new();
    for (index, shape) in shapes.into_iter().enumerate() {
        let pipeline = rig.pipeline(&format!("growth{index}"), Way::Kafka).await?;
        lines.extend(shape.drain(&pipeline).await?);
    }
    Ok(lines)
}

// === impl Shape ===

impl Shape {
    async fn drain(self, pipeline: &Pipeline<'_>) -> Result<Vec<Line>> {
        pipeline.settle().await?;
        screen::say(format_args!("{}: {}", pipeline.name, self.name()));
        pipeline.sql.batch_execute(&self.backlog()).await?;
        let begun = Instant::now();
        let engine = pipeline.start(&["run"])?;
        pipeline.await_count(&engine, "wide", self.rows).await?;
        let (elapsed, cost) = (begun.elapsed().as_secs_f64(), engine.cost()?);
        engine.stop().await?;
        pipeline.check("the drain").await?;
        let name = format!("growth: {}", self.name());
        let per_million = cost.cpu_seconds * 1e6 / self.rows as f64;
        Ok(vec![
            Line::new(name.clone(), self.rows as f64 / elapsed, Unit::PerSecond),
            Line::new(
                format!("{name}, CPU per million"),
                per_million,
                Unit::Seconds,
            ),
            Line::new(format!("{name}, peak"), cost.peak_mb, Unit::Megabytes),
        ])
    }

    fn name(self) -> String {
        let (rows, each, bytes) = (self.rows, self.per_transaction, self.row_bytes);
        format!("{rows} rows of {bytes} B, {each} a transaction")
    }

    fn backlog(self) -> String {
        let (rows, each, pieces) = (self.rows, self.per_transaction, self.row_bytes.div_ceil(32));
        format!(
            "do $$ declare content text := (select string_agg(md5(p::text), '') from generate_series(1, {pieces}) p);
             begin
                 for id_from in 1..{rows} by {each} loop
                     insert into wide select i, content from generate_series(id_from, least(id_from + {each} - 1, {rows})) i;
                     commit;
                 end loop;
             end $$"
        )
    }
}
