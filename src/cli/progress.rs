//! Progress on stderr: a bar per table on a terminal, a line per finished table in a pipe.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use walferry_schema::TableName;

use super::output::{Output, thousands};
use crate::progress::{Progress, Unseen};

const REDRAW: Duration = Duration::from_millis(200);
const BAR: &str = "{prefix:<32.bold} {bar:30} {human_pos:>12} rows  {per_sec:>14}  {msg}";

/// The right way to show progress.
pub(super) fn shown(output: &Output) -> Box<dyn Progress> {
    if output.is_json() {
        Box::new(Unseen)
    } else if output.is_live() {
        Box::<Bars>::default()
    } else {
        Box::<Lines>::default()
    }
}

/// A bar per table.
#[derive(Default)]
struct Bars {
    all: MultiProgress,
    bars: Mutex<HashMap<TableName, ProgressBar>>,
}

/// A line per table that has ended.
#[derive(Default)]
struct Lines {
    tables: Mutex<HashMap<TableName, Line>>,
}

struct Line {
    rows: u64,
    since: Instant,
}

// === impl Bars ===

impl Progress for Bars {
    fn started(&self, table: &TableName, rows: u64) {
        let style =
            ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = self.all.add(ProgressBar::new(rows.max(1)));
        bar.set_style(style);
        bar.set_prefix(table.to_string());
        bar.enable_steady_tick(REDRAW);
        lock(&self.bars).insert(table.clone(), bar);
    }

    fn advanced(&self, table: &TableName, rows: u64) {
        if let Some(bar) = lock(&self.bars).get(table) {
            bar.inc(rows);
            // The catalog only knows about how many there are.
            bar.set_length(bar.length().unwrap_or(0).max(bar.position()));
        }
    }

    fn ended(&self, table: &TableName, failure: Option<&str>) {
        let Some(bar) = lock(&self.bars).remove(table) else {
            return;
        };
        match failure {
            None => {
                bar.set_length(bar.position());
                bar.finish_with_message("done");
            }
            Some(_) => bar.abandon_with_message("failed"),
        }
    }
}

// === impl Lines ===

impl Progress for Lines {
    fn started(&self, table: &TableName, _: u64) {
        lock(&self.tables).insert(
            table.clone(),
            Line {
                rows: 0,
                since: Instant::now(),
            },
        );
    }

    fn advanced(&self, table: &TableName, rows: u64) {
        if let Some(line) = lock(&self.tables).get_mut(table) {
            line.rows += rows;
        }
    }

    fn ended(&self, table: &TableName, failure: Option<&str>) {
        let Some(line) = lock(&self.tables).remove(table) else {
            return;
        };
        let (rows, seconds) = (thousands(line.rows), line.since.elapsed().as_secs_f64());
        let end = failure.map_or("done", |_| "failed");
        // Progress is for whoever listens: nobody may.
        writeln!(
            io::stderr(),
            "{table}: {end}, {rows} rows in {seconds:.1} s"
        )
        .unwrap_or_default();
    }
}

/// A table's state outlives a panic elsewhere.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
