//! What docs/operations.md grants in PostgreSQL and in MongoDB is enough; all of its SQL is run.

use std::process::Command;

use bson::{Document, doc};
use walferry_harness::{
    Mongo, MongoOptions, PATIENCE, Process, Signal, eventually, fresh_directory,
};

use crate::deployment::{blocks, text};
use crate::site::{Site, binary, said};

/// The daemon twice, so that the second ends the session of the first; both under what the page grants.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_operations_page_grants_is_enough() {
    let schema =
        "create table orders (id int primary key, total int); insert into orders values (1, 10)";
    let site = Site::new("granted", schema, &[("public.*", "stream")]).await;
    let page = text("docs/operations.md");
    // Roles belong to the whole server, which other tests use too.
    let role = &site.database.name;
    let renamed = |sql: String| sql.replace("walferry", role).replace("walmart", role);
    let mut sql = blocks(&page, "sql").into_iter().map(renamed);
    let grants = sql.next().unwrap();
    site.sql.batch_execute(&grants).await.unwrap();
    let root = fresh_directory("granted").unwrap();
    let options = MongoOptions {
        has_users: true,
        ..MongoOptions::default()
    };
    let mongo = Mongo::start_with(root.path(), options).await.unwrap();
    let admin = administrator(&mongo).await;
    let [user] = &blocks(&page, "js")[..] else {
        panic!("one block of JavaScript");
    };
    admin.run_command(user_of(user)).await.unwrap();

    let granted = Granted {
        site: &site,
        mongo: &mongo,
    };
    let checked = said(granted.walferry("check")).await;
    assert_eq!(checked.code, Some(0), "{}", checked.out);
    for row in 2..4 {
        let daemon = Process::spawn(&granted.walferry("run"), &root.path().join("log")).unwrap();
        let insert = format!("insert into orders values ({row}, 10)");
        site.sql.batch_execute(&insert).await.unwrap();
        let orders = admin.client().database("walmart_realtime");
        let orders = orders.collection::<Document>("orders");
        eventually(PATIENCE, "the row to come", async || {
            if let Err(exited) = daemon.check_running() {
                return Ok(Err(exited));
            }
            let found = orders.find_one(doc! { "_id": row }).await.ok().flatten();
            found.map(|_| Ok(())).ok_or("not yet")
        })
        .await
        .unwrap()
        .unwrap();
        let ended = daemon.stop(Signal::TERM, PATIENCE).await.unwrap();
        assert_eq!(ended.code(), Some(0), "{}", daemon.log_tail());
    }
    assert_a_refusal_is_short(&granted, &admin).await;
    assert_visibility_takes_a_grant(&granted, &admin).await;
    for block in sql {
        site.sql.batch_execute(&block).await.unwrap();
    }
}

/// When a change became visible is told once the user may read the oplog, as the page says; the rest without it.
async fn assert_visibility_takes_a_grant(granted: &Granted<'_>, admin: &mongodb::Database) {
    let trace = async || {
        let mut trace = granted.walferry("trace");
        trace.args(["orders", "3"]);
        let said = said(trace).await;
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        said.out
    };
    let grant = "[{role: \"read\", db: \"local\"}]";
    assert!(text("docs/operations.md").contains(grant));
    let told = trace().await;
    assert!(told.contains("stored in Kafka"), "{told}");
    assert!(told.contains(grant), "{told}");
    assert!(!told.contains("visible in MongoDB"), "{told}");
    let roles = vec![doc! { "role": "read", "db": "local" }];
    let give = doc! { "grantRolesToUser": "walferry", "roles": roles };
    admin.run_command(give).await.unwrap();
    let told = trace().await;
    assert!(told.contains("visible in MongoDB"), "{told}");
}

/// What a user may not do is said without the whole command.
async fn assert_a_refusal_is_short(granted: &Granted<'_>, admin: &mongodb::Database) {
    let lesser = doc! {
        "createUser": "lesser", "pwd": "change-me", "roles": [{ "role": "read", "db": "_walferry" }],
    };
    admin.run_command(lesser).await.unwrap();
    let mut pause = granted.walferry("pause");
    let url = format!(
        "mongodb://lesser:change-me@127.0.0.1:{}/?replicaSet=rs0",
        granted.mongo.port()
    );
    pause.env("WALFERRY__SINK__URL", url);
    let refused = said(pause).await;
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    let expected = "not authorized on _walferry to execute update";
    assert!(refused.err.contains(expected), "{}", refused.err);
    assert!(!refused.err.contains("writeConcern"), "{}", refused.err);
}

/// walferry under the names and passwords of the page.
struct Granted<'a> {
    site: &'a Site,
    mongo: &'a Mongo,
}

// === impl Granted ===

impl Granted<'_> {
    fn walferry(&self, name: &str) -> Command {
        let mut command = binary();
        command.args([name, "--config"]).arg(self.site.config());
        let role = format!("{}:change-me@", self.site.database.name);
        let source = self.site.database.postgres_url.replace("postgres@", &role);
        let port = self.mongo.port();
        let sink = format!("mongodb://walferry:change-me@127.0.0.1:{port}/?replicaSet=rs0");
        command.env("WALFERRY__SOURCE__URL", source);
        command.env("WALFERRY__SINK__URL", sink);
        command.env("WALFERRY__SINK__DATABASE", "walmart_realtime");
        command
    }
}

/// The database `admin` as its administrator, who is made first.
pub(crate) async fn administrator(mongo: &Mongo) -> mongodb::Database {
    let url = format!(
        "mongodb://127.0.0.1:{}/?directConnection=true",
        mongo.port()
    );
    let anyone = mongodb::Client::with_uri_str(&url).await.unwrap();
    let root = doc! { "createUser": "root", "pwd": "root", "roles": ["root"] };
    anyone.database("admin").run_command(root).await.unwrap();
    let url = url.replace("127.0.0.1", "root:root@127.0.0.1");
    let root = mongodb::Client::with_uri_str(&url).await.unwrap();
    root.database("admin")
}

/// The user that a page's block makes with `db.createUser(…)`, as the command behind that.
pub(crate) fn user_of(block: &str) -> Document {
    let (_, user) = block.split_once("db.createUser(").unwrap();
    let (user, _) = user.rsplit_once(')').unwrap();
    let user: serde_json::Value = serde_json::from_str(user).unwrap();
    let mut user = bson::serialize_to_document(&user).unwrap();
    let name = user.remove("user").unwrap();
    let mut command = doc! { "createUser": name };
    command.extend(user);
    command
}
