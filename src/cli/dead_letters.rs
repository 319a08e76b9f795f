//! `walferry dead-letter`: shows what MongoDB could not take, and has something done about it.

mod whole;

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use walferry_core::{LetterAction, LetterChoice};
use walferry_mongodb::DeadLetter;

use super::output::{Grid, Output, bytes, pretty_json, thousands};
use super::{CliError, Exit, help};
use crate::config::Config;
use crate::dead_letters::{self, Given, Listed, Shown};

/// How much of an error a line of the list has; `show` and `--json` have all of it.
const SHOWN_CHARACTERS: usize = 60;

#[derive(Debug, Subcommand)]
pub(super) enum DeadLetters {
    /// Shows the dead letters
    List {
        /// Only those of a table, as `public.customers` or `customers`
        #[arg(long, value_name = "TABLE")]
        table: Option<String>,
        /// Also those that were retried or discarded, or are obsolete
        #[arg(long)]
        settled: bool,
    },
    /// Shows one with its document
    Show {
        /// Its name, as `list` shows it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Has them applied after all, each row as what its changes come to
    #[command(after_long_help = help::DEAD_LETTER_RETRY_EXAMPLES)]
    Retry(Chosen),
    /// Gives them up: the row is written again when a change has all of it
    #[command(after_long_help = help::DEAD_LETTER_DISCARD_EXAMPLES)]
    Discard(Chosen),
}

/// Which of them are meant, and why.
#[derive(Debug, Args)]
pub(super) struct Chosen {
    #[command(flatten)]
    which: Which,
    /// Why, for whoever looks at them later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// This one, with all others of its row
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Those of a table, as `public.customers` or `customers`
    #[arg(long, value_name = "TABLE")]
    table: Option<String>,
    /// All of the pipeline
    #[arg(long)]
    all: bool,
}

// === impl Which ===

impl Which {
    fn choice(self) -> LetterChoice {
        match (self.id, self.table) {
            (Some(id), _) => LetterChoice::Letter(id),
            (None, Some(table)) => LetterChoice::Table(table),
            (None, None) => LetterChoice::All,
        }
    }
}

pub(super) async fn run(
    command: DeadLetters,
    config: &Config,
    output: &Output,
) -> Result<Exit, CliError> {
    match command {
        DeadLetters::List { table, settled } => {
            let listed = dead_letters::list(config, table.as_deref(), settled).await?;
            answer(output, &listed, || Ok(list(&listed)))
        }
        DeadLetters::Show { id } => {
            let shown = dead_letters::show(config, &id).await?;
            if output.is_json() {
                Box::pin(whole::write(config, output, shown)).await?;
            } else {
                output.text(&show(&shown)?)?;
            }
            Ok(Exit::Success)
        }
        DeadLetters::Retry(chosen) => give(config, LetterAction::Retry, chosen, output).await,
        DeadLetters::Discard(chosen) => give(config, LetterAction::Discard, chosen, output).await,
    }
}

async fn give(
    config: &Config,
    action: LetterAction,
    chosen: Chosen,
    output: &Output,
) -> Result<Exit, CliError> {
    let Chosen { which, reason } = chosen;
    let given = dead_letters::give(config, action, which.choice(), reason.as_deref()).await?;
    answer(output, &given, || Ok(ordered(action, &given)))
}

fn answer(
    output: &Output,
    value: &impl serde::Serialize,
    text: impl FnOnce() -> Result<String, CliError>,
) -> Result<Exit, CliError> {
    if output.is_json() {
        output.json(value)?;
    } else {
        output.text(&text()?)?;
    }
    Ok(Exit::Success)
}

fn ordered(action: LetterAction, given: &Given) -> String {
    let Given { pipeline, letters } = given;
    let will = match action {
        LetterAction::Retry => "will be retried: what still cannot be written stays, and says why",
        LetterAction::Discard => {
            "will be discarded: their rows are written again when a change has all of them, documents of rows that were \
             deleted go"
        }
    };
    let letters = thousands(*letters as u64);
    format!("{pipeline}: dead letters {will}, within a second or when it runs next ({letters})\n")
}

fn list(listed: &Listed) -> String {
    if listed.letters.is_empty() {
        return format!("{}: no dead letters\n", listed.pipeline);
    }
    let heading = ["id", "table", "key", "change", "size", "state", "error"];
    let mut grid = Grid::of_text(&heading);
    for letter in &listed.letters {
        grid.row([
            letter.id.clone(),
            letter.table.clone(),
            letter.key.clone(),
            letter.operation.clone(),
            bytes(Some(letter.bytes)),
            letter.state.clone(),
            shortened(letter.retry_error.as_ref().unwrap_or(&letter.error)),
        ]);
    }
    grid.to_string()
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn show(shown: &Shown) -> Result<String, CliError> {
    let letter = &shown.letter;
    let mut text = String::new();
    for (name, value) in lines(letter) {
        // Writing to a string never fails.
        let _ = writeln!(text, "{name:<12} {value}");
    }
    if let Some(content) = &shown.content {
        text.push_str(&pretty_json(content)?);
        text.push('\n');
    }
    Ok(text)
}

fn lines(letter: &DeadLetter) -> Vec<(&'static str, String)> {
    let settled = letter.settled.as_ref().map(|order| {
        let reason = order.reason.as_deref();
        let reason = reason.map_or(String::new(), |reason| format!(": {reason}"));
        format!("by {}, {}{reason}", order.by, time(order.at))
    });
    let missing = letter.missing.join(", ");
    let missing =
        (!missing.is_empty()).then(|| format!("{missing}: `--json` shows what was too large"));
    let lines = [
        ("id", Some(letter.id.clone())),
        ("table", Some(letter.table.clone())),
        ("key", Some(letter.key.clone())),
        ("change", Some(letter.operation.clone())),
        ("size", Some(bytes(Some(letter.bytes)))),
        ("committed", letter.committed_at.map(time)),
        ("parked", Some(time(letter.parked_at))),
        ("error", Some(letter.error.clone())),
        ("retried", letter.retry_error.clone()),
        ("missing", missing),
        ("stands in", letter.reference.clone()),
        ("state", Some(letter.state.clone())),
        ("settled", settled),
    ];
    let known = lines.into_iter();
    known
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
}

/// A time in milliseconds since 1970.
fn time(millis: i64) -> String {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or_default());
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(error: &str) -> DeadLetter {
        DeadLetter {
            id: "7/0/1/2".into(),
            table: "public.t".into(),
            key: "5".into(),
            operation: "put".into(),
            state: "parked".into(),
            committed_at: Some(1_000),
            parked_at: 2_000,
            bytes: 20 << 20,
            error: error.into(),
            retry_error: None,
            reference: None,
            missing: Vec::new(),
            settled: None,
        }
    }

    #[test]
    fn a_list_shortens_errors_and_the_letter_itself_does_not() {
        let error = "é".repeat(SHOWN_CHARACTERS + 1);
        let letter = letter(&error);
        let listed = Listed {
            pipeline: "p".into(),
            letters: vec![letter.clone()],
        };
        let text = list(&listed);
        assert!(text.contains("é…\n") && text.contains("7/0/1/2"), "{text}");
        let (content, lacks) = (None, Vec::new());
        let shown = Shown {
            letter,
            content,
            lacks,
        };
        let text = show(&shown).expect("text");
        assert!(text.contains(&error), "{text}");
        assert!(
            text.contains("committed    1970-01-01T00:00:01.000Z\n"),
            "{text}"
        );
    }
}
