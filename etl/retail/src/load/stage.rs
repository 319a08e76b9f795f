//! One CSV file into a temporary table with the types, constraints and key of its own.
//!
//! A row that breaks one of these fails inside COPY, which is how the error knows its line.

use std::path::{Path, PathBuf};
use std::pin::pin;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio_postgres::{CopyInSink, Transaction};

use crate::Error;
use crate::table::Table;

const CHUNK_BYTES: usize = 64 * 1024;
/// A header line is far shorter; anything longer is no header.
const HEADER_BYTES: u64 = 16 * 1024;

/// A file whose rows are in `staged_<table>`.
#[derive(Debug)]
pub(super) struct Staged<'a> {
    pub(super) table: &'a Table,
    pub(super) path: PathBuf,
    /// As the header line names them.
    pub(super) columns: Vec<String>,
    pub(super) rows: u64,
}

// === impl Staged ===

impl Staged<'_> {
    /// The table did not take the rows: a foreign key, as a rule, and PostgreSQL names the key that is missing.
    pub(super) fn refused(&self, source: tokio_postgres::Error) -> Error {
        Error::Row {
            path: self.path.clone(),
            place: String::new(),
            source,
        }
    }
}

/// Copies the table's file; `progress` hears how many bytes were sent each time.
pub(super) async fn stage<'a>(
    transaction: &Transaction<'_>,
    table: &'a Table,
    directory: &Path,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Staged<'a>, Error> {
    let create = format!(
        "CREATE TEMPORARY TABLE staged_{name} (LIKE {name} INCLUDING CONSTRAINTS INCLUDING INDEXES) ON COMMIT DROP",
        name = table.name
    );
    let path = directory.join(table.file());
    copy(transaction, table, path, &create, progress).await
}

/// Copies a file into `staged_<table>`, which a statement of the caller's makes.
pub(super) async fn copy<'a>(
    transaction: &Transaction<'_>,
    table: &'a Table,
    path: PathBuf,
    create: &str,
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Staged<'a>, Error> {
    let unreadable = |source| Error::Read {
        path: path.clone(),
        source,
    };
    let mut file =
        BufReader::with_capacity(CHUNK_BYTES, File::open(&path).await.map_err(unreadable)?);
    let mut header = String::new();
    (&mut file)
        .take(HEADER_BYTES)
        .read_line(&mut header)
        .await
        .map_err(unreadable)?;
    let columns = columns(table, &header).map_err(|reason| Error::Header {
        path: path.clone(),
        reason,
    })?;

    let mut sink = pin!(begin_copy(transaction, table, create, &columns).await?);
    progress(header.len() as u64);
    // COPY skips the header and counts it as line 1.
    let mut is_open = sink.send(Bytes::from(header)).await.is_ok();
    while is_open {
        let chunk = Bytes::copy_from_slice(file.fill_buf().await.map_err(unreadable)?);
        if chunk.is_empty() {
            break;
        }
        file.consume(chunk.len());
        progress(chunk.len() as u64);
        // Why the server closed the copy arrives at its end.
        is_open = sink.send(chunk).await.is_ok();
    }
    let rows = sink
        .finish()
        .await
        .map_err(|source| misplaced(&path, table, source))?;
    Ok(Staged {
        table,
        path,
        columns,
        rows,
    })
}

async fn begin_copy(
    transaction: &Transaction<'_>,
    table: &Table,
    create: &str,
    columns: &[String],
) -> Result<CopyInSink<Bytes>, Error> {
    let (name, columns) = (table.name, columns.join(", "));
    transaction
        .batch_execute(create)
        .await
        .map_err(Error::database(
            "making a temporary table (is the schema installed?)",
        ))?;
    transaction
        .copy_in(&format!(
            "COPY staged_{name} ({columns}) FROM STDIN WITH (FORMAT csv, HEADER true)"
        ))
        .await
        .map_err(Error::database("beginning a COPY"))
}

/// The columns that the header line names, in its order.
fn columns(table: &Table, header: &str) -> Result<Vec<String>, String> {
    let line = header
        .trim_start_matches('\u{feff}')
        .trim_end_matches(['\r', '\n']);
    let columns: Vec<String> = line
        .split(',')
        .map(|column| column.trim_matches('"').to_ascii_lowercase())
        .collect();
    let is_named = |wanted: &str| columns.iter().any(|column| column == wanted);
    if let Some(missing) = table.columns.iter().find(|column| !is_named(column)) {
        return Err(format!("the header has no column {missing}"));
    }
    let is_known = |column: &String| {
        table
            .columns
            .iter()
            .chain(table.optional)
            .any(|known| known == column)
    };
    if let Some(unknown) = columns.iter().find(|column| !is_known(column)) {
        return Err(format!(
            "the header has a column {unknown:?}, which {} has not",
            table.name
        ));
    }
    match columns
        .iter()
        .enumerate()
        .find(|(index, column)| columns[..*index].contains(column))
    {
        Some((_, twice)) => Err(format!("the header names column {twice} twice")),
        None => Ok(columns),
    }
}

/// Puts PostgreSQL's `COPY staged_t, line 3, column c: "v"` after the name of the file.
fn misplaced(path: &Path, table: &Table, source: tokio_postgres::Error) -> Error {
    let place = source
        .as_db_error()
        .and_then(|error| {
            error
                .where_()?
                .strip_prefix(&format!("COPY staged_{}", table.name))
        })
        .and_then(|place| place.lines().next())
        .unwrap_or_default()
        .to_owned();
    Error::Row {
        path: path.to_owned(),
        place,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{STORES, TRANSACTION_DETAILS};

    #[test]
    fn columns_may_stand_in_any_order_and_behind_a_byte_order_mark() {
        assert_eq!(
            columns(&STORES, "\u{feff}location,\"store_id\"\r\n"),
            Ok(vec!["location".into(), "store_id".into()])
        );
    }

    #[test]
    fn a_price_of_the_sale_is_welcome_where_there_is_one() {
        assert!(
            columns(
                &TRANSACTION_DETAILS,
                "transaction_id,product_id,quantity,unit_price\n"
            )
            .is_ok()
        );
    }

    #[test]
    fn a_missing_unknown_or_repeated_column_is_named() {
        for (header, reason) in [
            ("store_id", "the header has no column location"),
            ("", "the header has no column store_id"),
            (
                "store_id,location,x;--",
                "the header has a column \"x;--\", which stores has not",
            ),
            (
                "store_id,location,location",
                "the header names column location twice",
            ),
        ] {
            assert_eq!(columns(&STORES, header), Err(reason.to_owned()));
        }
    }
}
