//! Debezium's transaction topic `<prefix>.transaction`: a BEGIN and an END beside the rows of each
//! source transaction, for consumers that know it. The sink goes by the commit log instead.

use std::sync::Arc;

use serde_json::json;
use walferry_core::TopicSpec;
use walferry_schema::Lsn;

/// Whose beginning or end a marker tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marked {
    pub(super) xid: u32,
    pub(super) commit_lsn: Lsn,
    /// Microseconds since 1970.
    pub(super) committed_at: i64,
}

/// The events of one table in a transaction, or its logical messages; tombstones are not counted.
#[derive(Clone, Debug)]
pub(super) struct CollectionEvents {
    pub(super) topic: Arc<str>,
    pub(super) collection: Arc<str>,
    pub(super) events: u64,
}

/// The transaction topic of a prefix.
pub(super) fn topic(prefix: &str) -> TopicSpec {
    TopicSpec {
        name: format!("{prefix}.transaction").into(),
        partitions: 1,
    }
}

// === impl Marked ===

impl Marked {
    /// Key and value of the BEGIN.
    pub(super) fn begin(&self) -> (Vec<u8>, Vec<u8>) {
        let value = format!(
            r#"{{"status":"BEGIN","id":"{}","event_count":null,"data_collections":null,"ts_ms":{}}}"#,
            self.id(),
            self.millis(),
        );
        (self.key(), value.into_bytes())
    }

    /// Key and value of the END.
    pub(super) fn end(&self, collections: &[CollectionEvents]) -> (Vec<u8>, Vec<u8>) {
        let count: u64 = collections.iter().map(|it| it.events).sum();
        let collections: Vec<String> = collections
            .iter()
            .map(|it| {
                let name = json!(it.collection);
                format!(
                    r#"{{"data_collection":{name},"event_count":{}}}"#,
                    it.events
                )
            })
            .collect();
        let value = format!(
            r#"{{"status":"END","id":"{}","event_count":{count},"data_collections":[{}],"ts_ms":{}}}"#,
            self.id(),
            collections.join(","),
            self.millis(),
        );
        (self.key(), value.into_bytes())
    }

    fn key(&self) -> Vec<u8> {
        format!(r#"{{"id":"{}"}}"#, self.id()).into_bytes()
    }

    fn id(&self) -> String {
        format!("{}:{}", self.xid, self.commit_lsn.0)
    }

    fn millis(&self) -> i64 {
        self.committed_at.div_euclid(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begin_and_end_are_as_debezium_writes_them() {
        let marked = Marked {
            xid: 842,
            commit_lsn: Lsn(26_360_600),
            committed_at: 1_795_199_044_423_359,
        };
        let table = CollectionEvents {
            topic: "dbz.inv.customers".into(),
            collection: "inv.customers".into(),
            events: 3,
        };
        let text = |(key, value)| {
            let text = |bytes| String::from_utf8(bytes).expect("JSON is UTF-8");
            (text(key), text(value))
        };
        let key = r#"{"id":"842:26360600"}"#.to_owned();
        let begin = r#"{"status":"BEGIN","id":"842:26360600","event_count":null,"data_collections":null,"ts_ms":1795199044423}"#;
        assert_eq!(text(marked.begin()), (key.clone(), begin.to_owned()));
        let end = r#"{"status":"END","id":"842:26360600","event_count":3,"data_collections":[{"data_collection":"inv.customers","event_count":3}],"ts_ms":1795199044423}"#;
        assert_eq!(text(marked.end(&[table])), (key, end.to_owned()));
    }
}
