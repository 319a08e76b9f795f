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
    /// Each transaction writes to the next of so many tables.
    tables: u64,
}

/// Rows of 10 KB are fewer, so that no shape takes ten times as long as the others.
const FEWER_WIDE: u64 = 20;

/// Drains through Kafka: `rows` of them, a tenth and five times as many, then other transactions, rows and
/// tables.
pub(crate) async fn measure(rig: &Rig, rows: u64) -> Result<Vec<Line>> {
    let rows = rows.max(10 * FEWER_WIDE);
    let base = Shape {
        rows,
        per_transaction: 10,
        row_bytes: 100,
        tables: 1,
    };
    let sizes = [rows / 10, rows, rows * 5].map(|rows| Shape { rows, ..base });
    let transactions = [1, 1_000].map(|per_transaction| Shape {
        per_transaction,
        ..base
    });
    let wide = Shape {
        rows: rows / FEWER_WIDE,
        row_bytes: 10_000,
        ..base
    };
    let tables = [3, 300].map(|tables| Shape { tables, ..base });
    let shapes = sizes
        .into_iter()
        .chain(transactions)
        .chain([wide])
        .chain(tables);
    let mut lines = Vec::new();
    for (index, shape) in shapes.enumerate() {
        let pipeline = rig.pipeline(&format!("growth{index}"), Way::Kafka).await?;
        lines.extend(shape.drain(&pipeline).await?);
    }
    Ok(lines)
}

// === impl Shape ===

impl Shape {
    async fn drain(self, pipeline: &Pipeline<'_>) -> Result<Vec<Line>> {
        for table in self.tables() {
            pipeline.sql.batch_execute(&like_wide(&table)).await?;
        }
        pipeline.settle().await?;
        screen::say(format_args!("{}: {}", pipeline.name, self.name()));
        pipeline.sql.batch_execute(&self.backlog()).await?;
        let begun = Instant::now();
        let engine = pipeline.start(&["run"])?;
        let (last, count) = self.last_table();
        pipeline.await_count(&engine, &last, count).await?;
        let (elapsed, cost) = (begun.elapsed().as_secs_f64(), engine.cost()?);
        engine.stop().await?;
        pipeline.check("the drain").await?;
        for table in self.tables() {
            pipeline.check_table("the drain", &table).await?;
        }
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
        let tables = match self.tables {
            1 => String::new(),
            tables => format!(", {tables} tables"),
        };
        format!("{rows} rows of {bytes} B, {each} a transaction{tables}")
    }

    fn tables(self) -> impl Iterator<Item = String> {
        (0..self.tables).map(table)
    }

    /// The table of the last transaction, which everything else is applied before, and its rows.
    fn last_table(self) -> (String, u64) {
        let transactions = self.rows.div_ceil(self.per_transaction);
        let last = (transactions - 1) % self.tables;
        let ends_short = transactions * self.per_transaction - self.rows;
        let its_transactions = (transactions - last).div_ceil(self.tables);
        (
            table(last),
            its_transactions * self.per_transaction - ends_short,
        )
    }

    fn backlog(self) -> String {
        let (rows, each, pieces) = (self.rows, self.per_transaction, self.row_bytes.div_ceil(32));
        let tables = self.tables;
        format!(
            "do $$ declare content text := (select string_agg(md5(p::text), '') from generate_series(1, {pieces}) p);
             begin
                 for id_from in 1..{rows} by {each} loop
                     execute format('insert into wide_%s select i, $3 from generate_series($1, $2) i', (id_from - 1) / {each} % {tables})
                         using id_from, least(id_from + {each} - 1, {rows}), content;
                     commit;
                 end loop;
             end $$"
        )
    }
}

fn table(number: u64) -> String {
    format!("wide_{number}")
}

fn like_wide(table: &str) -> String {
    format!(
        "create table {table} (like wide including all); alter publication bench add table {table}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_table_has_what_the_transactions_before_left_it() {
        let last = |rows, per_transaction, tables| {
            let shape = Shape {
                rows,
                per_transaction,
                row_bytes: 1,
                tables,
            };
            shape.last_table()
        };
        assert_eq!(last(100, 10, 1), ("wide_0".into(), 100));
        assert_eq!(last(100, 10, 3), ("wide_0".into(), 40));
        assert_eq!(last(95, 10, 3), ("wide_0".into(), 35));
        assert_eq!(last(110, 10, 3), ("wide_1".into(), 40));
        assert_eq!(last(7, 1, 300), ("wide_6".into(), 1));
    }
}
