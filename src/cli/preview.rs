//! `walferry preview`: documents as relaxed extended JSON, row by row as they are read.

use serde::Serialize;
use walferry_core::Tasks;

use super::output::{Output, json, pretty_json};
use super::{CliError, Exit};
use crate::config::Config;
use crate::preview::{Preview, PreviewedRow};

/// A row without a document, in a pipe: it has no `_id`, which every document has.
#[derive(Serialize)]
struct Refused<'a> {
    error: &'a str,
    row: u32,
}

pub(super) async fn run(
    config: &Config,
    table: &str,
    rows: u32,
    tasks: &Tasks,
    output: &Output,
) -> Result<Exit, CliError> {
    let mut preview = Box::pin(Preview::begin(config, table, rows, tasks)).await?;
    let all_carried = if output.is_json() {
        Box::pin(object(&mut preview, output)).await?
    } else {
        Box::pin(lines(&mut preview, output)).await?
    };
    Ok(if all_carried {
        Exit::Success
    } else {
        Exit::Different
    })
}

/// One object, written as the rows come: whether each has a document.
async fn object(preview: &mut Preview, output: &Output) -> Result<bool, CliError> {
    let table = json(&preview.table().to_string())?;
    output.text(&format!("{{\"table\":{table},\"rows\":["))?;
    let (mut all_carried, mut separator) = (true, "");
    while let Some(row) = Box::pin(preview.next()).await? {
        all_carried &= matches!(row, PreviewedRow::Document { .. });
        output.text(&format!("{separator}{}", json(&row)?))?;
        separator = ",";
    }
    let truncated = json(preview.truncated())?;
    output.text(&format!("],\"truncated\":{truncated}}}\n"))?;
    Ok(all_carried)
}

/// A document each, for people or a line long: whether each row has one.
async fn lines(preview: &mut Preview, output: &Output) -> Result<bool, CliError> {
    let mut all_carried = true;
    while let Some(row) = Box::pin(preview.next()).await? {
        all_carried &= matches!(row, PreviewedRow::Document { .. });
        output.text(&shown(&row, output.is_terminal())?)?;
    }
    for (column, count) in preview.truncated() {
        output.note(&format!(
            "{column}: the microseconds of {count} values are cut off"
        ));
    }
    Ok(all_carried)
}

fn shown(row: &PreviewedRow, is_terminal: bool) -> Result<String, CliError> {
    let text = match row {
        PreviewedRow::Document { document, .. } if is_terminal => pretty_json(document)?,
        PreviewedRow::Document { document, .. } => json(document)?,
        PreviewedRow::Refused { row, error } if is_terminal => {
            format!("row {row} cannot be carried: {error}")
        }
        PreviewedRow::Refused { row, error } => json(&Refused { error, row: *row })?,
    };
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use bson::doc;
    use walferry_mongodb::ExtendedJson;

    use super::*;

    #[test]
    fn people_read_indented_documents_and_errors_in_words() {
        let document = ExtendedJson::new(doc! { "_id": 1, "a": "x" }.to_vec().unwrap());
        let carried = PreviewedRow::Document { row: 1, document };
        let indented = "{\n  \"_id\": 1,\n  \"a\": \"x\"\n}\n";
        assert_eq!(shown(&carried, true).unwrap(), indented);
        assert_eq!(shown(&carried, false).unwrap(), "{\"_id\":1,\"a\":\"x\"}\n");
        let error = "too large".to_owned();
        let refused = PreviewedRow::Refused { row: 2, error };
        let words = "row 2 cannot be carried: too large\n";
        assert_eq!(shown(&refused, true).unwrap(), words);
        let line = "{\"error\":\"too large\",\"row\":2}\n";
        assert_eq!(shown(&refused, false).unwrap(), line);
    }
}
