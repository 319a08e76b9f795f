//! The view as widgets.
//!
//! - Without colours the same is said: by words, by weight, and by a mark before the stage that is waited for.
//! - What does not fit is left out, the least needed first: positions and counts, the curve, old errors.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Block, Borders, Cell, Paragraph, RenderDirection, Row, Sparkline, Table, TableState, Wrap,
};

use super::view::{TableRow, View};
use crate::cli::output::thousands;
use crate::cli::status::{STAGE_HEADING, StageRow, at, behind, slot, stages, to_do};
use crate::status::{Latency, State, Status, Trouble};

/// The columns of the stages: all of them, or what fits.
const COLUMNS: [&[usize]; 3] = [&[0, 1, 2, 3, 4], &[0, 2, 3, 4], &[0, 2, 3]];
/// Between two columns.
const GAP: u16 = 2;
/// More cells than any terminal has in a row, few enough to be added up.
const MOST: u16 = 10_000;
/// A terminal that is lower shows no curve.
const LOW: u16 = 20;
/// The height of the curve with its title.
const CURVE: u16 = 5;
/// Before the stage that is waited for.
const MARK: &str = "▶ ";
/// Before the others.
const NO_MARK: &str = "  ";

/// Draws a view on all of the frame.
pub(super) fn draw(frame: &mut Frame, view: &View) {
    let [main, keys] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
    match &view.status {
        Some(status) => answered(frame, view, status, main),
        None => unanswered(frame, view, main),
    }
    let order = view.order.name();
    let help = format!("q quit   ↑↓ scroll   s sort (by {order})");
    frame.render_widget(Line::styled(help, dim()), keys);
}

fn unanswered(frame: &mut Frame, view: &View, area: Rect) {
    let line = view.away.as_ref().map_or_else(
        || Line::raw(format!("asking the daemon at {}", view.listen)),
        |away| Line::styled(format!("{away}: waiting for it"), view.alarm()),
    );
    frame.render_widget(Paragraph::new(line).wrap(Wrap { trim: false }), area);
}

fn answered(frame: &mut Frame, view: &View, status: &Status, area: Rect) {
    let is_low = frame.area().height < LOW;
    let way = way(view, status, area.width);
    let errors = errors(view, status);
    let curve = if is_low { 0 } else { CURVE };
    let [head, stages, facts, rates, tables, trouble] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(span(stages(status).len() + 2)),
        Constraint::Length(span(facts_of(status).len().max(2) + usize::from(!is_low))),
        Constraint::Length(curve),
        Constraint::Min(4),
        Constraint::Max(room(&errors, area)),
    ])
    .areas(area);
    frame.render_widget(Paragraph::new(heading(view, status)), head);
    frame.render_widget(way, stages);
    frame.render_widget(Paragraph::new(facts_of(status)), facts);
    frame.render_widget(curve_of(view), rates);
    render_tables(frame, view, tables);
    frame.render_widget(Paragraph::new(errors).wrap(Wrap { trim: false }), trouble);
}

/// The pipeline, and how far it is behind or that nobody answers.
fn heading<'a>(view: &View, status: &'a Status) -> Vec<Line<'a>> {
    let up = std::time::Duration::from_secs(status.uptime_seconds);
    let role = match &*status.role {
        "both" => "reader and sink",
        role => role,
    };
    let about = format!(
        "  up {}, {role}, walferry {}",
        humantime::format_duration(up),
        status.version
    );
    let first = Line::from(vec![
        Span::styled(&status.pipeline, Modifier::BOLD),
        Span::raw("  "),
        Span::styled(status.state.to_string(), view.state(status.state)),
        Span::styled(about, dim()),
    ]);
    let second = match &view.away {
        Some(away) => Line::styled(format!("{away}; it said before:"), view.alarm()),
        None if status.lag.stage.is_some() => Line::styled(behind(status), view.alarm()),
        None => Line::raw(behind(status)),
    };
    vec![first, second]
}

/// The stages in the way of a change, with the columns that fit.
fn way(view: &View, status: &Status, width: u16) -> Table<'static> {
    let rows: Vec<_> = stages(status).into_iter().map(marked).collect();
    let heading = STAGE_HEADING.map(str::to_owned);
    let widths: [u16; 5] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| &row.cells).chain([&heading]);
        let longest = cells.map(|cells| cells[column].chars().count()).max();
        span(longest.unwrap_or(0))
    });
    let fits = |columns: &&&[usize]| {
        let cells: u16 = columns.iter().map(|&column| widths[column] + GAP).sum();
        cells <= width + GAP
    };
    let shown = *COLUMNS.iter().find(fits).unwrap_or(&COLUMNS[2]);
    let row = |cells: &[String; 5]| -> Row<'static> {
        let cells = shown
            .iter()
            .map(|&column| aligned(column, cells[column].clone()));
        cells.collect()
    };
    let styled = rows
        .iter()
        .map(|it| row(&it.cells).style(view.stage(it.is_guilty)));
    Table::new(
        styled,
        shown
            .iter()
            .map(|&column| Constraint::Length(widths[column])),
    )
    .column_spacing(GAP)
    .header(row(&heading).style(dim()))
    .block(Block::new().borders(Borders::TOP).border_style(dim()))
}

/// A stage with the mark of the one that is waited for.
fn marked(mut stage: StageRow) -> StageRow {
    let mark = if stage.is_guilty { MARK } else { NO_MARK };
    stage.cells[0].insert_str(0, mark);
    stage
}

/// The first column to the left, the others to the right, as numbers stand.
fn aligned(column: usize, text: String) -> Cell<'static> {
    let line = Line::raw(text);
    Cell::new(if column == 0 {
        line
    } else {
        line.right_aligned()
    })
}

/// The slot, how soon changes are visible, and how fresh the answers are.
fn facts_of(status: &Status) -> Vec<Line<'static>> {
    let slot = status.source.as_ref().map(slot);
    let visible = status.sink.as_ref().map(|it| quantiles(&it.latency));
    let freshness = status.analytics.as_ref();
    let freshness = freshness.map(|it| format!("analytics: {it}"));
    let facts = slot.into_iter().chain(visible).chain(freshness);
    facts.map(Line::raw).collect()
}

fn quantiles(latency: &Latency) -> String {
    if latency.count == 0 {
        return "from commit to visible: nothing yet".to_owned();
    }
    let shown = [50, 90, 99].map(|percent| {
        let within = latency.within(percent);
        let within = within.map_or("longer".to_owned(), |it| {
            format!("≤ {}", humantime::format_duration(it))
        });
        format!("p{percent} {within}")
    });
    format!("from commit to visible: {}", shown.join("   "))
}

fn curve_of(view: &View) -> Sparkline<'_> {
    let now = view.rates.front().copied().flatten();
    let most = view.rates.iter().copied().flatten().max().unwrap_or(0);
    let now = now.map_or("-".to_owned(), thousands);
    let title = format!(" rows/s: {now} now, {} at most ", thousands(most));
    Sparkline::default()
        .block(
            Block::new()
                .borders(Borders::TOP)
                .border_style(dim())
                .title(title),
        )
        .data(&view.rates)
        .direction(RenderDirection::RightToLeft)
        .style(view.coloured(Color::Cyan))
}

fn render_tables(frame: &mut Frame, view: &View, area: Rect) {
    let heading = ["table", "rows/s", "rows"].map(str::to_owned);
    let heading = heading.into_iter().enumerate();
    let heading: Row = heading
        .map(|(column, text)| aligned(column, text))
        .collect();
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(12),
        Constraint::Length(16),
    ];
    let title = format!(" tables: {} ", thousands(view.tables.len() as u64));
    let table = Table::new(view.tables.iter().map(table_row), widths)
        .header(heading.style(dim()))
        .row_highlight_style(Modifier::BOLD)
        .highlight_symbol("› ")
        .block(
            Block::new()
                .borders(Borders::TOP)
                .border_style(dim())
                .title(title),
        );
    let mut state = TableState::new().with_selected(view.selected);
    frame.render_stateful_widget(table, area, &mut state);
}

fn table_row(row: &TableRow) -> Row<'static> {
    let rate = format!("{:.0}", row.rows_per_second);
    let cells = [row.table.clone(), rate, thousands(row.rows)];
    let cells = cells.into_iter().enumerate();
    cells.map(|(column, text)| aligned(column, text)).collect()
}

/// What waits for the operator, then what went wrong, the newest first, each with what to do.
fn errors(view: &View, status: &Status) -> Vec<Line<'static>> {
    let source = status.source.as_ref().and_then(|it| it.error.as_ref());
    let source = source.map(|error| {
        let text = format!("PostgreSQL could not be measured: {error}");
        Line::styled(text, view.alarm())
    });
    let troubles = view.troubles.iter().flat_map(|it| trouble(view, it));
    let to_do = to_do(status);
    let to_do = to_do.lines().map(|line| Line::raw(line.to_owned()));
    to_do.chain(source).chain(troubles).collect()
}

fn trouble(view: &View, trouble: &Trouble) -> [Line<'static>; 2] {
    let Trouble {
        part,
        error,
        attempts,
        ..
    } = trouble;
    let times = if *attempts > 1 {
        format!(" ({attempts} times)")
    } else {
        String::new()
    };
    let error = format!("{}, {part}{times}: {error}", at(trouble));
    let remedy = format!("  to do: {}", trouble.remedy);
    [Line::styled(error, view.alarm()), Line::raw(remedy)]
}

/// The lines that a text takes, of which it gets a third of the screen at most.
fn room(text: &[Line<'_>], area: Rect) -> u16 {
    // Words are not cut: each line may leave some room unused.
    let width = usize::from(area.width).saturating_sub(8).max(1);
    let lines: usize = text
        .iter()
        .map(|line| line.width().div_ceil(width).max(1))
        .sum();
    span(lines).min(area.height / 3)
}

/// A length on the screen; what is longer does not fit anyway.
fn span(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(MOST)
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

// === impl View ===

impl View {
    fn coloured(&self, colour: Color) -> Style {
        if self.is_coloured {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }

    /// What must be seen first.
    fn alarm(&self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    fn stage(&self, is_guilty: bool) -> Style {
        if is_guilty {
            self.alarm()
        } else {
            Style::new()
        }
    }

    fn state(&self, state: State) -> Style {
        let colour = match state {
            State::Live => Color::Green,
            State::Retrying | State::Fenced => Color::Red,
            State::Starting
            | State::Snapshot
            | State::Swapping
            | State::Paused
            | State::Drifted => Color::Yellow,
        };
        self.coloured(colour).add_modifier(Modifier::BOLD)
    }
}
