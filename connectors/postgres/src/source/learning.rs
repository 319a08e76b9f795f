//! A question to the catalog that outlives the calls that wait for its answer.
//!
//! - Stops when it is dropped.

use tokio::task::JoinHandle;
use walferry_core::Tasks;

use crate::catalog::{ColumnTypes, column_types};
use crate::error::{Error, Result};
use crate::sql::Sql;

const LEARNING: &str = "asking for the types of columns";

/// The SQL connection, lent for a question, and the answer.
type Learned = (Sql, Result<ColumnTypes>);

/// Some types, being asked for.
pub(super) struct Learning {
    task: JoinHandle<Learned>,
}

// === impl Learning ===

impl Learning {
    /// Asks over `sql`, which is left without a connection until the answer gives it back.
    pub(super) fn start(sql: &mut Sql, types: Vec<u32>, tasks: &Tasks) -> Self {
        let mut lent = sql.take();
        let task = tasks.spawn(async move {
            let found = ask(&mut lent, types).await;
            (lent, found)
        });
        Self { task }
    }

    /// The answer, once.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn finished(&mut self) -> Result<Learned> {
        let lost = |_| Error::TaskLost { doing: LEARNING };
        (&mut self.task).await.map_err(lost)
    }
}

impl Drop for Learning {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn ask(sql: &mut Sql, types: Vec<u32>) -> Result<ColumnTypes> {
    column_types(sql.client().await?, types).await
}
