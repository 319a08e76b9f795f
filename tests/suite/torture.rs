//! Sustained load under kills: nothing is lost, nothing doubled, and no half of a transaction is seen.
//!
//! - Every source commit keeps the invariants of [`SCHEMA`]; a reader with snapshot read concern
//!   holds them against MongoDB all the while.
//! - The daemon, where it is two processes also each of them alone, and each of the servers on the way are
//!   killed with SIGKILL under load, in seeded order: the short form kills each once, the long form
//!   goes on for at least [`LONG_KILLS`] kills.
//! - MongoDB's own oplog proves that each transaction was applied once, in the order of the source,
//!   and the sink met no document that was not as the transaction expected it.
//!
//! `WALFERRY_SEED` chooses another run, `WALFERRY_TORTURE_SECONDS` a longer one (`make torture`), `WALFERRY_PATH`
//! the way of the changes.

mod landings;
mod oplog;
mod reader;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use bson::{Document, doc};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;
use walferry_harness::{Database, Process, Stack, eventually};

use crate::daemon::{Daemon, Half, PATIENCE, Pipeline, Route};
use crate::workload;
use reader::Reader;
use writer::{Progress, Writer};

/// Σ left + Σ sold is constant for each product, `headers.lines` counts its details, and each writer
/// numbers its history without a gap.
const SCHEMA: &str = "
    create table stock (product int primary key, \"left\" int8 not null);
    create table sold (product int primary key, quantity int8 not null);
    create table headers (id int8 primary key, lines int not null);
    create table details (header int8, line int, note text, primary key (header, line));
    create table history (writer int, n int8, primary key (writer, n));
    insert into stock select p, 1000 from generate_series(1, 30) p;
    insert into sold select p, 0 from generate_series(1, 30) p;
";
const PRODUCTS: i32 = 30;
const PER_PRODUCT: i64 = 1000;
const TABLES: [&str; 5] = ["stock", "sold", "headers", "details", "history"];
/// Two writers keep the invariants, one runs the random workload.
const WRITERS: [i32; 3] = [1, 2, 3];

/// The least that the long form kills.
const LONG_KILLS: usize = 20;
/// How soon after a restart changes go on, in the middle of the long form's.
const USUAL_PAUSE: Duration = Duration::from_secs(2);
/// And after each of them: what waits for a session or a lock of whoever was killed waits for a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(50);

/// What a run consists of.
struct Plan {
    seed: u64,
    /// Goes on until then; the short form ends after one round of kills.
    long: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum Victim {
    /// All its processes at once.
    Daemon,
    Half(Half),
    Kafka,
    Mongo,
    Postgres,
}

/// All that runs.
struct Torture {
    stack: Stack,
    database: Database,
    pipeline: Pipeline,
    daemon: Daemon,
    progress: Arc<Progress>,
    reader: Arc<Reader>,
    /// The servers' directory, removed last.
    _root: tempfile::TempDir,
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_under_load_lose_nothing_double_nothing_and_show_no_half() {
    let plan = Plan::from_environment();
    let mut random = ChaCha8Rng::seed_from_u64(plan.seed);
    let mut torture = Torture::start().await;
    let writers = WRITERS.map(|number| {
        let writer = Writer::new(&torture.database, plan.seed, number, plan.giant());
        tokio::task::spawn(writer.run(Arc::clone(&torture.progress)))
    });
    let reading = tokio::task::spawn(Arc::clone(&torture.reader).run());

    let under_load = torture.rounds(&plan, &mut random).await;
    torture.let_some_pass(&mut random).await;
    let mut at_rest = Vec::new();
    if plan.long.is_some() {
        at_rest = torture.restarts_at_rest(&plan).await;
    }

    torture.progress.stop();
    for writer in writers {
        writer.await.unwrap();
    }
    torture.check_equal(plan.patience()).await;
    torture.reader.stop();
    reading.await.unwrap();
    torture.check_history().await;
    assert!(torture.daemon.stop().await.success());
    plan.check("under load", under_load);
    if plan.long.is_some() {
        plan.check("at rest", at_rest);
    }
}

// === impl Plan ===

impl Plan {
    fn from_environment() -> Self {
        let number = |name| {
            let given = std::env::var(name).ok();
            given.map(|text| {
                text.parse()
                    .unwrap_or_else(|_| panic!("{name} is a number"))
            })
        };
        Self {
            seed: number("WALFERRY_SEED").unwrap_or(100),
            long: number("WALFERRY_TORTURE_SECONDS").map(Duration::from_secs),
        }
    }

    /// Rows of the largest transactions.
    fn giant(&self) -> i32 {
        if self.long.is_some() { 20_000 } else { 2_000 }
    }

    /// Whether there is to be another round of kills.
    fn goes_on(&self, kills: usize, elapsed: Duration) -> bool {
        match self.long {
            None => kills == 0,
            Some(long) => kills < LONG_KILLS || elapsed < long,
        }
    }

    /// Says how soon changes went on, and in the long form that it was soon enough: a short one has too few restarts,
    /// and too many neighbours, for a time to mean anything.
    fn check(&self, when: &str, mut pauses: Vec<Duration>) {
        pauses.sort();
        let (middle, longest) = (pauses[pauses.len() / 2], pauses[pauses.len() - 1]);
        eprintln!(
            "torture: {} kills {when}, restart to first change: median {middle:.2?}, longest {longest:.2?}",
            pauses.len(),
        );
        let is_soon = middle < USUAL_PAUSE && longest < LONGEST_PAUSE;
        assert!(self.long.is_none() || is_soon, "{pauses:?}");
    }

    /// How long the last backlog may take.
    fn patience(&self) -> Duration {
        self.long.map_or(PATIENCE, |long| PATIENCE + long)
    }
}

// === impl Victim ===

impl Victim {
    /// Whatever runs on this route.
    fn all(route: Route) -> Vec<Self> {
        let mut all = vec![Self::Daemon, Self::Mongo, Self::Postgres];
        if route != Route::Direct {
            all.push(Self::Kafka);
        }
        if route == Route::Split {
            all.extend([Half::Reader, Half::Sink].map(Self::Half));
        }
        all
    }
}

// === impl Torture ===

impl Torture {
    async fn start() -> Self {
        let root = walferry_harness::fresh_directory("torture").unwrap();
        let stack = Stack::start(root.path()).await.unwrap();
        let database = stack.fresh_database("torture").await.unwrap();
        let schema = format!("{SCHEMA}; {}", workload::SCHEMA);
        let pipeline = Pipeline::over(database.clone(), &schema, "public.*").await;
        let daemon = pipeline.start();
        pipeline.equal(&TABLES).await;
        let progress = Arc::<Progress>::default();
        let reader = Reader::new(pipeline.mongo.clone(), Arc::clone(&progress));
        Self {
            stack,
            database,
            pipeline,
            daemon,
            progress,
            reader: Arc::new(reader),
            _root: root,
        }
    }

    /// Kills everything in turn, as often as planned: how long it took each time until changes went on.
    async fn rounds(&mut self, plan: &Plan, random: &mut ChaCha8Rng) -> Vec<Duration> {
        let begun = Instant::now();
        let mut pauses = Vec::new();
        while plan.goes_on(pauses.len(), begun.elapsed()) {
            let mut victims = Victim::all(self.pipeline.route);
            victims.shuffle(random);
            for victim in victims {
                self.let_some_pass(random).await;
                self.kill(victim).await;
                let pause = self.first_change().await;
                pauses.push(pause);
                eprintln!(
                    "torture: {:?}, seed {}, {:.1?}, kill {} ({victim:?}, first change after {pause:.1?}), \
                     {} commits, {} states read",
                    self.pipeline.route,
                    plan.seed,
                    begun.elapsed(),
                    pauses.len(),
                    self.progress.commits(),
                    self.reader.states(),
                );
            }
        }
        pauses
    }

    /// Waits for commits at the source and for states at the target, so that a kill meets work.
    async fn let_some_pass(&self, random: &mut ChaCha8Rng) {
        let commits = self.progress.commits() + random.random_range(20..200);
        let states = self.reader.states() + random.random_range(2..6);
        let passed = eventually(PATIENCE, "commits to pass", async || {
            let status = self.daemon.0.iter().find_map(Process::status);
            assert!(
                status.is_none(),
                "the daemon ended: {}",
                self.pipeline.log()
            );
            let (committed, read) = (self.progress.commits(), self.reader.states());
            if committed >= commits && read >= states {
                return Ok(());
            }
            Err(format!(
                "{committed} of {commits} commits, {read} of {states} states"
            ))
        });
        if let Err(error) = passed.await {
            panic!("{error}\n{}", self.pipeline.log());
        }
    }

    /// Restarts each once more while nothing is on its way: how long it takes until what is committed next is at the
    /// target. Under load that would be the time for what waits before it.
    async fn restarts_at_rest(&mut self, plan: &Plan) -> Vec<Duration> {
        let mut pauses = Vec::new();
        for victim in Victim::all(self.pipeline.route) {
            let progress = Arc::clone(&self.progress);
            let rest = progress.rest().await;
            self.check_equal(plan.patience()).await;
            self.kill(victim).await;
            drop(rest);
            let pause = self.first_change().await;
            pauses.push(pause);
            eprintln!(
                "torture: {:?}, at rest ({victim:?}, first change after {pause:.1?})",
                self.pipeline.route
            );
        }
        pauses
    }

    /// How long it takes until the target moves on.
    async fn first_change(&self) -> Duration {
        let begun = Instant::now();
        let reached = self.reader.last_histories().await.into_iter();
        let next: Vec<_> = reached
            .map(|(writer, n)| doc! { "writer": writer, "n": n + 1 })
            .collect();
        let history = self.pipeline.mongo.collection::<Document>("history");
        let moved = eventually(PATIENCE, "a change after the restart", async || {
            let any = history.find_one(doc! { "_id": { "$in": &next } }).await;
            any.ok().flatten()
        });
        if let Err(error) = moved.await {
            panic!("{error}\n{}", self.pipeline.log());
        }
        begun.elapsed()
    }

    async fn kill(&mut self, victim: Victim) {
        match victim {
            Victim::Daemon => {
                std::mem::replace(&mut self.daemon, Daemon(Vec::new()))
                    .kill()
                    .await;
                self.daemon = self.pipeline.start();
            }
            Victim::Half(half) => {
                self.daemon.kill_half(half).await;
                self.daemon.start_half(&self.pipeline, half);
            }
            Victim::Kafka => {
                self.stack.kafka.kill().await.unwrap();
                self.stack.kafka.restart().await.unwrap();
            }
            Victim::Mongo => {
                self.stack.mongo.kill().await.unwrap();
                self.stack.mongo.restart().await.unwrap();
            }
            Victim::Postgres => {
                self.stack.postgres.kill().await.unwrap();
                self.stack.postgres.restart().await.unwrap();
            }
        }
    }

    async fn check_equal(&mut self, patience: Duration) {
        // The one of before may have ended with its server.
        self.pipeline.sql = self.database.sql().await.unwrap();
        let (sql, mongo) = (&self.pipeline.sql, &self.pipeline.mongo);
        let equal = eventually(patience, "MongoDB to equal PostgreSQL", async || {
            for table in TABLES.iter().chain(&workload::TABLES) {
                crate::oracle::compare(sql, mongo, table).await?;
            }
            Ok::<_, String>(())
        });
        if let Err(error) = equal.await {
            panic!("{error}\n{}", self.pipeline.log());
        }
    }

    /// The writers know what they committed; the oplog knows what was applied, and how often.
    async fn check_history(&self) {
        let committed = self.progress.histories();
        assert_eq!(committed.len(), WRITERS.len());
        let query = "select writer, count(*), max(n) from history group by writer";
        for row in self.pipeline.sql.query(query, &[]).await.unwrap() {
            let (writer, count, last): (i32, i64, i64) = (row.get(0), row.get(1), row.get(2));
            assert_eq!((count, last), (committed[&writer], committed[&writer]));
        }
        let applied = oplog::read(&self.pipeline.mongo).await;
        assert_eq!(applied.histories, committed, "history inserts in the oplog");
        assert!(applied.positions > 0 && applied.epochs > 1);
        // Writing the same again leaves no trace in the oplog, but the sink would have noticed.
        let log = self.pipeline.log();
        assert!(!log.contains("operations were mended"), "{log}");
        eprintln!(
            "torture: {} position writes under {} epochs, {} history rows, each once",
            applied.positions,
            applied.epochs,
            committed.values().sum::<i64>()
        );
    }
}
