use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use walferry_etl::Mode;
use walferry_mongodb::{Literal, Mask};
use walferry_schema::{BinaryMode, DecimalMode, IntervalMode, Modes, SchemaMode, TableName};

use super::*;

const RETAIL: &str = r#"
[source]
url = "postgres://walferry:s3cret@localhost:5432/walmart"
slot = "walmart_slot"
publication = "walmart_publication"
[kafka]
brokers = "localhost:9092"
prefix = "walmartdb"
[sink]
url = "mongodb://walferry:s3cret@localhost:27017/?replicaSet=rs0"
database = "walmart_realtime"
[admin]
listen = "127.0.0.1:9187"
[[table]]
name = "public.{transactions,transactiondetails,inventory}"
mode = "stream"
[[table]]
name = "public.*"
mode = "batch"
"#;

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()));
    Config::parse(Path::new("walferry.toml"), text, variables)
}

fn problems(text: &str, variables: &[(&str, &str)]) -> Vec<String> {
    match parse(text, variables).unwrap_err() {
        ConfigError::Invalid { problems, .. } => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other}"),
    }
}

fn changed(from: &str, to: &str) -> String {
    assert!(RETAIL.contains(from), "{from}");
    RETAIL.replace(from, to)
}

#[test]
fn the_smallest_configuration_has_the_documented_defaults() {
    let config = parse(RETAIL, &[]).unwrap();
    assert_eq!(
        config.source.url.expose(),
        "postgres://walferry:s3cret@localhost:5432/walmart"
    );
    assert_eq!(config.source.copy_connections, 2);
    assert_eq!(config.source.max_row_bytes, 32 << 20);
    assert_eq!(config.source.spool, std::env::temp_dir());
    let kafka = config.kafka.as_ref().unwrap();
    assert_eq!((kafka.partitions, kafka.replication), (1, -1));
    assert_eq!(kafka.retention, Duration::from_hours(168));
    assert_eq!(kafka.compression, Compression::Lz4);
    assert_eq!(kafka.min_insync_replicas, None);
    assert!(kafka.tombstones && !kafka.transaction_topic);
    assert_eq!(
        (config.sink.group_rows, config.sink.group_bytes),
        (20_000, 8_388_608)
    );
    assert_eq!(config.admin.listen, "127.0.0.1:9187".parse().ok());
    assert_eq!(
        config.tables.mode(&TableName::new("public", "stores")),
        Mode::Batch
    );
    assert_eq!(config.pipeline(), "walmart_slot/walmartdb");
}

#[test]
fn the_environment_wins_over_the_file() {
    let variables = [
        ("WALFERRY__SOURCE__SLOT", "other"),
        ("WALFERRY__KAFKA__PARTITIONS", "3"),
        ("WALFERRY__KAFKA__TOMBSTONES", "false"),
        ("WALFERRY__KAFKA__RETENTION", "2h"),
        ("WALFERRY__KAFKA__PROPERTIES__SASL_PASSWORD", "s3cret"),
        ("WALFERRY__SINK__GROUP_BYTES", "1MiB"),
        ("WALFERRY__TABLE__1__MODE", "ignore"),
        ("WALFERRY__TABLE__2__NAME", "sales.*"),
        ("WALFERRY__TABLE__2__MODE", "stream"),
        ("WALFERRY_CONFIG", "not ours"),
        ("PATH", "/bin"),
    ];
    let config = parse(RETAIL, &variables).unwrap();
    assert_eq!(config.source.slot, "other");
    let kafka = config.kafka.as_ref().unwrap();
    assert_eq!((kafka.partitions, kafka.tombstones), (3, false));
    assert_eq!(kafka.retention, Duration::from_hours(2));
    assert_eq!(kafka.properties.0["sasl.password"], "s3cret");
    assert_eq!(config.sink.group_bytes, 1 << 20);
    assert_eq!(
        config.tables.mode(&TableName::new("public", "stores")),
        Mode::Ignore
    );
    assert_eq!(
        config.tables.mode(&TableName::new("sales", "a")),
        Mode::Stream
    );
}

#[test]
fn a_history_is_of_streamed_tables_of_our_own_records() {
    let with = |text: &str| changed("mode = \"stream\"\n", text);
    let config = parse(&with("mode = \"stream\"\nhistory = true\n"), &[]).unwrap();
    let has = |table| config.tables.has_history(&TableName::new("public", table));
    assert!(has("transactions") && !has("stores"));
    let batch = with("mode = \"batch\"\nhistory = true\n");
    let batch = problems(&batch, &[]).join("\n");
    assert!(
        batch.contains("only streamed tables have a history"),
        "{batch}"
    );
    let foreign = with("mode = \"stream\"\nhistory = true\n");
    let foreign = foreign.replace("[kafka]\n", "[kafka]\nformat = \"debezium\"\n");
    let foreign = problems(&foreign, &[]).join("\n");
    assert!(foreign.contains("asks for a history"), "{foreign}");
}

#[test]
fn records_are_walferrys_or_debeziums_with_single_forms_changed() {
    let with = |keys: &str| {
        let text = changed("[kafka]\n", &format!("[kafka]\n{keys}"));
        parse(&text, &[]).unwrap().kafka.unwrap().records
    };
    assert_eq!(with("").modes, Modes::default());
    let debezium = with("compatibility = \"debezium\"\nbinary = \"hex\"\n");
    assert_eq!(debezium.compatibility, Compatibility::Debezium);
    let expected = Modes {
        binary: BinaryMode::Hex,
        ..Modes::debezium()
    };
    assert_eq!(debezium.modes, expected);
    let schemas = |keys| with(keys).modes.schemas;
    assert_eq!(schemas("schemas = true\n"), SchemaMode::Walferry);
    assert_eq!(
        schemas("schemas = true\ncompatibility = \"debezium\"\n"),
        SchemaMode::Debezium
    );
    let single =
        with("compatibility = \"debezium\"\ndecimal = \"string\"\ninterval = \"string\"\n");
    assert_eq!(single.modes.decimal, DecimalMode::String);
    assert_eq!(single.modes.interval, IntervalMode::String);
}

#[test]
fn every_mistake_is_told_at_once_with_its_key() {
    let text = r#"
[source]
slot = "Walmart-Slot"
publicaton = "typo"
copy_connections = 0
max_row_bytes = "1KiB"
[kafka]
brokers = "localhost"
prefix = "a b"
retention = 7
compression = "brotli"
properties = { "enable.idempotence" = "false" }
[sink]
url = "postgres://localhost"
database = "a.b"
group_bytes = "8 parsecs"
microseconds = "drop"
[admin]
listen = "9187"
[[table]]
name = "orders"
mode = "stream"
[[table]]
name = "public.*"
mode = "sometimes"
[[tables]]
"#;
    let expected_keys = [
        "source.url",
        "source.slot",
        "source.publication",
        "source.copy_connections",
        "source.max_row_bytes",
        "source.publicaton",
        "kafka.brokers",
        "kafka.prefix",
        "kafka.retention",
        "kafka.compression",
        "kafka.properties",
        "sink.url",
        "sink.database",
        "sink.group_bytes",
        "sink.microseconds",
        "admin.listen",
        "table[1].mode",
        "tables",
    ];
    let problems = problems(text, &[]);
    let keys: Vec<_> = problems
        .iter()
        .filter_map(|p| Some(p.split_once(": ")?.0))
        .collect();
    assert_eq!(keys, expected_keys, "{problems:#?}");
    let has = |text: &str| problems.iter().any(|problem| problem == text);
    assert!(has(
        "source.publicaton: no such key; [source] has url, url_file, slot, publication, copy_connections, failover, streaming, max_row_bytes, spool, spool_limit"
    ));
    assert!(has(
        "kafka.compression: must be one of \"none\", \"lz4\", \"zstd\""
    ));
}

#[test]
fn transactions_in_progress_have_a_place_and_no_messages() {
    let streaming = |keys: &str| {
        changed("[source]\n", &format!("[source]\nstreaming = true\n{keys}"))
            .replace("[kafka]\n", "[kafka]\nmessage_topic = false\n")
    };
    let source = parse(
        &streaming("spool = \"spool\"\nspool_limit = \"2GiB\"\n"),
        &[],
    );
    let source = source.unwrap().source;
    assert!(source.streaming);
    assert_eq!(
        (source.spool, source.spool_limit),
        (PathBuf::from("spool"), 2 << 30)
    );
    let small = problems(&streaming("spool_limit = \"1KiB\"\n"), &[]);
    assert_eq!(
        small,
        ["source.spool_limit: must be a size of \"1MiB\" at least"]
    );
    let messages = streaming("").replace("message_topic = false\n", "");
    let refused = problems(&messages, &[]).remove(0);
    assert!(
        refused.starts_with("kafka.message_topic: must be false with source.streaming"),
        "{refused}"
    );
}

#[test]
fn unusable_patterns_are_mistakes() {
    let text = changed("public.*", "customers") + "[[table]]\nname = \"a.{b\"\nmode = \"batch\"";
    let problems = problems(&text, &[]);
    assert!(
        problems[0].starts_with("table[1].name: \"customers\" names no schema"),
        "{problems:?}"
    );
    assert!(
        problems[1].starts_with("table[2].name: \"a.{b\" is not a pattern"),
        "{problems:?}"
    );
}

#[test]
fn mistakes_in_the_environment_are_told_with_those_of_the_file() {
    let variables = [
        ("WALFERRY__SINK__GROUP_ROWS", "many"),
        ("WALFERRY__SINC__URL", "x"),
        ("WALFERRY__A B", "x"),
    ];
    let expected = [
        "WALFERRY__A B: names no key of the configuration",
        "sink.group_rows: must be a whole number from 1 to 100000",
        "sinc: no such section; there are source, kafka, sink, admin, telemetry, analytics, table and role",
    ];
    assert_eq!(problems(RETAIL, &variables), expected);
}

#[test]
fn without_kafka_the_pipeline_is_direct_and_named_after_its_slot() {
    let text = changed(
        "[kafka]\nbrokers = \"localhost:9092\"\nprefix = \"walmartdb\"\n",
        "",
    );
    let config = parse(&text, &[]).unwrap();
    assert!(config.kafka.is_none());
    assert_eq!(config.pipeline(), "walmart_slot");
}

#[test]
fn a_url_may_stand_in_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("url"), "postgres://u:p@h/db\n").unwrap();
    let from = "url = \"postgres://walferry:s3cret@localhost:5432/walmart\"";
    let file = folder.path().join("walferry.toml");
    let config = Config::parse(&file, &changed(from, "url_file = \"url\""), []).unwrap();
    assert_eq!(config.source.url.expose(), "postgres://u:p@h/db");

    let both = changed(from, &format!("{from}\nurl_file = \"url\""));
    let error = Config::parse(&file, &both, []).unwrap_err().to_string();
    assert!(
        error.contains("source.url_file: is given beside url"),
        "{error}"
    );
    let missing = changed(from, "url_file = \"nowhere\"");
    let error = Config::parse(&file, &missing, []).unwrap_err().to_string();
    assert!(
        error.contains("source.url_file: reading nowhere"),
        "{error}"
    );
}

#[test]
fn no_secret_is_shown() {
    let password = [("WALFERRY__KAFKA__PROPERTIES__SASL_PASSWORD", "s3cret")];
    let config = parse(RETAIL, &password).unwrap();
    assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
    for broken in ["\npublication =", "\nslot ="] {
        let text = changed(broken, "\nother =").replace("mongodb://", "mongo://");
        let error = parse(&text, &password).unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("s3cret"),
            "{error:?}"
        );
    }
}

/// Keys with their values and origins, as JSON.
fn effective(config: &Config) -> Vec<serde_json::Value> {
    let json = |it| serde_json::to_value(it).unwrap();
    config.effective().iter().map(json).collect()
}

#[test]
fn each_key_is_shown_with_its_origin() {
    let variables = [
        ("WALFERRY__SINK__GROUP_BYTES", "1048576"),
        ("WALFERRY__KAFKA__PROPERTIES__SASL_PASSWORD", "s3cret"),
        ("WALFERRY__TABLE__1__MODE", "ignore"),
    ];
    let text = changed(
        "[sink]",
        "properties = { \"security.protocol\" = \"SASL_SSL\" }\n[sink]",
    );
    let effective = effective(&parse(&text, &variables).unwrap());
    let expected = [
        json!({"key": "source.url", "value": "postgres://walferry:***@localhost:5432/walmart", "origin": "file"}),
        json!({"key": "source.url_file", "value": null, "origin": "default"}),
        json!({"key": "source.copy_connections", "value": 2, "origin": "default"}),
        json!({"key": "source.failover", "value": false, "origin": "default"}),
        json!({"key": "kafka.retention", "value": "7days", "origin": "default"}),
        json!({"key": "kafka.compression", "value": "lz4", "origin": "default"}),
        json!({"key": "kafka.min_insync_replicas", "value": null, "origin": "default"}),
        json!({"key": "kafka.properties.\"sasl.password\"", "value": "***", "origin": "variable", "name": "WALFERRY__KAFKA__PROPERTIES__SASL_PASSWORD"}),
        json!({"key": "kafka.properties.\"security.protocol\"", "value": "SASL_SSL", "origin": "file"}),
        json!({"key": "sink.url", "value": "mongodb://walferry:***@localhost:27017/?replicaSet=rs0", "origin": "file"}),
        json!({"key": "sink.group_bytes", "value": "1MiB", "origin": "variable", "name": "WALFERRY__SINK__GROUP_BYTES"}),
        json!({"key": "table[0].mode", "value": "stream", "origin": "file"}),
        json!({"key": "table[1].mode", "value": "ignore", "origin": "variable", "name": "WALFERRY__TABLE__1__MODE"}),
    ];
    for setting in expected {
        assert!(effective.contains(&setting), "{setting} in {effective:#?}");
    }
    assert!(!format!("{effective:?}").contains("s3cret"));
}

#[test]
fn a_url_from_a_file_is_shown_with_that_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("url"), "postgres://u:s3cret@h/db\n").unwrap();
    let from = "url = \"postgres://walferry:s3cret@localhost:5432/walmart\"";
    let file = folder.path().join("walferry.toml");
    let config = Config::parse(&file, &changed(from, "url_file = \"url\""), []).unwrap();
    let expected = json!({"key": "source.url", "value": "postgres://u:***@h/db", "origin": "url_file", "path": "url"});
    assert!(effective(&config).contains(&expected));
}

#[test]
fn a_file_that_is_no_toml_is_named() {
    let error = parse("[source\nurl = 1", &[]).unwrap_err();
    assert!(matches!(error, ConfigError::Syntax { .. }));
    assert!(
        error.to_string().contains("walferry.toml as TOML"),
        "{error}"
    );
}

fn changes(from: &str, to: &str) -> Changes {
    Changes::take(&mut parse(from, &[]).unwrap(), parse(to, &[]).unwrap())
}

#[test]
fn a_secret_that_changes_is_told_by_its_key_alone() {
    let with = |secret: &str| {
        let properties = format!("properties = {{ \"sasl.password\" = \"{secret}\" }}\n[sink]");
        changed("[sink]", &properties).replacen("s3cret", secret, 1)
    };
    let changes = changes(&with("one"), &with("two"));
    assert!(changes.live.is_empty(), "{changes:?}");
    let keys = ["kafka.properties.\"sasl.password\"", "source.url"];
    assert_eq!(changes.waiting, keys);
}

#[test]
fn a_section_that_goes_is_named_as_one_and_what_is_stated_as_its_default_is_no_change() {
    let (before, rest) = RETAIL.split_once("[kafka]").unwrap();
    let (_, after) = rest.split_once("[sink]").unwrap();
    let direct = format!("{before}[sink]{after}");
    assert_eq!(changes(RETAIL, &direct).waiting, ["kafka"]);
    assert_eq!(changes(&direct, RETAIL).waiting, ["kafka"]);
    let stated = changed("[sink]", "[sink]\ngroup_rows = 20_000");
    assert_eq!(changes(RETAIL, &stated), Changes::default());
}

#[test]
fn what_is_taken_over_is_not_told_again() {
    let mut running = parse(RETAIL, &[]).unwrap();
    let newer = changed(
        "[sink]",
        "[telemetry]\nlog = \"warn\"\n[sink]\ngroup_rows = 5",
    );
    let read = || parse(&newer, &[]).unwrap();
    let changes = Changes::take(&mut running, read());
    assert_eq!(changes.live, ["sink.group_rows", "telemetry.log"]);
    assert_eq!(
        (running.sink.group_rows, running.telemetry.log.is_some()),
        (5, true)
    );
    assert_eq!(Changes::take(&mut running, read()), Changes::default());
}

#[test]
fn a_log_filter_is_a_level_or_names_modules() {
    let log = |value: &str| {
        let text = changed("[sink]", &format!("[telemetry]\nlog = {value:?}\n[sink]"));
        parse(&text, &[]).map(|config| config.telemetry.log.unwrap().filter().to_string())
    };
    assert_eq!(log("debug").unwrap(), "walferry=debug,warn");
    assert_eq!(
        log("info,walferry::apply=trace").unwrap(),
        "walferry::apply=trace,info"
    );
    for mistaken in ["loud", "", "walferry=loud"] {
        assert!(log(mistaken).is_err(), "{mistaken}");
    }
}

#[test]
fn a_collector_is_an_address_without_a_secret() {
    let otlp = |value: &str| {
        let text = changed("[sink]", &format!("[telemetry]\notlp = {value:?}\n[sink]"));
        parse(&text, &[]).map(|config| config.telemetry.otlp.unwrap())
    };
    for (value, address, is_safe) in [
        ("http://collector:4318/", "http://collector:4318", false),
        ("http://[::1]:4318", "http://[::1]:4318", false),
        ("https://collector/", "https://collector", true),
    ] {
        let collector = otlp(value).unwrap();
        assert_eq!(
            (&*collector.address, collector.is_safe()),
            (address, is_safe)
        );
        assert_eq!(collector.authorities, None);
    }
    for mistaken in [
        "collector:4318",
        "ftp://c:4318",
        "http://",
        "https://",
        "http://u:p@c:4318",
        "https://c:4318/v1",
    ] {
        let error = otlp(mistaken).unwrap_err().to_string();
        assert!(
            error.contains("telemetry.otlp: must be an address like"),
            "{error}"
        );
    }
}

#[test]
fn the_authority_of_a_collector_stands_in_a_file_that_is_read_with_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("empty.pem"), "").unwrap();
    let file = folder.path().join("walferry.toml");
    let with = |otlp: &str, ca_file: &str| {
        let section = format!("[telemetry]\n{otlp}\nca_file = {ca_file:?}\n[sink]");
        Config::parse(&file, &changed("[sink]", &section), [])
    };
    let safe = "otlp = \"https://c:4318\"";
    let not_safe = "telemetry.ca_file: is for an otlp that begins with https://";
    let cases = [
        (
            safe,
            "none.pem",
            "telemetry.ca_file: reading none.pem: No such file",
        ),
        (
            safe,
            "empty.pem",
            "telemetry.ca_file: reading empty.pem: it holds no certificate",
        ),
        ("otlp = \"http://c:4318\"", "empty.pem", not_safe),
        ("", "empty.pem", not_safe),
    ];
    for (otlp, ca_file, expected) in cases {
        let error = with(otlp, ca_file).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let authority = walferry_harness::Authority::new(folder.path(), "authority").unwrap();
    let name = authority.file().file_name().unwrap().to_str().unwrap();
    let collector = with(safe, name).unwrap().telemetry.otlp.unwrap();
    assert_eq!(collector.authorities.map(|it| it.len()), Some(1));
}

#[test]
fn a_password_of_kafka_may_stand_in_a_file_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name, text| std::fs::write(folder.path().join(name), text).unwrap();
    write("password", "s3cret \n");
    write("lines", "one\ntwo\n");
    let file = folder.path().join("walferry.toml");
    let with =
        |keys: &str| Config::parse(&file, &changed("[sink]", &format!("{keys}\n[sink]")), []);
    let config = with("sasl_password_file = \"password\"").unwrap();
    let properties = &config.kafka.as_ref().unwrap().properties;
    assert_eq!(properties.0["sasl.password"], "s3cret ");
    let expected = json!({"key": "kafka.properties.\"sasl.password\"", "value": "***", "origin": "secret_file", "path": "password"});
    assert!(effective(&config).contains(&expected));
    assert!(!format!("{config:?}").contains("s3cret "));
    let config = with("ssl_key_password_file = \"password\"").unwrap();
    assert_eq!(
        config.kafka.unwrap().properties.0["ssl.key.password"],
        "s3cret "
    );

    let both = "sasl_password_file = \"password\"\nproperties = { \"sasl.password\" = \"x\" }";
    for (keys, mistake) in [
        (
            both,
            "is given beside \"sasl.password\": one of them must go",
        ),
        (
            "sasl_password_file = \"missing\"",
            "reading missing: No such file",
        ),
        ("sasl_password_file = \"lines\"", "lines must hold one line"),
    ] {
        let error = with(keys).unwrap_err().to_string();
        assert!(
            error.contains(&format!("kafka.sasl_password_file: {mistake}")),
            "{error}"
        );
    }
}

#[test]
fn a_password_that_changes_in_its_file_is_a_change_of_its_property() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("walferry.toml");
    let text = changed("[sink]", "sasl_password_file = \"password\"\n[sink]");
    let read = |password| {
        std::fs::write(folder.path().join("password"), password).unwrap();
        Config::parse(&file, &text, []).unwrap()
    };
    let changes = Changes::take(&mut read("one"), read("two"));
    assert_eq!(changes.waiting, ["kafka.properties.\"sasl.password\""]);
}

#[test]
fn rules_are_in_a_directory_beside_the_file_and_need_not_be_there() {
    assert_eq!(parse(RETAIL, &[]).unwrap().analytics, None);
    let with = |section: &str| changed("[admin]\n", &format!("{section}\n[admin]\n"));
    let text = with("[analytics]\nrules = \"etl/analytics\"");
    let config = Config::parse(Path::new("/etc/walferry/w.toml"), &text, []).unwrap();
    let analytics = config.analytics.unwrap();
    assert_eq!(analytics.rules, Path::new("/etc/walferry/etl/analytics"));
    assert_eq!((analytics.refresh, analytics.is_incremental), (None, true));
    let off = with("[analytics]\nrules = \"x\"\nrefresh = \"5s\"\nincremental = false");
    let analytics = parse(&off, &[]).unwrap().analytics.unwrap();
    assert!(!analytics.is_incremental);
    let alone = with("[analytics]\nrules = \"x\"\nincremental = true");
    let alone = problems(&alone, &[]);
    assert_eq!(
        alone,
        [
            "analytics.incremental: needs refresh beside it: what cannot be followed waits for the schedule"
        ]
    );
    let hasty = problems(&with("[analytics]\nrules = \"x\"\nrefresh = \"10ms\""), &[]);
    assert_eq!(
        hasty,
        ["analytics.refresh: must be a time of \"1s\" at least"]
    );
    let mistaken = problems(&with("[analytics]\nruels = \"x\""), &[]);
    let expected = [
        "analytics.rules: is missing",
        "analytics.ruels: no such key; [analytics] has rules, refresh, incremental",
    ];
    assert_eq!(mistaken, expected);
}

const ROLE: &str = r#"
[[role]]
name = "store_1"
[[role.read]]
tables = ["public.transactions", "inventory"]
filter = { Store_Id = 1, status = ["open", "paid"], "a.b" = true, rate = 0.5 }
[[role.read]]
collections = ["v_sales"]
columns = ["_id", "store_id"]
masks = { store_id = "hash" }
[role.read.through]
table = "stores"
by = { store_id = "store_id" }
through = { table = "regions", by = { region = "id" }, filter = { id = 7 } }
"#;

#[test]
fn a_role_is_what_it_reads() {
    let config = parse(&format!("{RETAIL}{ROLE}"), &[]).unwrap();
    let [role] = &config.roles[..] else {
        panic!("{:?}", config.roles);
    };
    let [tables, collections] = &role.reads[..] else {
        panic!("{:?}", role.reads);
    };
    let text = |it: &str| Literal::Text(it.into());
    let values = |column: &str| &tables.filter.0[column][..];
    assert_eq!(tables.tables, ["public.transactions", "inventory"]);
    assert_eq!(values("Store_Id"), [Literal::Integer(1)]);
    assert_eq!(values("status"), [text("open"), text("paid")]);
    assert_eq!(values("a.b"), [Literal::Bool(true)]);
    assert_eq!(values("rate"), [Literal::Float(0.5)]);
    assert_eq!((&tables.through, &tables.columns), (&None, &None));
    assert_eq!(collections.masks.0["store_id"], Mask::Hash);
    let through = collections.through.as_ref().unwrap();
    assert_eq!(through.by["store_id"], "store_id");
    let further = through.through.as_ref().unwrap();
    assert_eq!(further.key, "role[0].read[1].through.through");
    assert_eq!(further.filter.0["id"], [Literal::Integer(7)]);
    assert!(parse(RETAIL, &[]).unwrap().roles.is_empty());
}

#[test]
fn a_role_that_could_show_more_than_is_meant_is_a_mistake() {
    let role = |reads: &str| format!("{RETAIL}[[role]]\nname = \"r\"\n[[role.read]]\n{reads}\n");
    let cases = [
        ("filter = { a = 1 }", "tables: is missing"),
        (
            "tables = [\"t\"]\nfiltr = { a = 1 }",
            "filtr: no such key; [[role.read]] has tables, ",
        ),
        ("tables = [\"t\"]\nfilter = {}", "filter: names no column"),
        (
            "tables = [\"t\"]\nfilter = { a = [] }",
            "filter: must be columns",
        ),
        (
            "tables = [\"t\"]\nfilter = { a = { b = 1 } }",
            "filter: must be columns",
        ),
        (
            "tables = [\"t\"]\nfilter = \"a = 1\"",
            "filter: must be columns",
        ),
        ("tables = []", "tables: must be a list"),
        ("tables = [\"t\", \"t\"]", "tables: must be a list"),
        (
            "tables = [\"t\"]\nmasks = { a = \"md5\" }",
            "masks: must be one of \"hash\", ",
        ),
        (
            "tables = [\"t\"]\ncolumns = [\"a\"]\nmasks = { b = \"hash\" }",
            "masks: b is not among",
        ),
        (
            "collections = [\"t\"]\nmasks = { b = \"hash\" }",
            "masks: wants columns beside it",
        ),
        (
            "tables = [\"t\"]\nthrough = { table = \"p\", by = { a = \"a\" } }",
            "through.filter: is missing",
        ),
        (
            "tables = [\"t\"]\nthrough = { table = \"p\", by = {}, filter = { a = 1 } }",
            "through.by: names no column",
        ),
        (
            "tables = [\"t\"]\nthrough = { table = \"p\", filter = { a = 1 } }",
            "through.by: is missing",
        ),
    ];
    for (reads, expected) in cases {
        let found = problems(&role(reads), &[]);
        let expected = format!("role[0].read[0].{expected}");
        assert!(
            found.iter().any(|it| it.starts_with(&expected)),
            "{reads}: {found:?}"
        );
    }
    for name in ["a.b", "", "system", "a b", "$a"] {
        let named = role("tables = [\"t\"]").replace("name = \"r\"", &format!("name = {name:?}"));
        assert!(
            problems(&named, &[])[0].starts_with("role[0].name: must be"),
            "{name}"
        );
    }
    let twice =
        role("tables = [\"t\"]") + "[[role]]\nname = \"r\"\n[[role.read]]\ntables = [\"u\"]\n";
    assert_eq!(
        problems(&twice, &[]),
        ["role[1].name: is the name of another role: put what it reads there"]
    );
    let nothing = format!("{RETAIL}[[role]]\nname = \"r\"\n");
    assert!(problems(&nothing, &[])[0].starts_with("role[0].read: is missing"));
    let empty = format!("{nothing}read = []\n");
    assert!(problems(&empty, &[])[0].starts_with("role[0].read: is empty"));
}

#[test]
fn a_role_that_changes_waits_for_its_command_and_no_restart() {
    let with = format!("{RETAIL}{ROLE}");
    let mut running = parse(&with, &[]).unwrap();
    let newer = parse(&with.replace("Store_Id = 1", "Store_Id = 2"), &[]).unwrap();
    let roles = newer.roles.clone();
    let changes = Changes::take(&mut running, newer);
    assert_eq!(changes.access, ["role[0].read[0].filter.\"Store_Id\""]);
    assert!(changes.live.is_empty(), "{:?}", changes.live);
    assert!(changes.waiting.is_empty(), "{:?}", changes.waiting);
    assert_eq!(running.roles, roles);
}
