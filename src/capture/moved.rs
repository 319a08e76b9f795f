//! How a pipeline that did without Kafka comes into the log (protocol rule 20).

use walferry_core::{Checkpoint, Log, LogEntry, TopicSpec};
use walferry_schema::{LogRecord, Open, ServerIdentity, TableSpec, Term};

use super::CaptureError;
use super::start::{check_term, topic_of};
use super::tail::Tail;

/// Opens a term that says that everything up to a checkpoint is applied: the record at its offset.
///
/// # Errors
/// When the log knows a newer generation, or another reader opened a term meanwhile.
pub(crate) async fn open_moved<L: Log>(
    log: &mut L,
    checkpoint: &Checkpoint,
    server: ServerIdentity,
    tables: Vec<TableSpec>,
) -> Result<LogEntry, CaptureError> {
    log.begin().await?;
    let topics: Vec<TopicSpec> = tables.iter().map(topic_of).collect();
    log.ensure_topics(&topics).await?;
    let (mut tail, end) = Tail::read(log).await?;
    let (expected, found) = (checkpoint.generation, tail.generation());
    if found > expected {
        return Err(CaptureError::OtherGeneration { expected, found });
    }
    let record = LogRecord::Open(Open {
        generation: checkpoint.generation,
        follows: tail.follows(),
        start_lsn: checkpoint.end_lsn,
        server,
        tables,
        moved: true,
    });
    let offset = log.append(&record).await?;
    tail.read_on(log, end, offset + 1).await?;
    let term = Term {
        generation: checkpoint.generation,
        number: offset,
    };
    check_term(term, &tail)?;
    let written = log.read(offset, 1).await?.into_iter().next();
    let number = offset;
    written
        .filter(|entry| entry.offset == offset)
        .ok_or(CaptureError::Overtaken { number })
}
