//! The servers of one demo.

use std::path::Path;

use walferry_harness::{Kafka, Mongo, Postgres};

use crate::error::Result;

/// What runs: Kafka only where the changes go through it.
#[derive(Debug)]
pub(crate) struct Machines {
    pub(crate) postgres: Postgres,
    pub(crate) mongo: Mongo,
    kafka: Option<Kafka>,
}

impl Machines {
    /// Starts the servers below `root`, at the same time.
    pub(crate) async fn start(root: &Path, has_kafka: bool) -> Result<Self> {
        let kafka = async {
            if has_kafka {
                Kafka::start(root).await.map(Some)
            } else {
                Ok(None)
            }
        };
        let (postgres, mongo) = (Postgres::start(root), Mongo::start(root));
        let (postgres, mongo, kafka) =
            tokio::try_join!(Box::pin(postgres), Box::pin(mongo), Box::pin(kafka))?;
        Ok(Self {
            postgres,
            mongo,
            kafka,
        })
    }

    /// Kafka's `bootstrap.servers`; none in direct mode.
    pub(crate) fn brokers(&self) -> Option<String> {
        self.kafka.as_ref().map(Kafka::brokers)
    }
}
