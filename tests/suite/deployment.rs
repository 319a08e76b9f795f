//! What an operator deploys: the containers, the service, and what the pages say to run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{CommandFactory, Parser};
use serde::Deserialize;
use walferry::cli::{Cli, Exit};
use walferry::config::Config;
use walferry_harness::{
    Postgres, PostgresOptions, Stack, fresh_directory, postgres_program, project_root, unique,
};

use crate::site::{binary, said};

const PAGES: [&str; 2] = ["README.md", "docs/operations.md"];

/// What these tests look at in `docker-compose.yml`; `make lint` holds all of it against the
/// specification's schema.
#[derive(Deserialize)]
struct Compose {
    services: BTreeMap<String, Service>,
    volumes: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Service {
    image: String,
    build: Option<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    #[serde(default)]
    command: Vec<String>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    depends_on: BTreeMap<String, Dependency>,
    healthcheck: Option<serde_json::Value>,
    #[serde(default)]
    read_only: bool,
}

#[derive(Deserialize)]
struct Dependency {
    condition: String,
}

// === impl Compose ===

impl Compose {
    fn read() -> Self {
        serde_saphyr::from_str(&text("docker-compose.yml")).unwrap()
    }
}

#[test]
fn every_image_is_pinned_and_what_walferry_waits_for_has_a_health_check() {
    let compose = Compose::read();
    for (name, service) in &compose.services {
        let version = service.image.split_once(':').map(|(_, version)| version);
        let is_pinned = version.is_some_and(|it| it.contains('.'));
        assert!(is_pinned || service.build.is_some(), "{}", service.image);
        for (other, dependency) in &service.depends_on {
            assert_eq!(dependency.condition, "service_healthy", "{name} on {other}");
            assert!(compose.services[other].healthcheck.is_some(), "{other}");
        }
    }
    let walferry = &compose.services["walferry"];
    assert_eq!(walferry.depends_on.len(), 3);
    assert!(walferry.read_only);
    let tested = text("scripts/kafka/pom.xml");
    let (_, kafka) = compose.services["kafka"].image.split_once(':').unwrap();
    assert!(
        tested.contains(&format!("<kafka.version>{kafka}<")),
        "{kafka}"
    );
}

#[tokio::test]
async fn the_containers_mount_files_that_are_there_and_a_configuration_that_can_be_used() {
    let compose = Compose::read();
    for service in compose.services.values() {
        let mounted = service.volumes.iter().filter_map(|it| it.split_once(':'));
        for (path, _) in mounted.filter(|(path, _)| path.starts_with("./")) {
            assert!(project_root().join(path).exists(), "{path}");
        }
    }
    let mut config = binary();
    config.args(["config", "--config", "docs/deploy/walferry.toml"]);
    config.current_dir(project_root());
    config.envs(&compose.services["walferry"].environment);
    let said = said(config).await;
    assert_eq!(said.code, Some(0), "{}", said.err);
    for name in ["postgres", "kafka", "mongodb"] {
        let host = format!("{name}:");
        assert!(said.out.contains(&host), "{host} in\n{}", said.out);
    }
}

#[test]
fn the_container_reads_and_writes_where_its_image_does_and_is_asked_where_it_listens() {
    let compose = Compose::read();
    let walferry = &compose.services["walferry"];
    let dockerfile = text("Dockerfile");
    let environment = dockerfile.lines().find_map(|it| it.strip_prefix("ENV "));
    let environment: BTreeMap<_, _> = environment
        .unwrap()
        .split(' ')
        .filter_map(|it| it.split_once('='))
        .collect();
    let mounted = |place: &str| {
        let volumes = walferry.volumes.iter().filter_map(|it| it.split_once(':'));
        let at = |(_, target): &(&str, &str)| target.split(':').next() == Some(place);
        volumes.clone().find(at).expect(place).0.to_owned()
    };
    let file = mounted(environment["WALFERRY_CONFIG"]);
    // What a large row is put into: writable, though the root is not.
    let spool = environment["TMPDIR"];
    assert!(compose.volumes.contains_key(&mounted(spool)), "{spool}");
    let is_made = format!("--owner=65532 --group=65532 {spool}\n");
    assert!(dockerfile.contains(&is_made), "{is_made}");

    let url = ("WALFERRY__SOURCE__URL", "postgres://localhost/walmart");
    let url = (url.0.to_owned(), url.1.to_owned());
    let config = Config::parse(Path::new(&file), &text(&file), [url]).unwrap();
    let listen = config.admin.listen.unwrap();
    assert!(listen.ip().is_unspecified(), "{listen}");
    let published = format!("127.0.0.1:{0}:{0}", listen.port());
    assert_eq!(walferry.ports, [published]);
    let check = walferry.healthcheck.as_ref().unwrap()["test"].clone();
    let check: Vec<String> = serde_json::from_value(check).unwrap();
    let run: Vec<_> = ["walferry".to_owned()]
        .into_iter()
        .chain(walferry.command.clone())
        .collect();
    for command in [&check[1..], &run] {
        assert!(Cli::try_parse_from(command).is_ok(), "{command:?}");
    }

    let kafka = config.kafka.unwrap().brokers;
    let advertised = &compose.services["kafka"].environment["KAFKA_ADVERTISED_LISTENERS"];
    assert!(
        advertised.contains(&format!("://{kafka},")),
        "{kafka} of {advertised}"
    );
    let replica_set = compose.services["mongodb"].command[2].clone();
    let named = format!("?replicaSet={replica_set}");
    assert!(config.sink.url.expose().ends_with(&named), "{named}");
}

#[tokio::test]
async fn the_binary_needs_no_library_that_the_image_does_not_have() {
    // glibc and gcc's are in Debian's smallest image; the packages of the others are named.
    let debian = ["linux-vdso", "libc", "libm", "libgcc_s"];
    let packages = [
        ("libssl", "libssl3t64"),
        ("libcrypto", "libssl3t64"),
        ("libz", "zlib1g"),
    ];
    let dockerfile = text("Dockerfile");
    let image = dockerfile.rsplit_once("\nFROM ").unwrap().1;
    let mut ldd = Command::new("ldd");
    ldd.arg(env!("CARGO_BIN_EXE_walferry"));
    let needed = said(ldd).await.out;
    let files = needed.lines().filter_map(|it| it.split_whitespace().next());
    for file in files.filter_map(|it| it.rsplit('/').next()) {
        let name = file.split(".so").next().unwrap_or_default();
        let is_debians = debian.contains(&name) || name.starts_with("ld-linux");
        let package = packages.iter().find(|(library, _)| *library == name);
        let is_there = package.is_some_and(|(_, package)| image.contains(package));
        assert!(is_debians || is_there, "{file} in\n{image}");
    }
    assert!(needed.contains("libssl"), "{needed}");
}

#[test]
fn the_configuration_of_the_readme_can_be_used() {
    let [config] = &blocks(&text("README.md"), "toml")[..] else {
        panic!("one block of TOML");
    };
    let parsed = Config::parse(Path::new("README.md"), config, []);
    assert!(parsed.is_ok(), "{}", parsed.unwrap_err());
}

#[test]
fn the_image_is_built_with_the_workspaces_rust_and_runs_without_root() {
    let (dockerfile, manifest) = (text("Dockerfile"), text("Cargo.toml"));
    let rust = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .unwrap();
    let from = format!("FROM rust:{}-", rust.trim_matches('"'));
    assert!(dockerfile.contains(&from), "{from}");
    assert!(dockerfile.contains("\nUSER 65532:65532\n"));
    assert!(!text(".dockerignore").contains("\n.cargo"));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_in_its_container_begins_with_what_walferry_needs() {
    let root = fresh_directory("container").unwrap();
    // A server of its own: the role is the whole server's, and its password counts here.
    let options = PostgresOptions {
        hba: vec!["host all walferry 127.0.0.1/32 scram-sha-256".into()],
        ..PostgresOptions::default()
    };
    let postgres = Postgres::start_with(root.path(), options).await.unwrap();
    let retail = format!("\\i {}/schema/retail/", project_root().display());
    let script = text("docs/deploy/postgres.sql").replace("\\i /retail/", &retail);
    let file = root.path().join("walferry.sql");
    std::fs::write(&file, script).unwrap();
    let mut psql = Command::new(postgres_program("psql").unwrap());
    psql.args(["--no-psqlrc", "--set=ON_ERROR_STOP=1", "--file"]);
    psql.arg(file)
        .arg(postgres.url())
        .env("WALFERRY_PASSWORD", "it's secret");
    let initialised = said(psql).await;
    assert_eq!(initialised.code, Some(0), "{}", initialised.err);

    let mongo = Stack::shared().await.unwrap().mongo.url();
    let source = postgres
        .url()
        .replace("postgres@", "walferry:it%27s%20secret@");
    let mut load = binary();
    load.args([
        "backfill",
        "--json",
        "--config",
        "docs/deploy/walferry.toml",
    ]);
    load.current_dir(project_root());
    load.env("WALFERRY__SOURCE__URL", source);
    load.env("WALFERRY__SINK__URL", mongo);
    load.env("WALFERRY__SINK__DATABASE", unique("container"));
    let loaded = said(load).await;
    assert_eq!(loaded.code, Some(0), "{}", loaded.err);
    assert!(loaded.out.contains("\"rows\":3"), "{}", loaded.out);
}

#[test]
fn the_service_is_reloaded_by_sighup_and_not_restarted_where_that_cannot_help() {
    let service = text("docs/deploy/walferry.service");
    let codes = [Exit::Usage, Exit::Fenced].map(|exit| (exit as u8).to_string());
    let expected = format!("\nRestartPreventExitStatus={}\n", codes.join(" "));
    assert!(service.contains(&expected), "{expected}");
    assert!(service.contains("\nExecReload=/bin/kill -HUP $MAINPID\n"));
}

#[tokio::test]
async fn systemd_takes_the_service() {
    // A container may lack systemd; then the other test has to do.
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("walferry.service");
    let service = text("docs/deploy/walferry.service");
    let installed = "/usr/local/bin/walferry";
    assert!(service.contains(&format!("ExecStart={installed} run ")));
    std::fs::write(
        &file,
        service.replace(installed, env!("CARGO_BIN_EXE_walferry")),
    )
    .unwrap();
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]).arg(&file);
    let said = said(verify).await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
}

#[test]
fn every_walferry_command_of_the_pages_and_of_the_help_can_be_parsed() {
    let mut examples: Vec<_> = PAGES
        .iter()
        .flat_map(|page| blocks(&text(page), "sh"))
        .collect();
    let helps = Cli::command();
    let helps = helps.get_subcommands().map(|it| it.get_after_long_help());
    examples.extend(helps.flatten().map(ToString::to_string));
    let joined = examples.iter().map(|it| {
        let pieces = it.split("\\\n").map(str::trim_start);
        pieces.collect::<String>()
    });
    let examples: Vec<_> = joined.collect();
    let lines = examples.iter().flat_map(|it| it.lines());
    let commands: Vec<_> = lines.filter_map(arguments).collect();
    for command in &commands {
        let parsed = Cli::try_parse_from(command);
        assert!(parsed.is_ok(), "{command:?}: {}", parsed.unwrap_err());
    }
    assert!(commands.len() > 20, "{commands:?}");
}

/// The arguments of a line that runs walferry, without what follows it: a comment, a pipe.
fn arguments(line: &str) -> Option<Vec<&str>> {
    let ends = |text: &str| {
        text.find(['#', '|', '>'])
            .into_iter()
            .chain(text.find("    "))
            .min()
    };
    let line = line.trim();
    let command = &line[..ends(line).unwrap_or(line.len())];
    let stands_before = |word: &&str| *word == "sudo" || word.contains('=');
    // What stands between quotes is one word.
    let parts = command.split('"').enumerate();
    let words = parts.flat_map(|(index, part)| match index % 2 {
        0 => part.split_whitespace().collect(),
        _ => vec![part],
    });
    let words: Vec<_> = words.skip_while(stands_before).collect();
    (words.first() == Some(&"walferry")).then_some(words)
}

/// The code blocks of a page in one language.
pub(crate) fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    let begun = page.split(&fence).skip(1);
    begun
        .filter_map(|rest| Some(rest.split_once("```")?.0.to_owned()))
        .collect()
}

/// A file of the repository.
pub(crate) fn text(path: &str) -> String {
    let path: PathBuf = project_root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
