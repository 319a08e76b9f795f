//! Which tables a command looks at, of those that are streamed or loaded.

use walferry_core::{Class, Classify, Fault};
use walferry_etl::{Candidate, Mode, PlanError, Refusal};
use walferry_schema::TableName;

use super::{Preparation, candidate};
use crate::config::Config;

/// Why nothing was looked at.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// Tables were named that are not there, or not selected.
    #[error(transparent)]
    Tables(#[from] PlanError),
    /// A server cannot be used.
    #[error("{0}")]
    Fault(Fault),
}

/// We were told to stop.
#[derive(Debug, thiserror::Error)]
#[error("stopped before everything was looked at")]
pub(crate) struct Stopped;

// === impl LookError ===

impl From<Fault> for LookError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

// === impl Stopped ===

impl Classify for Stopped {
    fn class(&self) -> Class {
        Class::Transient
    }
}

// === impl Preparation ===

impl Preparation {
    /// The named tables, or all that are streamed or loaded, in name order.
    pub(crate) fn choose(
        &self,
        config: &Config,
        names: &[String],
    ) -> Result<Vec<(TableName, Mode)>, PlanError> {
        let mut tables = Vec::new();
        for table in self.listed() {
            let mode = config.tables.mode(&table.name);
            let is_ours = match mode {
                Mode::Stream => table.is_published,
                Mode::Batch => !table.is_partition,
                Mode::Ignore => false,
            };
            if is_ours {
                tables.push((table.name.clone(), mode));
            } else if mode == Mode::Stream && !table.is_partition {
                tracing::warn!(table = %table.name, "left out: the publication does not hold it");
            }
        }
        if names.is_empty() {
            return Ok(tables);
        }
        let named = self.named(&tables, names)?;
        tables.retain(|(table, _)| named.contains(table));
        Ok(tables)
    }

    fn named(
        &self,
        ours: &[(TableName, Mode)],
        names: &[String],
    ) -> Result<Vec<TableName>, PlanError> {
        let all: Vec<_> = self.listed().iter().map(candidate).collect();
        let find = |name: &String| {
            let table = Candidate::find(&all, name)?.name.clone();
            let is_ours = ours.iter().any(|(ours, _)| *ours == table);
            if is_ours {
                Ok(table)
            } else {
                Err(Refusal::Ignored(table))
            }
        };
        let (mut named, mut refused) = (Vec::new(), Vec::new());
        for found in names.iter().map(find) {
            match found {
                Ok(table) => named.push(table),
                Err(refusal) => refused.push(refusal),
            }
        }
        if refused.is_empty() {
            Ok(named)
        } else {
            Err(PlanError(refused))
        }
    }
}
