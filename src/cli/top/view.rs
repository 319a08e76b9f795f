//! What is on the screen: the daemon's last answer, and what only several of them tell.
//!
//! - A daemon that started anew begins new counts: no rate is taken across its start.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Instant;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::cli::daemon::{Away, Look};
use crate::status::{Status, Trouble};

/// Looks that a table's rate is taken from; one each second.
const SAMPLES: usize = 6;
/// Rates that are remembered: more than a terminal has columns.
const RATES: usize = 600;
/// Errors that are remembered.
const TROUBLES: usize = 3;
/// Tables that a page key goes past.
const PAGE: usize = 10;

/// What is on the screen.
pub(super) struct View {
    /// Where the daemon is asked.
    pub(super) listen: SocketAddr,
    /// Its last answer; none before the first.
    pub(super) status: Option<Status>,
    /// Since when it does not answer; none while it does.
    pub(super) away: Option<Away>,
    /// Rows per second at each look, the newest first; none where there was no answer.
    pub(super) rates: VecDeque<Option<u64>>,
    /// The tables in the order that is asked for.
    pub(super) tables: Vec<TableRow>,
    /// The order of the tables.
    pub(super) order: Order,
    /// The table that stays in sight.
    pub(super) selected: usize,
    /// Different errors, the newest first.
    pub(super) troubles: VecDeque<Trouble>,
    /// Whether colours may be used.
    pub(super) is_coloured: bool,
    past: VecDeque<Sample>,
}

/// A table with its counts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TableRow {
    pub(super) table: String,
    /// Since the daemon's start.
    pub(super) rows: u64,
    /// Over the last few seconds.
    pub(super) rows_per_second: f64,
}

/// What the tables are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Rate,
    Rows,
    Name,
}

/// The rows of each table at a time.
struct Sample {
    at: Instant,
    rows: BTreeMap<String, u64>,
}

// === impl View ===

impl View {
    pub(super) fn new(listen: SocketAddr, is_coloured: bool) -> Self {
        Self {
            listen,
            status: None,
            away: None,
            rates: VecDeque::new(),
            tables: Vec::new(),
            order: Order::Rate,
            selected: 0,
            troubles: VecDeque::new(),
            is_coloured,
            past: VecDeque::new(),
        }
    }

    /// Takes in what a look at the daemon brought.
    pub(super) fn look(&mut self, look: Look) {
        match look {
            Look::Here(status) => self.seen(*status, Instant::now()),
            Look::Away(away) => self.missed(away),
        }
    }

    /// Takes in an answer.
    pub(super) fn seen(&mut self, status: Status, at: Instant) {
        let before = self.status.as_ref().map_or(0, |it| it.uptime_seconds);
        if status.uptime_seconds < before {
            self.past.clear();
        }
        self.remember(rows_per_second(&status));
        if let Some(trouble) = &status.last_error {
            self.note(trouble.clone());
        }
        self.count(&status, at);
        self.away = None;
        self.status = Some(status);
    }

    /// Takes in that nobody answered.
    pub(super) fn missed(&mut self, away: Away) {
        self.remember(None);
        self.away = Some(away);
    }

    /// Does what a key says; breaks where it says to leave.
    pub(super) fn key(&mut self, key: KeyEvent) -> ControlFlow<()> {
        let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
        if key.kind == KeyEventKind::Release {
            return ControlFlow::Continue(());
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return ControlFlow::Break(()),
            KeyCode::Char('c') if is_control => return ControlFlow::Break(()),
            KeyCode::Char('s') => self.sort_by(self.order.next()),
            KeyCode::Up => self.select(self.selected.saturating_sub(1)),
            KeyCode::Down => self.select(self.selected + 1),
            KeyCode::PageUp => self.select(self.selected.saturating_sub(PAGE)),
            KeyCode::PageDown => self.select(self.selected + PAGE),
            KeyCode::Home => self.select(0),
            KeyCode::End => self.select(usize::MAX),
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn select(&mut self, table: usize) {
        self.selected = table.min(self.tables.len().saturating_sub(1));
    }

    fn sort_by(&mut self, order: Order) {
        self.order = order;
        let by_name = |a: &TableRow, b: &TableRow| a.table.cmp(&b.table);
        let by_rows = |a: &TableRow, b: &TableRow| b.rows.cmp(&a.rows);
        let by_rate = |a: &TableRow, b: &TableRow| b.rows_per_second.total_cmp(&a.rows_per_second);
        self.tables.sort_by(|a, b| match order {
            Order::Name => by_name(a, b),
            Order::Rows => by_rows(a, b).then_with(|| by_name(a, b)),
            Order::Rate => by_rate(a, b)
                .then_with(|| by_rows(a, b))
                .then_with(|| by_name(a, b)),
        });
    }

    fn remember(&mut self, rate: Option<u64>) {
        self.rates.push_front(rate);
        self.rates.truncate(RATES);
    }

    /// The same error again takes the place of the one before.
    fn note(&mut self, trouble: Trouble) {
        self.troubles
            .retain(|it| it.part != trouble.part || it.error != trouble.error);
        self.troubles.push_front(trouble);
        self.troubles.truncate(TROUBLES);
    }

    fn count(&mut self, status: &Status, at: Instant) {
        let tables = status.sink.iter().flat_map(|sink| &sink.tables);
        let rows: BTreeMap<_, _> = tables.map(|it| (it.table.clone(), it.rows)).collect();
        let first = self.past.front();
        let tables = rows.iter().map(|(table, &rows)| TableRow {
            table: table.clone(),
            rows,
            rows_per_second: first.map_or(0.0, |first| first.rate(table, rows, at)),
        });
        self.tables = tables.collect();
        self.past.push_back(Sample { at, rows });
        if self.past.len() >= SAMPLES {
            self.past.pop_front();
        }
        self.sort_by(self.order);
        self.select(self.selected);
    }
}

// === impl Order ===

impl Order {
    fn next(self) -> Self {
        match self {
            Self::Rate => Self::Rows,
            Self::Rows => Self::Name,
            Self::Name => Self::Rate,
        }
    }

    /// What the tables are sorted by, as it is shown.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Rows => "rows",
            Self::Name => "name",
        }
    }
}

// === impl Sample ===

impl Sample {
    /// Rows per second of a table since then; a table that was not there had none.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate needs no more than 15 digits"
    )]
    fn rate(&self, table: &str, rows: u64, at: Instant) -> f64 {
        let before = self.rows.get(table).copied().unwrap_or(0);
        let took = at.saturating_duration_since(self.at).as_secs_f64();
        rows.saturating_sub(before) as f64 / took.max(0.001)
    }
}

/// Rows applied per second, or changes read where nothing is applied.
fn rows_per_second(status: &Status) -> Option<u64> {
    let applied = status.sink.as_ref().map(|it| it.rows_per_second);
    let read = status.reader.as_ref().map(|it| it.changes_per_second);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is not negative and far below 2^64"
    )]
    applied.or(read).map(|rate| rate.round() as u64)
}
