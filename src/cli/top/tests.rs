use std::time::{Duration, Instant, SystemTime};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier};
use walferry_schema::Lsn;

use super::draw::draw;
use super::view::{Order, View};
use crate::cli::daemon::Away;
use crate::status::{
    Bucket, DriftedStatus, Lag, Latency, OrderStatus, ReaderStatus, SinkStatus, SourceStatus,
    Stage, State, Status, TableStatus, Trouble,
};

const LISTEN: &str = "127.0.0.1:9187";

fn live() -> Status {
    let bucket = |seconds, count| Bucket { seconds, count };
    Status {
        pipeline: "shop_slot/shop".to_owned(),
        version: "0.1.0".to_owned(),
        role: "both".to_owned(),
        way: "kafka".to_owned(),
        state: State::Live,
        uptime_seconds: 3_700,
        lag: Lag {
            seconds: Some(0.0),
            bytes: Some(0),
            reader_bytes: Some(0),
            log_bytes: Some(0),
            sink_bytes: Some(0),
            stage: None,
        },
        source: Some(SourceStatus {
            version: Some("15.9".to_owned()),
            flush_lsn: Some(Lsn(0x1_2345)),
            retained_bytes: Some(16 << 20),
            spare_bytes: Some(3 << 30),
            wal_status: Some("reserved".to_owned()),
            is_active: true,
            error: None,
        }),
        reader: Some(ReaderStatus {
            generation: 1,
            read_lsn: Lsn(0x1_2345),
            confirmed_lsn: Lsn(0x1_2300),
            transactions: 40,
            changes: 1_200,
            oversize_rows: 0,
            changes_per_second: 250.4,
            spooled_transactions: None,
            spooled_bytes: None,
        }),
        sink: Some(SinkStatus {
            generation: 1,
            position: Some("1/0/12300".to_owned()),
            end_lsn: Lsn(0x1_2300),
            rows: 1_100,
            rows_per_second: 248.6,
            groups: 100,
            repaired: 0,
            parked: 0,
            dropped: 0,
            latency: Latency {
                count: 100,
                sum_seconds: 1.0,
                buckets: vec![bucket(0.01, 50), bucket(0.1, 95)],
            },
            tables: tables(&[("public.orders", 1_000), ("public.parts", 100)]),
        }),
        last_error: None,
        paused: None,
        skips: Vec::new(),
        skipped: Vec::new(),
        drifted: Vec::new(),
        dead_letters: Vec::new(),
        reloaded: None,
        analytics: None,
    }
}

fn tables(rows: &[(&str, u64)]) -> Vec<TableStatus> {
    let rows = rows.iter().map(|&(table, rows)| TableStatus {
        table: table.to_owned(),
        rows,
    });
    rows.collect()
}

fn trouble() -> Trouble {
    Trouble {
        part: "sink".to_owned(),
        error: "connecting to MongoDB: nobody answers".to_owned(),
        remedy: "see that MongoDB is up".to_owned(),
        attempts: 3,
        at: 1_795_199_030,
        is_fenced: false,
    }
}

fn empty() -> View {
    View::new(LISTEN.parse().unwrap(), true)
}

fn view(status: Status) -> View {
    let mut view = empty();
    view.seen(status, Instant::now());
    view
}

fn away() -> Away {
    Away {
        listen: LISTEN.parse().unwrap(),
        since: SystemTime::UNIX_EPOCH,
    }
}

fn press(view: &mut View, code: KeyCode) -> bool {
    view.key(KeyEvent::new(code, KeyModifiers::NONE)).is_break()
}

fn drawn(view: &View, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, view)).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let width = usize::from(buffer.area.width).max(1);
    let rows = buffer.content.chunks(width).map(|row| {
        let row: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        row.trim_end().to_owned()
    });
    rows.collect()
}

fn text(view: &View, width: u16, height: u16) -> String {
    lines(&drawn(view, width, height)).join("\n")
}

/// The style of the first cell of the line that holds a text.
fn style_of(view: &View, text: &str) -> (Color, Modifier) {
    let buffer = drawn(view, 100, 30);
    let lines = lines(&buffer);
    let line = lines.iter().position(|line| line.contains(text));
    let line = line.unwrap_or_else(|| panic!("{text} in\n{}", lines.join("\n")));
    let cell = &buffer[(0, u16::try_from(line).unwrap())];
    (cell.fg, cell.modifier)
}

#[test]
fn a_pipeline_that_keeps_up_is_on_one_screen() {
    let expected = "\
shop_slot/shop  live  up 1h 1m 40s, reader and sink, walferry 0.1.0
MongoDB is 0.0 s (0 B) behind
────────────────────────────────────────────────────────────────────────────────
stage              at               waiting  per second  since the start
  PostgreSQL  0/12345  16.0 MiB of WAL kept
  reader      0/12345                   0 B         250    1,200 changes
  Kafka       0/12300                   0 B
  sink        0/12300                   0 B         249       1,100 rows
slot: in use, 16.0 MiB of WAL kept (reserved), 3.0 GiB to spare
from commit to visible: p50 ≤ 10ms   p90 ≤ 100ms   p99 longer";
    let shown = text(&view(live()), 80, 24);
    assert!(shown.starts_with(expected), "{shown}");
    for part in [
        " rows/s: 249 now, 249 at most ",
        " tables: 2 ",
        "› public.orders",
        "q quit   ↑↓ scroll   s sort (by rate)",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
}

#[test]
fn the_stage_that_is_waited_for_is_marked_with_and_without_colours() {
    let mut status = live();
    status.lag.stage = Some(Stage::Sink);
    (status.lag.seconds, status.lag.bytes) = (Some(12.34), Some(5 << 20));
    status.lag.sink_bytes = Some(5 << 20);
    let mut view = view(status);
    let shown = text(&view, 80, 24);
    let said = "MongoDB is 12.3 s (5.0 MiB) behind; the sink is what is waited for";
    assert!(shown.contains(said), "{shown}");
    assert_eq!(shown.matches('▶').count(), 1, "{shown}");
    assert!(shown.contains("\n▶ sink "), "{shown}");
    assert_eq!(style_of(&view, "▶ sink"), (Color::Red, Modifier::BOLD));
    assert_eq!(style_of(&view, "  reader").0, Color::Reset);
    view.is_coloured = false;
    assert_eq!(style_of(&view, "▶ sink"), (Color::Reset, Modifier::BOLD));
}

#[test]
fn no_cell_has_a_colour_without_colours() {
    let mut status = live();
    status.last_error = Some(trouble());
    status.lag.stage = Some(Stage::Reader);
    let mut view = view(status);
    view.is_coloured = false;
    let buffer = drawn(&view, 100, 30);
    let is_plain = |it: &ratatui::buffer::Cell| (it.fg, it.bg) == (Color::Reset, Color::Reset);
    assert!(buffer.content.iter().all(is_plain));
    view.is_coloured = true;
    assert!(!drawn(&view, 100, 30).content.iter().all(is_plain));
}

#[test]
fn a_copy_is_shown_before_anything_is_known_of_changes() {
    let mut status = live();
    status.state = State::Snapshot;
    status.lag = Lag::default();
    status.source = None;
    if let Some(sink) = &mut status.sink {
        sink.latency = Latency::default();
    }
    let shown = text(&view(status), 80, 24);
    for part in [
        "shop_slot/shop  snapshot  up",
        "MongoDB is an unknown time behind",
        "from commit to visible: nothing yet",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    assert!(!shown.contains("slot:"), "{shown}");
}

#[test]
fn an_error_stands_with_what_to_do_and_stays_when_another_comes() {
    let mut status = live();
    status.state = State::Retrying;
    status.last_error = Some(trouble());
    let mut view = view(status.clone());
    let again = Trouble {
        attempts: 4,
        ..trouble()
    };
    status.last_error = Some(again);
    view.seen(status.clone(), Instant::now());
    let other = Trouble {
        part: "reader".to_owned(),
        attempts: 1,
        ..trouble()
    };
    status.last_error = Some(other);
    view.seen(status, Instant::now());
    let shown = text(&view, 100, 30);
    let at = "2026-11-20T18:23:50Z";
    let lines = [
        format!(
            "{at}, reader: connecting to MongoDB: nobody answers\n  to do: see that MongoDB is up\n"
        ),
        format!("{at}, sink (4 times): connecting to MongoDB: nobody answers\n  to do: see"),
    ];
    for line in lines {
        assert!(shown.contains(&line), "{line} in\n{shown}");
    }
    assert!(!shown.contains("(3 times)"), "{shown}");
}

#[test]
fn a_source_that_is_not_measured_says_why() {
    let mut status = live();
    if let Some(source) = &mut status.source {
        source.error = Some("PostgreSQL does not answer".to_owned());
    }
    let shown = text(&view(status), 100, 30);
    let said = "PostgreSQL could not be measured: PostgreSQL does not answer";
    assert!(shown.contains(said), "{shown}");
}

#[test]
fn a_narrow_terminal_keeps_what_changes_and_a_tiny_one_does_no_harm() {
    let shown = text(&view(live()), 50, 16);
    assert!(
        shown.contains("\nstage                      waiting  per second\n"),
        "{shown}"
    );
    assert!(
        shown.contains("\n  PostgreSQL  16.0 MiB of WAL kept\n"),
        "{shown}"
    );
    assert!(!shown.contains("at most"), "{shown}");
    assert!(shown.contains("public.orders"), "{shown}");
    let wider = text(&view(live()), 65, 16);
    let heading = "\nstage                      waiting  per second  since the start\n";
    assert!(wider.contains(heading), "{wider}");
    let mut status = live();
    status.last_error = Some(trouble());
    for (width, height) in [(0, 0), (1, 1), (3, 40), (200, 2), (20, 6)] {
        drawn(&view(status.clone()), width, height);
        drawn(&empty(), width, height);
    }
}

#[test]
fn a_daemon_that_is_away_is_said_and_its_last_answer_stays() {
    let mut view = empty();
    assert!(text(&view, 80, 24).starts_with("asking the daemon at 127.0.0.1:9187"));
    let nobody = "no daemon answers on 127.0.0.1:9187, since 1970-01-01T00:00:00Z";
    view.missed(away());
    assert!(text(&view, 80, 24).starts_with(nobody));
    view.seen(live(), Instant::now());
    assert!(!text(&view, 80, 24).contains(nobody));
    view.missed(away());
    let shown = text(&view, 80, 24);
    assert!(shown.contains(nobody), "{shown}");
    assert!(shown.contains("public.orders"), "{shown}");
}

#[test]
fn a_tables_rate_is_taken_over_the_last_looks_and_never_across_a_start() {
    let mut view = empty();
    let begin = Instant::now();
    let look = |rows, uptime_seconds| {
        let mut status = live();
        status.uptime_seconds = uptime_seconds;
        if let Some(sink) = &mut status.sink {
            sink.tables = tables(&[("public.orders", rows), ("public.parts", 100)]);
        }
        status
    };
    let rate = |view: &View| view.tables[0].rows_per_second;
    view.seen(look(1_000, 50), begin);
    assert!(rate(&view).abs() < 1e-9);
    view.seen(look(1_300, 53), begin + Duration::from_secs(3));
    assert!((rate(&view) - 100.0).abs() < 1e-9, "{}", rate(&view));
    assert_eq!(view.tables[0].table, "public.orders");
    view.seen(look(900_000, 1), begin + Duration::from_secs(5));
    assert!(rate(&view).abs() < 1e-9, "{}", rate(&view));
}

#[test]
fn the_tables_are_sorted_as_asked_and_scrolled_within_their_number() {
    let mut view = empty();
    let begin = Instant::now();
    let names: Vec<_> = (0..50).map(|it| format!("public.t{it:02}")).collect();
    let mut status = live();
    let counted = |factor: u64| {
        let rows = names
            .iter()
            .zip(1..)
            .map(|(table, number): (_, u64)| TableStatus {
                table: table.clone(),
                rows: if number == 7 {
                    40 * factor
                } else {
                    100 * number
                },
            });
        rows.collect()
    };
    for factor in 0..2 {
        if let Some(sink) = &mut status.sink {
            sink.tables = counted(factor);
        }
        view.seen(status.clone(), begin + Duration::from_secs(factor));
    }
    let first = |view: &View| view.tables[0].table.clone();
    assert_eq!(
        (view.order, first(&view)),
        (Order::Rate, "public.t06".to_owned())
    );
    press(&mut view, KeyCode::Char('s'));
    assert_eq!(
        (view.order, first(&view)),
        (Order::Rows, "public.t49".to_owned())
    );
    press(&mut view, KeyCode::Char('s'));
    assert_eq!(
        (view.order, first(&view)),
        (Order::Name, "public.t00".to_owned())
    );
    assert!(!text(&view, 80, 24).contains("public.t49"));
    for _ in 0..60 {
        press(&mut view, KeyCode::Down);
    }
    assert!(text(&view, 80, 24).contains("› public.t49"));
    press(&mut view, KeyCode::Up);
    assert!(text(&view, 80, 24).contains("› public.t48"));
}

#[test]
fn q_escape_and_control_c_leave_and_nothing_else_does() {
    let mut view = view(live());
    assert!(press(&mut view, KeyCode::Char('q')));
    assert!(press(&mut view, KeyCode::Esc));
    let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert!(view.key(control_c).is_break());
    for code in [KeyCode::Char('c'), KeyCode::Enter, KeyCode::Down] {
        assert!(!press(&mut view, code), "{code:?}");
    }
}

#[test]
fn what_operators_asked_stands_with_what_to_do() {
    let mut status = live();
    status.state = State::Paused;
    status.paused = Some(OrderStatus {
        by: "ann@db1".to_owned(),
        at: 1_795_199_030,
        reason: Some("an index".to_owned()),
    });
    let shown = text(&view(status), 100, 30);
    for part in [
        "paused by ann@db1, ",
        ": an index",
        "to do: walferry resume",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
}

#[test]
fn a_drifted_pipeline_is_one_that_an_operator_has_to_look_at() {
    let mut status = live();
    status.state = State::Drifted;
    status.drifted = vec![DriftedStatus {
        table: "public.orders".to_owned(),
        since: 1_795_199_030,
        differences: vec!["column c of type int4 was added".to_owned()],
    }];
    let view = view(status);
    let shown = text(&view, 120, 30);
    for part in [
        "shop_slot/shop  drifted  up",
        "drifted: public.orders since 2026-11-20T18:23:50Z: column c of type int4 was added",
        "  to do: touch its rows (UPDATE), then walferry verify public.orders",
    ] {
        assert!(shown.contains(part), "{part} in\n{shown}");
    }
    let word = drawn(&view, 120, 30).content[16].clone();
    assert_eq!((word.symbol(), word.fg), ("d", Color::Yellow));
}
