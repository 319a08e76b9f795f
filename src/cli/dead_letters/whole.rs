//! A dead letter as JSON with what was too large to go with it: that is written piece by piece as it is read.

use walferry_mongodb::{Lacking, LetterText};
use walferry_schema::Position;

use crate::cli::CliError;
use crate::cli::output::{Output, json};
use crate::config::Config;
use crate::dead_letters::Shown;
use crate::pipeline::connect;

/// Writes it: members `large`, the values as PostgreSQL's texts by column, and `records`, what stands on the dead-letter topic,
/// by position; null where it cannot be had.
pub(super) async fn write(config: &Config, output: &Output, shown: Shown) -> Result<(), CliError> {
    let text = json(&shown)?;
    output.text(text.strip_suffix('}').unwrap_or(&text))?;
    let committed_at = shown.letter.committed_at;
    let (mut texts, mut records) = (Vec::new(), Vec::new());
    for lacking in shown.lacks {
        match lacking {
            Lacking::Text(text) => texts.push(*text),
            Lacking::Record { at, position } => records.push((at, position)),
        }
    }
    if !texts.is_empty() {
        write_texts(output, texts).await?;
    }
    if !records.is_empty() {
        write_records(config, output, &records, committed_at).await?;
    }
    output.text("}\n")
}

async fn write_texts(output: &Output, texts: Vec<LetterText>) -> Result<(), CliError> {
    output.text(",\"large\":")?;
    let mut before = '{';
    for mut text in texts {
        output.text(&format!("{before}{}:\"", json(&text.column())?))?;
        while let Some(piece) = text.next().await.map_err(walferry_core::Fault::from)? {
            output.bytes(&escaped(&piece))?;
        }
        output.text("\"")?;
        before = ',';
    }
    output.text("}")
}

async fn write_records(
    config: &Config,
    output: &Output,
    records: &[(String, Position)],
    committed_at: Option<i64>,
) -> Result<(), CliError> {
    output.text(",\"records\":")?;
    let mut before = '{';
    for (at, position) in records {
        output.text(&format!("{before}{}:", json(at)?))?;
        if !write_record(config, output, *position, committed_at).await? {
            output.text("null")?;
        }
        before = ',';
    }
    output.text("}")
}

/// Whether there is one.
async fn write_record(
    config: &Config,
    output: &Output,
    of: Position,
    committed_at: Option<i64>,
) -> Result<bool, CliError> {
    let Some(kafka) = &config.kafka else {
        output.note("the record stands on the dead-letter topic: configure [kafka] to see it");
        return Ok(false);
    };
    let topic = connect::dead_letters(config, kafka);
    let offsets = match topic.find(of, committed_at).await {
        Ok(Some(offsets)) => offsets,
        Ok(None) => {
            output.note("the dead-letter topic no longer has the record");
            return Ok(false);
        }
        Err(fault) => {
            output.note(&format!("the dead-letter topic cannot be read: {fault}"));
            return Ok(false);
        }
    };
    for offset in offsets {
        let part = topic.part(of, offset).await?;
        output.bytes(&part.ok_or(CliError::RecordGone)?.value)?;
    }
    Ok(true)
}

/// What stands in a JSON string for a piece of text, wherever that is cut.
fn escaped(piece: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(piece.len());
    for &byte in piece {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            b'\n' => out.extend(b"\\n"),
            0..=0x1f => out.extend(format!("\\u{byte:04x}").bytes()),
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_same_json_wherever_it_is_cut() {
        let text = "a\"b\\c\nd\te\u{1}é…";
        for at in 0..=text.len() {
            let (first, second) = text.as_bytes().split_at(at);
            let whole = [b"\"", &*escaped(first), &*escaped(second), b"\""].concat();
            let read: String = serde_json::from_slice(&whole).expect("JSON");
            assert_eq!(read, text);
        }
    }
}
