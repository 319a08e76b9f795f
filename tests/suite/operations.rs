//! Every command of docs/operations.md, in the order of the page, on real servers.
//!
//! - Each line of its shell blocks is run in a shell, with its paths below a directory of the test's own.
//! - What cannot be run here stands in [`ELSEWHERE`], which names nothing else.

use std::path::{Path, PathBuf};
use std::process::Command;

use bson::doc;
use mongodb::IndexModel;
use mongodb::options::IndexOptions;
use walferry_harness::{Database, Process, Signal, Stack, eventually, free_port, project_root};

use crate::admin::status;
use crate::daemon::PATIENCE;
use crate::deployment::{blocks, text};
use crate::orders::named;
use crate::site::{Said, said};
use crate::trace::commit;

/// Lines by their beginnings, and why no shell runs them here.
const ELSEWHERE: [(&str, &str); 9] = [
    (
        "cargo build --release",
        "what it builds is the binary under test",
    ),
    ("sudo systemctl daemon-reload", "there is no systemd"),
    ("sudo systemctl enable --now walferry", SYSTEMD),
    ("sudo systemctl start walferry", SYSTEMD),
    ("sudo systemctl stop walferry", SYSTEMD),
    ("sudo systemctl reload walferry", SYSTEMD),
    ("journalctl -u walferry -f", "the journal is systemd's"),
    (
        "walferry() { sudo systemd-run ",
        "systemd would run it; here every shell has the variables",
    ),
    (
        "kafka-acls.sh ",
        "`acls` runs them, on a broker that has ACLs",
    ),
];
const SYSTEMD: &str = "there is no systemd: the test does what the unit says";

const SCHEMA: &str = "
    create table transactions (id int primary key);
    create table transactiondetails (id int primary key);
    create table inventory (store_id int, product_id int, inventory_level int, primary key (store_id, product_id));
    create table products (id int primary key, name text);
    insert into inventory values (5, 101, 43), (5, 102, 7);
    insert into products values (101, 'tea');
    create publication walmart_publication for all tables";

/// A machine that the page is followed on.
struct Machine {
    database: Database,
    sql: tokio_postgres::Client,
    mongo: mongodb::Database,
    port: u16,
    /// Stands for `/`.
    root: tempfile::TempDir,
    daemon: Option<Process>,
}

// === impl Machine ===

impl Machine {
    async fn new() -> Self {
        let database = Stack::shared().await.unwrap();
        let database = database.fresh_database("operations").await.unwrap();
        let machine = Self {
            sql: database.sql().await.unwrap(),
            mongo: database.mongo().await.unwrap(),
            port: free_port().unwrap(),
            root: tempfile::tempdir().unwrap(),
            daemon: None,
            database,
        };
        machine.sql.batch_execute(SCHEMA).await.unwrap();
        machine.furnish();
        machine
    }

    /// What stands on the machine before the page begins: the checkout, and what its operator wrote.
    fn furnish(&self) {
        for directory in [
            "checkout/target/release",
            "etc/systemd/system",
            "shims",
            "usr/local/bin",
            "usr/share/bash-completion/completions",
        ] {
            std::fs::create_dir_all(self.path(directory)).unwrap();
        }
        let link = |from: &Path, to| std::os::unix::fs::symlink(from, self.path(to)).unwrap();
        let binary = Path::new(env!("CARGO_BIN_EXE_walferry"));
        link(binary, "checkout/target/release/walferry");
        link(&project_root().join("docs"), "checkout/docs");
        link(Path::new("/usr/bin/env"), "shims/sudo");
        self.write("checkout/walferry.toml", &self.config());
        let Database {
            postgres_url,
            mongo_url,
            ..
        } = &self.database;
        let secrets =
            format!("WALFERRY__SOURCE__URL={postgres_url}\nWALFERRY__SINK__URL={mongo_url}\n");
        self.write("checkout/walferry.env", &secrets);
    }

    /// The README's configuration with what the page adds to it, under the test's names.
    fn config(&self) -> String {
        let blocks = ["README.md", "docs/operations.md"].map(|page| blocks(&text(page), "toml"));
        let name = &self.database.name;
        blocks
            .concat()
            .concat()
            .replace("walmart_slot", name)
            .replace("\"walmartdb\"", &format!("{name:?}"))
            .replace("walmart_realtime", name)
            .replace("localhost:9092", &self.database.brokers)
            .replace("9187", &self.port.to_string())
            .replace("[sink]\n", "[sink]\non_poison = \"stop\"\n")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.path(path), text).unwrap();
    }

    /// A path of the machine's as one of this directory.
    fn below(&self, line: &str) -> String {
        let root = self.root.path().display();
        line.replace("/etc/", &format!("{root}/etc/"))
            .replace("/usr/", &format!("{root}/usr/"))
    }

    /// A shell with this line, and with the service's variables; `before` runs it.
    fn shell(&self, before: &[&str], line: &str) -> Command {
        let mut words = before.iter().chain(&["bash", "-o", "pipefail", "-c"]);
        let mut shell = Command::new(words.next().unwrap());
        shell.args(words).arg(self.below(line));
        shell.current_dir(self.path("checkout"));
        let [own, shims] = ["usr/local/bin", "shims"].map(|it| self.path(it));
        let path = format!("{}:{}:/usr/bin:/bin", own.display(), shims.display());
        shell.env("PATH", path).env_remove("WALFERRY_CONFIG");
        let variables = std::fs::read_to_string(self.path("checkout/walferry.env")).unwrap();
        shell.envs(variables.lines().map(|it| it.split_once('=').unwrap()));
        shell
    }

    /// Runs a line to its end, which has to come.
    async fn run(&self, line: &str) -> Said {
        said(self.shell(&["timeout", "300"], line)).await
    }

    /// Runs a line, which has to succeed.
    async fn succeeds(&self, line: &str) -> String {
        let Said { code, out, err } = self.run(line).await;
        assert_eq!(code, Some(0), "{line}\n{out}{err}\n{}", self.log());
        out
    }

    /// The same once the pipeline has come so far.
    async fn succeeds_at_last(&self, line: &str) {
        let attempt = async || match self.run(line).await {
            Said { code: Some(0), .. } => Ok(()),
            Said { code, out, err } => Err(format!("{code:?}: {out}{err}")),
        };
        let done = eventually(PATIENCE, line, attempt).await;
        done.unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
    }

    /// Follows one line of the page.
    async fn follow(&mut self, line: &str) {
        if let Some(order) = line.strip_prefix("sudo systemctl ") {
            return self.systemd(order).await;
        }
        if is_elsewhere(line) {
            return;
        }
        let command = line.strip_prefix("walferry ").unwrap_or_default();
        match command.split(' ').next().unwrap_or_default() {
            "run" => self.new_snapshot(line).await,
            "skip" => self.skip(line).await,
            "trace" => self.trace(line).await,
            "move" => self.move_over(line).await,
            "verify" => self.succeeds_at_last(line).await,
            _ => {
                let said = self.succeeds(line).await;
                let expected = answer(command);
                assert!(said.contains(expected), "{expected} in {line}:\n{said}");
            }
        }
    }

    /// What systemd does with the unit that the page installs.
    async fn systemd(&mut self, order: &str) {
        match order {
            "enable --now walferry" | "start walferry" => self.start().await,
            "stop walferry" => self.stop().await,
            "reload walferry" => self.reload().await,
            _ => assert_eq!(order, "daemon-reload"),
        }
    }

    async fn start(&mut self) {
        let unit = std::fs::read_to_string(self.path("etc/systemd/system/walferry.service"));
        let unit = unit.unwrap();
        let mut lines = unit.lines();
        let starts = lines.find_map(|it| it.strip_prefix("ExecStart=")).unwrap();
        let daemon = self.shell(&[], &format!("exec {starts}"));
        self.daemon = Some(Process::spawn(&daemon, &self.path("journal")).unwrap());
        self.is("live").await;
    }

    async fn stop(&mut self) {
        let Some(daemon) = self.daemon.take() else {
            return;
        };
        let ended = daemon.stop(Signal::TERM, PATIENCE).await.unwrap();
        assert_eq!(ended.code(), Some(0), "{}", self.log());
    }

    /// Has the daemon read a file that says something new, and waits until it has.
    async fn reload(&self) {
        let file = std::fs::read_to_string(self.path("etc/walferry/walferry.toml")).unwrap();
        let changed = file.replace("[sink]\n", "[sink]\ngroup_rows = 77\n");
        self.write("etc/walferry/walferry.toml", &changed);
        self.daemon.as_ref().unwrap().signal(Signal::HUP);
        let taken = serde_json::json!(["sink.group_rows"]);
        let attempt = async || match status(self.port).await?["reloaded"].take() {
            reloaded if reloaded["taken"] == taken => Ok(()),
            reloaded => Err(reloaded.to_string()),
        };
        let read = eventually(PATIENCE, "the configuration to be read", attempt).await;
        read.unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
    }

    async fn is(&self, state: &str) {
        let attempt = async || match status(self.port).await? {
            status if status["state"] == state => Ok(()),
            status => Err(status.to_string()),
        };
        let is = eventually(PATIENCE, state, attempt).await;
        is.unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
    }

    /// Begins a new snapshot, leaves with Ctrl-C where the page says so, and starts the service again.
    async fn new_snapshot(&mut self, line: &str) {
        let page = text("docs/operations.md");
        assert!(page.contains("Once the log says `swapped in`, stop it with Ctrl-C"));
        let log = self.path("snapshot.log");
        let shell = self.shell(&[], &format!("exec {line}"));
        let run = Process::spawn(&shell, &log).unwrap();
        let said = || std::fs::read_to_string(&log).unwrap();
        let attempt = async || said().contains("swapped in").then_some(()).ok_or_else(said);
        eventually(PATIENCE, "the swap", attempt).await.unwrap();
        let ended = run.stop(Signal::INT, PATIENCE).await.unwrap();
        assert_eq!(ended.code(), Some(0), "{}", said());
        self.start().await;
    }

    /// Has a transaction fail, passes over it, and makes its row nobody's.
    async fn skip(&mut self, line: &str) {
        let options = IndexOptions::builder().unique(true).build();
        let keys = doc! { "inventory_level": 1 };
        let index = IndexModel::builder().keys(keys).options(options).build();
        let inventory = self.mongo.collection::<bson::Document>("inventory");
        inventory.create_index(index).await.unwrap();
        self.execute("insert into inventory values (6, 101, 43)")
            .await;
        let daemon = self.daemon.take().unwrap();
        let ended = daemon.wait(PATIENCE).await.unwrap();
        assert_eq!(ended.code(), Some(1), "{}", self.log());
        let commit = named(&self.log());
        let said = self
            .succeeds(&put(line, "1731888000/16/B374D848", &commit))
            .await;
        assert!(said.contains(answer("skip")), "{said}");
        self.execute("delete from inventory where store_id = 6")
            .await;
    }

    async fn trace(&self, line: &str) {
        let update = "update inventory set inventory_level = 44 where product_id = 101";
        let lsn = commit(&self.sql, update).await;
        self.succeeds_at_last(&line.replace("0/1A2B3C4", &lsn))
            .await;
    }

    /// Moves the stopped pipeline, with the section of Kafka there; out of it the page then starts without the section.
    async fn move_over(&mut self, line: &str) {
        let file = "etc/walferry/walferry.toml";
        let config = self.config();
        self.write(file, &config);
        let said = self.succeeds(line).await;
        assert!(said.contains(answer("move")), "{said}");
        if line.contains("--to direct") {
            let (before, rest) = config.split_once("[kafka]").unwrap();
            let (_, after) = rest.split_once("[sink]").unwrap();
            self.write(file, &format!("{before}[sink]{after}"));
            self.start().await;
            assert_eq!(status(self.port).await.unwrap()["way"], "direct");
        }
    }

    async fn execute(&self, sql: &str) {
        self.sql.batch_execute(sql).await.unwrap();
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.path("journal")).unwrap_or_default()
    }
}

/// A line with one of the page's values replaced, which has to be there.
fn put(line: &str, example: &str, value: &str) -> String {
    assert!(line.contains(example), "{example} in {line}");
    line.replace(example, value)
}

/// What a command answers, at least.
fn answer(command: &str) -> &'static str {
    match command.split(' ').next().unwrap_or_default() {
        "backfill" => "public.products",
        "check" => "PASS  PostgreSQL: ",
        "config" => "[source]\n",
        "move" => "moved",
        "pause" => "paused within a second",
        "resume" => "goes on within a second",
        "skip" => "will be passed over",
        "status" => "MongoDB is ",
        "version" => "(format 1)",
        _ => "",
    }
}

fn is_elsewhere(line: &str) -> bool {
    ELSEWHERE.iter().any(|(begins, _)| line.starts_with(begins))
}

/// The lines of the page's shell blocks; one that goes on over the end of its own is one.
fn lines() -> Vec<String> {
    let blocks = blocks(&text("docs/operations.md"), "sh");
    let joined = blocks.iter().map(|it| it.replace("\\\n", ""));
    let lines = joined.flat_map(|it| it.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_operations_page_does_what_it_says() {
    let mut machine = Machine::new().await;
    for line in lines() {
        machine.follow(&line).await;
    }
    machine.stop().await;
    for installed in [
        "usr/local/share/man/man1/walferry-run.1",
        "usr/share/bash-completion/completions/walferry",
    ] {
        let length = std::fs::metadata(machine.path(installed)).unwrap().len();
        assert!(length > 0, "{installed}");
    }
}

#[test]
fn the_page_has_every_line_that_is_not_run_and_no_command_in_another_language() {
    let lines = lines();
    for (begins, why) in ELSEWHERE {
        let is_there = lines.iter().any(|line| line.starts_with(begins));
        assert!(is_there, "{begins} ({why}) is gone from the page");
    }
    // SQL and JavaScript are run by `grants`; the rest is no command.
    let known = ["sh", "sql", "js", "toml", "text"];
    let page = text("docs/operations.md");
    let fences = page.lines().filter_map(|line| line.strip_prefix("```"));
    for language in fences.step_by(2) {
        assert!(known.contains(&language), "a block of {language:?}");
    }
}
