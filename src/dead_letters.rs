//! Dead letters: changes that MongoDB cannot take, and what operators have done about them.

use serde::Serialize;
use walferry_core::{Class, Classify, Fault, LetterAction, LetterChoice};
use walferry_mongodb::{DeadLetter, ExtendedJson, Lacking, OrderBook};

use crate::config::Config;
use crate::orders;
use crate::pipeline::connect::mongodb_settings;

/// The dead letters of a pipeline.
#[derive(Clone, Debug, Serialize)]
pub struct Listed {
    /// The pipeline.
    pub pipeline: String,
    /// The oldest first.
    pub letters: Vec<DeadLetter>,
}

/// A dead letter with what it says.
#[derive(Debug, Serialize)]
pub struct Shown {
    /// The letter.
    #[serde(flatten)]
    pub letter: DeadLetter,
    /// The document, or the columns of it that the change carries; none for a deleted row and once the letter is
    /// settled.
    pub content: Option<ExtendedJson>,
    /// What was too large to go with it.
    #[serde(skip)]
    pub lacks: Vec<Lacking>,
}

/// What is to be done about some of them.
#[derive(Clone, Debug, Serialize)]
pub struct Given {
    /// The pipeline.
    pub pipeline: String,
    /// How many dead letters are meant at the least: those of a row go together.
    pub letters: usize,
}

/// Why nothing can be done.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// No letter of this name.
    #[error(
        "the pipeline {pipeline} has no dead letter {id}: `walferry dead-letter list` shows those that it has"
    )]
    Unknown {
        /// The pipeline.
        pipeline: String,
        /// The name.
        id: String,
    },
    /// Nothing stands.
    #[error(
        "the pipeline {pipeline} has no such dead letter: `walferry dead-letter list` shows those that it has"
    )]
    None {
        /// The pipeline.
        pipeline: String,
    },
}

impl Classify for LetterError {
    fn class(&self) -> Class {
        Class::Fatal
    }
}

/// The dead letters, of one table where it is named; also settled ones, where `with_settled`.
///
/// # Errors
/// When MongoDB cannot be asked.
pub async fn list(
    config: &Config,
    table: Option<&str>,
    with_settled: bool,
) -> Result<Listed, Fault> {
    let mut letters = book(config).await?.dead_letters(with_settled).await?;
    letters.retain(|letter| table.is_none_or(|table| is_of(letter, table)));
    Ok(Listed {
        pipeline: config.pipeline(),
        letters,
    })
}

/// One of them, with what it says.
///
/// # Errors
/// When there is none of this name, or MongoDB cannot be asked.
pub async fn show(config: &Config, id: &str) -> Result<Shown, Fault> {
    let book = book(config).await?;
    let Some(letter) = book.dead_letter(id).await? else {
        return Err(unknown(config, id).into());
    };
    let content = book.dead_letter_content(id).await?;
    let lacks = book.dead_letter_lacks(id).await?;
    Ok(Shown {
        letter,
        content,
        lacks,
    })
}

/// Asks the pipeline to do something about some of them: it does so within a second, or when it runs next. A table may be
/// named without its schema.
///
/// # Errors
/// When there are none of these, or MongoDB cannot be asked.
pub async fn give(
    config: &Config,
    action: LetterAction,
    mut choice: LetterChoice,
    reason: Option<&str>,
) -> Result<Given, Fault> {
    let book = book(config).await?;
    let mut letters = book.dead_letters(false).await?;
    let pipeline = config.pipeline();
    match &mut choice {
        LetterChoice::All => {}
        LetterChoice::Letter(id) => {
            letters.retain(|it| it.id == *id);
            if letters.is_empty() {
                return Err(unknown(config, id).into());
            }
        }
        LetterChoice::Table(table) => {
            letters.retain(|it| is_of(it, table));
            if let Some(letter) = letters.first() {
                table.clone_from(&letter.table);
            }
        }
    }
    if letters.is_empty() {
        return Err(LetterError::None { pipeline }.into());
    }
    let order = orders::order(reason);
    book.ask_for(action, choice, &order).await?;
    let letters = letters.len();
    Ok(Given { pipeline, letters })
}

async fn book(config: &Config) -> Result<OrderBook, Fault> {
    Ok(Box::pin(OrderBook::connect(mongodb_settings(config))).await?)
}

fn unknown(config: &Config, id: &str) -> LetterError {
    LetterError::Unknown {
        pipeline: config.pipeline(),
        id: id.to_owned(),
    }
}

/// Whether a letter is of a table, which is named with its schema or without.
fn is_of(letter: &DeadLetter, table: &str) -> bool {
    let ends = letter.table.strip_suffix(table);
    ends.is_some_and(|before| before.is_empty() || before.ends_with('.'))
}
