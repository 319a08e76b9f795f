//! `[sink]`: the MongoDB that is written.

use std::path::Path;

use super::setting::Size;
use super::{ConnectionUrl, Section};

const SCHEMES: &[&str] = &["mongodb://", "mongodb+srv://"];
const MAX_DATABASE_BYTES: usize = 63;
const DEFAULT_GROUP_ROWS: usize = 20_000;
const DEFAULT_GROUP_BYTES: usize = 8 << 20;
const DEFAULT_WHOLE_ROWS: u64 = 100_000;
const DEFAULT_WHOLE_BYTES: usize = 64 << 20;
const WHOLE_BYTES: std::ops::RangeInclusive<usize> = (1 << 20)..=(1 << 30);
/// Below MongoDB's limit of 48 MB per command, above its largest document's half.
const GROUP_BYTES: std::ops::RangeInclusive<usize> = (64 << 10)..=(40 << 20);

/// The MongoDB that is written.
#[derive(Clone, Debug)]
pub struct Sink {
    /// `url`, or `url_file`, the path of a file that holds it (relative to the configuration's
    /// folder): `mongodb://host:27017/?replicaSet=rs0`. It must be a replica set or a sharded
    /// cluster: a single server has no transactions.
    pub url: ConnectionUrl,
    /// `database`: where the collections are, one per table.
    pub database: String,
    /// `group_rows`: how many operations one MongoDB transaction holds when there is much to
    /// catch up with, 1 to 100,000; 20,000 by default.
    pub group_rows: usize,
    /// `group_bytes`: how many bytes one MongoDB transaction holds, `64KiB` to `40MiB`; `8MiB` by
    /// default.
    pub group_bytes: usize,
    /// `whole_rows`: the largest source transaction, in rows, that readers see as a whole; a larger
    /// one is applied in pieces, each exactly once. 100,000 by default.
    pub whole_rows: u64,
    /// `whole_bytes`: the same in bytes of records, `1MiB` to `1GiB`; `64MiB` by default. Up to
    /// twice as much is held in memory.
    pub whole_bytes: usize,
    /// `microseconds`: what becomes of the digits of a time that BSON has no room for; `truncate`
    /// by default.
    pub microseconds: Microseconds,
    /// `numeric_overflow`: what becomes of a `numeric` beyond Decimal128; `string` by default.
    pub numeric_overflow: NumericOverflow,
    /// `on_poison`: what becomes of a change that MongoDB cannot take, such as one of a document above 16 MiB; `park`
    /// by default.
    pub on_poison: OnPoison,
}

/// What becomes of a change that MongoDB cannot take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnPoison {
    /// It becomes a dead letter, and so do later ones of its row; everything else goes on.
    #[default]
    Park,
    /// An error that names it ends the daemon.
    Stop,
}

/// What becomes of microseconds, which a BSON date does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Microseconds {
    /// They are cut off, towards the past.
    #[default]
    Truncate,
    /// They are kept beside the date, as `<column>_us`.
    Keep,
}

/// What becomes of a `numeric` of more than 34 digits or outside Decimal128's exponents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NumericOverflow {
    /// PostgreSQL's text.
    #[default]
    String,
    /// An error that names the table, the key and the column.
    Error,
}

// === impl Sink ===

impl Sink {
    pub(super) fn read(mut section: Section<'_>, folder: &Path) -> Option<Self> {
        let url = ConnectionUrl::read(&mut section, folder, SCHEMES);
        let database = section.required::<String>("database");
        if let Some(problem) = database.as_deref().and_then(database_problem) {
            section.problem("database", problem);
        }
        let group_rows = section.number("group_rows", DEFAULT_GROUP_ROWS, 1..=100_000);
        let Size(group_bytes) = section.or("group_bytes", Size(DEFAULT_GROUP_BYTES));
        if !GROUP_BYTES.contains(&group_bytes) {
            section.problem("group_bytes", "must be a size from \"64KiB\" to \"40MiB\"");
        }
        let whole_rows = section.number("whole_rows", DEFAULT_WHOLE_ROWS, 1..=10_000_000);
        let Size(whole_bytes) = section.or("whole_bytes", Size(DEFAULT_WHOLE_BYTES));
        if !WHOLE_BYTES.contains(&whole_bytes) {
            section.problem("whole_bytes", "must be a size from \"1MiB\" to \"1GiB\"");
        }
        let microseconds = [
            ("truncate", Microseconds::Truncate),
            ("keep", Microseconds::Keep),
        ];
        let overflow = [
            ("string", NumericOverflow::String),
            ("error", NumericOverflow::Error),
        ];
        let microseconds = section.choice("microseconds", &microseconds);
        let on_poison = [("park", OnPoison::Park), ("stop", OnPoison::Stop)];
        let on_poison = section.choice("on_poison", &on_poison);
        let numeric_overflow = section.choice("numeric_overflow", &overflow);
        section.finish();
        Some(Self {
            url: url?,
            database: database?,
            group_rows,
            group_bytes,
            whole_rows,
            whole_bytes,
            microseconds,
            numeric_overflow,
            on_poison,
        })
    }
}

fn database_problem(name: &str) -> Option<&'static str> {
    let is_refused = |c: char| c.is_whitespace() || "/\\.\"$*<>:|?\0".contains(c);
    if !(1..=MAX_DATABASE_BYTES).contains(&name.len()) || name.contains(is_refused) {
        return Some("must be 1 to 63 bytes without spaces and any of / \\ . \" $ * < > : | ?");
    }
    let is_reserved = ["admin", "local", "config"].contains(&name);
    is_reserved.then_some("must not be one of MongoDB's own databases")
}
