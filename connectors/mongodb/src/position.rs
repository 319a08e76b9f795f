//! The position document: what the sink remembers, and what fences it (protocol rule 13).
//!
//! - `_id` is the pipeline; `epoch` rises with each claim, `seq` with each write under it.
//! - Numbers of 64 bits without sign are stored as the 64-bit integer with the same bits.

use bson::oid::ObjectId;
use bson::{Binary, Bson, DateTime, Document, doc};
use walferry_core::{Checkpoint, PartitionOffset, PipelineState};
use walferry_schema::{FORMAT, Lsn, Phase, Position, ServerIdentity, TableName, TableSpec, Term};

use crate::{Error, Result};

/// The collection of the position documents.
pub(crate) const COLLECTION: &str = "positions";

/// A position document as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) epoch: i64,
    pub(crate) seq: i64,
    /// The id of the last writer's session.
    pub(crate) session: Option<Bson>,
    /// The process that wrote last.
    pub(crate) writer: Option<ObjectId>,
    /// The database that the pipeline fills.
    pub(crate) database: Option<String>,
    /// The staging collections that were made and not renamed yet.
    pub(crate) staging: Vec<Staged>,
    /// When it was written.
    pub(crate) updated_at: Option<DateTime>,
    /// None when the pipeline was claimed and never written.
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// A staging collection that this pipeline made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Staged {
    pub(crate) name: String,
    /// The server's identity of the collection: another one of the same name is not it.
    pub(crate) uuid: Binary,
}

/// Reads fields and names those that are missing.
struct Fields<'a> {
    pipeline: &'a str,
    document: &'a Document,
}

// === impl Stored ===

impl Stored {
    pub(crate) fn from_document(pipeline: &str, document: &Document) -> Result<Self> {
        let fields = Fields { pipeline, document };
        let format = fields.int("format")?;
        if format != i64::from(FORMAT) {
            let pipeline = pipeline.to_owned();
            return Err(Error::PositionFormat {
                pipeline,
                found: format,
            });
        }
        let checkpoint = if document.contains_key("state") {
            Some(fields.checkpoint()?)
        } else {
            None
        };
        Ok(Self {
            epoch: fields.int("epoch")?,
            seq: fields.int("seq")?,
            session: document.get("session").cloned(),
            writer: document.get_object_id("writer").ok(),
            database: document.get_str("database").ok().map(str::to_owned),
            staging: fields.staging()?,
            updated_at: document.get_datetime("updated_at").ok().copied(),
            checkpoint,
        })
    }
}

/// The fields that a checkpoint is stored in.
pub(crate) fn fields(checkpoint: &Checkpoint) -> Document {
    let partitions = checkpoint.partitions.iter().map(|(name, offset)| {
        doc! { "topic": &*name.topic, "partition": name.partition, "offset": *offset }
    });
    let mut fields = doc! {
        "format": i64::from(FORMAT),
        "state": state_name(checkpoint.state),
        "generation": checkpoint.generation.cast_signed(),
        "term": {
            "generation": checkpoint.term.generation.cast_signed(),
            "number": checkpoint.term.number,
        },
        "position": checkpoint.position.map(position_document),
        "end_lsn": checkpoint.end_lsn.to_string(),
        "committed_at": checkpoint.committed_at,
        "log_offset": checkpoint.log_offset,
        "log_check": checkpoint.log_check.cast_signed(),
        "partitions": partitions.collect::<Vec<_>>(),
        "server": checkpoint.server.as_ref().map(server_document),
        "tables": checkpoint.tables.iter().map(table_document).collect::<Vec<_>>(),
        "updated_at": DateTime::now(),
    };
    if checkpoint.state == PipelineState::Live {
        // All were renamed.
        fields.insert("staging", Bson::Array(Vec::new()));
    }
    fields
}

/// The fields that record the staging collections.
pub(crate) fn staging_fields(staging: &[Staged]) -> Document {
    let staging = staging
        .iter()
        .map(|staged| doc! { "name": &staged.name, "uuid": staged.uuid.clone() });
    doc! { "staging": staging.collect::<Vec<_>>(), "updated_at": DateTime::now() }
}

fn position_document(position: Position) -> Document {
    let mut document = doc! { "generation": position.generation.cast_signed() };
    match position.phase {
        Phase::Snapshot(chunk) => document.insert("chunk", chunk.cast_signed()),
        Phase::Stream(commit_lsn) => document.insert("commit_lsn", commit_lsn.to_string()),
    };
    document.insert("ordinal", position.ordinal.cast_signed());
    document
}

fn server_document(server: &ServerIdentity) -> Document {
    doc! { "system_id": &server.system_id, "timeline": i64::from(server.timeline) }
}

fn table_document(table: &TableSpec) -> Document {
    doc! {
        "schema": &*table.name.schema,
        "table": &*table.name.table,
        "oid": i64::from(table.oid),
        "key": &table.key,
        "topic": &*table.topic,
        "partitions": table.partitions,
    }
}

fn state_name(state: PipelineState) -> &'static str {
    match state {
        PipelineState::Snapshot => "snapshot",
        PipelineState::Swapping => "swapping",
        PipelineState::Live => "live",
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    fn checkpoint(&self) -> Result<Checkpoint> {
        let term = self.nested("term")?;
        Ok(Checkpoint {
            state: self.state()?,
            generation: self.int("generation")?.cast_unsigned(),
            term: Term {
                generation: term.int("generation")?.cast_unsigned(),
                number: term.int("number")?,
            },
            position: self.position()?,
            end_lsn: self.lsn("end_lsn")?,
            // Versions before did not record it.
            committed_at: self.document.get_i64("committed_at").ok(),
            log_offset: self.int("log_offset")?,
            log_check: self.int("log_check")?.cast_unsigned(),
            partitions: self.all("partitions", |partition| {
                let name = PartitionOffset {
                    topic: partition.text("topic")?.into(),
                    partition: partition.small("partition")?,
                };
                Ok((name, partition.int("offset")?))
            })?,
            server: self.server()?,
            tables: self.all("tables", |table| {
                Ok(TableSpec {
                    name: TableName::new(table.text("schema")?, table.text("table")?),
                    oid: table.unsigned("oid")?,
                    key: table.texts("key")?,
                    topic: table.text("topic")?.into(),
                    partitions: table.small("partitions")?,
                })
            })?,
        })
    }

    /// None are recorded before the first is made.
    fn staging(&self) -> Result<Vec<Staged>> {
        if !self.document.contains_key("staging") {
            return Ok(Vec::new());
        }
        self.all("staging", |staged| match staged.document.get("uuid") {
            Some(Bson::Binary(uuid)) => Ok(Staged {
                name: staged.text("name")?.to_owned(),
                uuid: uuid.clone(),
            }),
            _ => Err(staged.missing("uuid")),
        })
    }

    fn state(&self) -> Result<PipelineState> {
        let name = self.text("state")?;
        let states = [
            PipelineState::Snapshot,
            PipelineState::Swapping,
            PipelineState::Live,
        ];
        let state = states.into_iter().find(|&state| state_name(state) == name);
        state.ok_or_else(|| self.missing("state"))
    }

    /// Versions before 0.2 did not record it.
    fn server(&self) -> Result<Option<ServerIdentity>> {
        if matches!(self.document.get("server"), None | Some(Bson::Null)) {
            return Ok(None);
        }
        let server = self.nested("server")?;
        Ok(Some(ServerIdentity {
            system_id: server.text("system_id")?.to_owned(),
            timeline: server.unsigned("timeline")?,
        }))
    }

    fn position(&self) -> Result<Option<Position>> {
        if matches!(self.document.get("position"), None | Some(Bson::Null)) {
            return Ok(None);
        }
        let position = self.nested("position")?;
        let phase = if position.document.contains_key("chunk") {
            Phase::Snapshot(position.int("chunk")?.cast_unsigned())
        } else {
            Phase::Stream(position.lsn("commit_lsn")?)
        };
        Ok(Some(Position {
            generation: position.int("generation")?.cast_unsigned(),
            phase,
            ordinal: position.int("ordinal")?.cast_unsigned(),
        }))
    }

    fn all<T, C: FromIterator<T>>(
        &self,
        field: &'static str,
        read: impl Fn(Fields<'_>) -> Result<T>,
    ) -> Result<C> {
        let items = self
            .document
            .get_array(field)
            .map_err(|_| self.missing(field))?;
        let documents = items.iter().map(|item| {
            let document = item.as_document().ok_or_else(|| self.missing(field))?;
            read(self.of(document))
        });
        documents.collect()
    }

    fn nested(&self, field: &'static str) -> Result<Fields<'a>> {
        let document = self.document.get_document(field);
        document
            .map(|document| self.of(document))
            .map_err(|_| self.missing(field))
    }

    fn of<'b>(&self, document: &'b Document) -> Fields<'b>
    where
        'a: 'b,
    {
        let pipeline = self.pipeline;
        Fields { pipeline, document }
    }

    fn int(&self, field: &'static str) -> Result<i64> {
        match self.document.get(field) {
            Some(Bson::Int64(number)) => Ok(*number),
            Some(Bson::Int32(number)) => Ok((*number).into()),
            _ => Err(self.missing(field)),
        }
    }

    fn small(&self, field: &'static str) -> Result<i32> {
        i32::try_from(self.int(field)?).map_err(|_| self.missing(field))
    }

    fn unsigned(&self, field: &'static str) -> Result<u32> {
        u32::try_from(self.int(field)?).map_err(|_| self.missing(field))
    }

    fn text(&self, field: &'static str) -> Result<&'a str> {
        self.document
            .get_str(field)
            .map_err(|_| self.missing(field))
    }

    fn texts(&self, field: &'static str) -> Result<Vec<String>> {
        let items = self
            .document
            .get_array(field)
            .map_err(|_| self.missing(field))?;
        let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
        texts
            .collect::<Option<_>>()
            .ok_or_else(|| self.missing(field))
    }

    fn lsn(&self, field: &'static str) -> Result<Lsn> {
        self.text(field)?.parse().map_err(|_| self.missing(field))
    }

    fn missing(&self, field: &'static str) -> Error {
        Error::PositionField {
            pipeline: self.pipeline.to_owned(),
            field,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use walferry_core::Classify;

    fn checkpoint(position: Option<Position>) -> Checkpoint {
        let table = TableSpec {
            name: TableName::new("a", "b.c"),
            oid: u32::MAX,
            key: vec!["x".into(), "y".into()],
            topic: "p.a.b.c".into(),
            partitions: 2,
        };
        let name = |partition| PartitionOffset {
            topic: table.topic.clone(),
            partition,
        };
        Checkpoint {
            state: PipelineState::Swapping,
            generation: 1_795_199_030,
            term: Term {
                generation: 1_795_199_030,
                number: 17,
            },
            position,
            end_lsn: Lsn(0x16_0000_0031),
            committed_at: Some(1_795_199_044_423_000),
            log_offset: i64::MAX,
            log_check: u64::MAX,
            partitions: [(name(0), 5), (name(1), 0)].into(),
            server: Some(ServerIdentity {
                system_id: "7".into(),
                timeline: 2,
            }),
            tables: vec![table.clone()],
        }
    }

    fn stored(document: &Document) -> Result<Stored> {
        Stored::from_document("p", document)
    }

    #[test]
    fn a_checkpoint_comes_back_as_it_was_stored() {
        let at = |phase| Position {
            generation: 1_795_199_030,
            phase,
            ordinal: u64::MAX,
        };
        let positions = [
            None,
            Some(at(Phase::Snapshot(3))),
            Some(at(Phase::Stream(Lsn(u64::MAX)))),
        ];
        for checkpoint in positions.map(checkpoint) {
            let mut document = fields(&checkpoint);
            document.extend(doc! { "epoch": 1_i64, "seq": 2_i64 });
            assert_eq!(stored(&document).unwrap().checkpoint, Some(checkpoint));
        }
    }

    #[test]
    fn a_position_that_does_not_say_when_its_last_transaction_was_committed_is_read() {
        let mut document = fields(&checkpoint(None));
        document.extend(doc! { "epoch": 1_i64, "seq": 2_i64 });
        document.remove("committed_at");
        let read = stored(&document).unwrap().checkpoint.unwrap();
        assert_eq!(read.committed_at, None);
    }

    #[test]
    fn a_claimed_pipeline_without_a_checkpoint_has_none() {
        let document = doc! { "format": 1_i64, "epoch": 1_i64, "seq": 0_i64 };
        assert_eq!(stored(&document).unwrap().checkpoint, None);
    }

    #[test]
    fn a_position_of_another_format_is_refused() {
        let refused = stored(&doc! { "format": 99_i64 }).unwrap_err();
        assert_eq!(refused.class(), walferry_core::Class::Fatal);
        assert!(matches!(refused, Error::PositionFormat { found: 99, .. }));
        assert!(matches!(
            stored(&doc! {}),
            Err(Error::PositionField {
                field: "format",
                ..
            })
        ));
    }
}
