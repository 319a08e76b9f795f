//! How far long work has come: a bar on a terminal, a line now and then in a pipe.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const BETWEEN_LINES: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Progress {
    what: &'static str,
    total: Option<u64>,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Bar(ProgressBar),
    Lines { next: Instant },
}

// === impl Progress ===

impl Progress {
    pub(crate) fn start(what: &'static str, total: Option<u64>) -> Self {
        let form = if stderr().is_terminal() {
            Form::Bar(bar(what, total))
        } else {
            Form::Lines {
                next: Instant::now() + BETWEEN_LINES,
            }
        };
        Self { what, total, form }
    }

    pub(crate) fn reach(&mut self, done: u64, total: Option<u64>, note: &str) {
        self.total = total;
        match &mut self.form {
            Form::Bar(bar) => {
                if let Some(total) = total {
                    bar.set_length(total);
                }
                bar.set_position(done);
                bar.set_message(note.to_owned());
            }
            Form::Lines { next } => {
                let now = Instant::now();
                if now >= *next {
                    *next = now + BETWEEN_LINES;
                    line(self.what, done, total, note);
                }
            }
        }
    }

    pub(crate) fn finish(self) {
        if let Form::Bar(bar) = self.form {
            bar.finish_and_clear();
        }
    }
}

fn bar(what: &'static str, total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            "{prefix} [{bar:30}] {percent:>3} % {msg} ({eta} left)",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{prefix} {spinner} {elapsed} {msg}",
        ),
    };
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_prefix(what)
}

fn line(what: &str, done: u64, total: Option<u64>, note: &str) {
    let share = total.and_then(|total| done.saturating_mul(100).checked_div(total));
    let mut stderr = stderr().lock();
    // Nobody is left to hear that standard error is closed.
    drop(match share {
        Some(percent) => writeln!(stderr, "{what}: {percent} % {note}"),
        None => writeln!(stderr, "{what}: {note}"),
    });
}
