//! From a database that knows nothing of walferry to one that it may follow.

use serde_json::Value;

use crate::site::Site;

const SCHEMA: &str = "
    create table orders (id int primary key, v text);
    insert into orders values (1, 'a');
    update orders set v = 'b';
    update orders set v = 'c';
    create table countries (id int primary key, name text);
    insert into countries select i, 'x' from generate_series(1, 10) i;
    create table journal (line text);
    insert into journal values ('x');
    create schema \"odd.one\";
    create table \"odd.one\".\"a*b\" (id int primary key);
    alter table \"odd.one\".\"a*b\" enable row level security;
    analyze";

fn step<'a>(plan: &'a Value, table: &str) -> &'a str {
    let tables = plan["tables"].as_array().unwrap();
    let found = tables.iter().find(|it| it["table"] == table).unwrap();
    found["step"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_init_proposes_is_fit_to_run_and_allowed_no_more_than_it_needs() {
    let site = Site::new("proposed", SCHEMA, &[]).await;
    site.sql
        .batch_execute("drop publication p; select pg_stat_force_next_flush()")
        .await
        .unwrap();
    let config = site.config();
    // One role serves all databases of the server, so this test has its own.
    let role = format!("reader_{}", site.database.name);
    let wish = [
        "--role",
        &role,
        "--from",
        &site.database.postgres_url,
        "--to",
        &site.database.mongo_url,
        "--brokers",
        &site.database.brokers,
    ];
    let taken = site.run(&[&["init"], &wish[..]].concat()).await;
    assert_eq!(taken.code, Some(1), "{}", taken.out);
    assert!(
        taken.err.contains("an existing file is never overwritten"),
        "{}",
        taken.err
    );

    std::fs::remove_file(&config).unwrap();
    let said = site.run(&[&["init"], &wish[..]].concat()).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    site.sql
        .batch_execute(&said.out)
        .await
        .unwrap_or_else(|error| panic!("{error}: {}", said.out));
    let text = std::fs::read_to_string(&config).unwrap();

    let (code, report) = site.json(&["check"]).await;
    assert_eq!(code, Some(0), "{report}\n{text}");
    let keys = bson::doc! { "name": 1 };
    let index = mongodb::IndexModel::builder().keys(keys).build();
    let countries = site.mongo.collection::<bson::Document>("countries");
    countries.create_index(index).await.unwrap();
    let (code, plan) = site.json(&["plan"]).await;
    assert_eq!(code, Some(0), "{plan}");
    assert_eq!(step(&plan, "public.orders"), "copy_then_follow", "{text}");
    assert_eq!(step(&plan, "public.countries"), "load", "{text}");
    assert_eq!(step(&plan, "public.journal"), "ignore", "{text}");
    assert_eq!(step(&plan, "odd.one.a*b"), "copy_then_follow", "{text}");
    let table = plan["tables"].as_array().unwrap().iter();
    let indexes: Vec<_> = table.map(|it| it["indexes"].to_string()).collect();
    assert_eq!(
        indexes.iter().filter(|it| *it != "[]").collect::<Vec<_>>(),
        ["[\"name_1\"]"]
    );
    let people = site.run(&["plan"]).await;
    let replaced = "countries (replaced, its index too)";
    assert!(people.out.contains(replaced), "{}", people.out);
    assert!(
        people.out.contains("to copy before following: about "),
        "{}",
        people.out
    );

    let loaded = site.run(&["backfill"]).await;
    assert_eq!(loaded.code, Some(0), "{}", loaded.err);
    let refused = site
        .sql
        .batch_execute(&format!("set role {role}; delete from orders"))
        .await;
    assert!(refused.is_err(), "the role may write");
    site.sql
        .batch_execute(&format!(
            "reset role; drop owned by {role}; drop role {role}"
        ))
        .await
        .unwrap();
}
