//! The retail system, the engine's first user.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

use crate::daemon::{PATIENCE, Pipeline, Route};

const STREAMED: [&str; 3] = ["transactions", "transactiondetails", "inventory"];
const PATTERN: &str = "public.{transactions,transactiondetails,inventory}";

const MASTER_DATA: &str = "
    insert into stores values (1, 'Miami, FL');
    insert into customers (customer_id) values (1001);
    insert into categories (category_id, category_name) overriding system value values (1, 'Electronics');
    insert into suppliers (supplier_id) values (7);
    insert into products values (843, 'Fridge', 1, 7, 188.46, 116, 170), (844, 'TV', 1, 7, 99.90, 1, 1);
    insert into paymentmethods (method_id, method_name) overriding system value values (1, 'Cash');
    insert into weather (weather_id, weather_conditions) overriding system value values (1, 'Sunny');
    insert into inventory values (1, 843, 100), (1, 844, 100);
";

/// A pipeline over the retail schema with a little master data.
async fn retail() -> Pipeline {
    let stack = walferry_harness::Stack::shared().await.unwrap();
    let database = stack.fresh_database("retail").await.unwrap();
    let url = walferry_retail::parse_url(&database.postgres_url).unwrap();
    Box::pin(walferry_retail::schema::install(&url))
        .await
        .unwrap();
    Pipeline::over_existing(database, MASTER_DATA, PATTERN).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sale_of_two_products_is_five_records_of_one_transaction_and_the_right_documents() {
    let pipeline = retail().await;
    let daemon = pipeline.start();
    pipeline.equal(&STREAMED).await;
    pipeline
        .sql
        .batch_execute(
            "call insert_transaction('2024-04-10 15:00:00', 1001, 1, 1, false, null, 1, false, \
             array[844, 843], array[1, 2])",
        )
        .await
        .unwrap();
    pipeline.equal(&STREAMED).await;
    if pipeline.route == Route::Direct {
        assert!(daemon.stop().await.success());
        return;
    }

    let records = pipeline.records_of_stream(&STREAMED);
    assert_eq!(records.len(), 5, "{records:#?}");
    let ids: Vec<_> = records
        .iter()
        .map(|r| r["transaction"]["id"].clone())
        .collect();
    assert!(
        ids.iter().all(|id| *id == ids[0]),
        "one transaction: {ids:?}"
    );
    let mut order: Vec<_> = records
        .iter()
        .map(|r| r["transaction"]["total_order"].as_u64().unwrap())
        .collect();
    order.sort_unstable();
    assert_eq!(order, [1, 2, 3, 4, 5]);
    let ops = |table: &str| -> Vec<String> {
        let of_table = records.iter().filter(|r| r["source"]["table"] == table);
        of_table
            .map(|r| r["op"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ops("transactions"), ["c"]);
    assert_eq!(ops("transactiondetails"), ["c", "c"]);
    assert_eq!(ops("inventory"), ["u", "u"]);

    let markers = pipeline.values_of(&format!("{}.transaction", pipeline.database.name));
    let [begin, end] = markers.as_slice() else {
        panic!("{markers:#?}")
    };
    assert_eq!((&begin["status"], &begin["id"]), (&"BEGIN".into(), &ids[0]));
    assert_eq!((&end["status"], &end["id"]), (&"END".into(), &ids[0]));
    assert_eq!(end["event_count"], 5);
    assert!(daemon.stop().await.success());
}

impl Pipeline {
    /// The values of all stream records (not those of the snapshot) on the tables' topics.
    pub(crate) fn records_of_stream(&self, tables: &[&str]) -> Vec<Value> {
        let topics = tables
            .iter()
            .map(|table| format!("{}.public.{table}", self.database.name));
        let records = topics.flat_map(|topic| self.values_of(&topic));
        records.filter(|value| value["op"] != "r").collect()
    }

    /// The values of all records on a topic's one partition, tombstones left out.
    pub(crate) fn values_of(&self, topic: &str) -> Vec<Value> {
        let messages = self.messages_of(topic).into_iter();
        let value =
            |message: OwnedMessage| Some(serde_json::from_slice(message.payload()?).unwrap());
        messages.filter_map(value).collect()
    }

    /// All records on a topic's one partition.
    pub(crate) fn messages_of(&self, topic: &str) -> Vec<OwnedMessage> {
        self.messages_where(topic, |_| true)
    }

    /// Those that a condition holds for.
    pub(crate) fn messages_where(
        &self,
        topic: &str,
        is_wanted: impl Fn(&OwnedMessage) -> bool,
    ) -> Vec<OwnedMessage> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.database.brokers)
            .set("group.id", "test")
            .set("enable.partition.eof", "true")
            .create()
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment
            .add_partition_offset(topic, 0, Offset::Beginning)
            .unwrap();
        consumer.assign(&assignment).unwrap();
        let mut messages = Vec::new();
        // Ends at the partition's end, which is an error of its own.
        while let Some(Ok(message)) = consumer.poll(PATIENCE) {
            messages.extend(Some(message.detach()).filter(&is_wanted));
        }
        messages
    }
}
