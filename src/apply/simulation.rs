//! Reader and sink over scripted servers, at random, by seed (protocol rules 1 to 19).
//!
//! - At every applied group the documents are the source's state as of one commit, except within
//!   a giant transaction.
//! - In the end they are the source's state.
//! - No operation ever misses what it expects: nothing is applied twice, and nothing is left out.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use walferry_core::fakes::{
    Documents, FakeChange, FakeDatabase, FakeKafka, FakeLog, FakeLogReader, FakeServer, FakeSink,
    FakeSource, Place, Script,
};
use walferry_core::{Class, Classify, LogEntry, PipelineState, Tasks};
use walferry_schema::{LogRecord, Lsn};

use super::{Apply, GroupLimits};
use crate::capture::{Capture, CaptureError, CaptureOptions, CaptureStatus};
use crate::direct::Direct;
use crate::merge::WholeLimits;

/// How many seeds each way has; another number by `WALFERRY_SEEDS`, one seed by `WALFERRY_SEED`.
const SEEDS: u64 = 1_000;
const STEPS: usize = 150;
/// How many lines of a failing run are shown.
const SHOWN: usize = 60;
const TABLES: [&str; 3] = ["a", "b", "ignored"];
/// When a simulation begins, since 1970.
const TIME_OF_DAY: Duration = Duration::from_hours(500_000);

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Case {
    /// Servers that keep what they acknowledged.
    Kafka,
    /// The same without Kafka.
    Direct,
    /// A Kafka that forgets, a slot that is made anew, a source that was restored: a named error, then
    /// a new snapshot.
    Forgetful,
}

struct World {
    case: Case,
    /// Whether the next reader begins a new generation, as the errors told the operator.
    wants_snapshot: bool,
    alarms: usize,
    random: ChaCha8Rng,
    server: FakeServer,
    kafka: FakeKafka,
    database: FakeDatabase,
    tasks: Tasks,
    reader: Option<Process>,
    sink: Option<Process>,
    /// Sinks that another one came beside.
    overtaken: Vec<Process>,
    status: watch::Receiver<CaptureStatus>,
    keys: BTreeSet<(&'static str, i32)>,
    begun: Instant,
    trace: Arc<Mutex<String>>,
}

/// A process that starts again after passing errors; its result is the error that is for good.
type Process = JoinHandle<String>;

// === impl World: its processes ===

impl World {
    fn new(seed: u64, case: Case) -> Self {
        Self {
            case,
            wants_snapshot: false,
            alarms: 0,
            random: ChaCha8Rng::seed_from_u64(seed),
            server: FakeServer::new(&TABLES),
            kafka: FakeKafka::new(),
            database: FakeDatabase::new(),
            tasks: Tasks::default(),
            reader: None,
            sink: None,
            overtaken: Vec::new(),
            status: watch::channel(CaptureStatus::default()).1,
            keys: BTreeSet::new(),
            begun: Instant::now(),
            trace: Arc::default(),
        }
    }

    fn log(&self, line: impl std::fmt::Display) {
        writeln!(self.trace.lock().expect("no thread failed"), "{line}")
            .expect("a string takes it");
    }

    fn start_reader(&mut self) {
        let (source, log) = (FakeSource::new(&self.server), FakeLog::new(&self.kafka));
        let stop = CancellationToken::new();
        let (options, is_wanted) = (self.options(), std::mem::take(&mut self.wants_snapshot));
        let mut capture = Capture::new(source, log, options, stop, is_wanted);
        self.status = capture.status();
        let trace = self.trace.clone();
        self.reader = Some(self.tasks.spawn(async move {
            loop {
                let Err(error) = capture.run_term().await else {
                    continue;
                };
                let line = format!("  reader: {error}");
                writeln!(trace.lock().expect("no thread failed"), "{line}").expect("it takes it");
                // Two announcements within one second of the clock: nothing was made yet.
                let is_race = matches!(error, CaptureError::OtherGeneration { .. });
                if error.class() != Class::Transient && !is_race {
                    return error.to_string();
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }));
    }

    /// A pipeline without Kafka, instead of reader and sink.
    fn start_direct(&mut self) {
        let (database, tasks) = (self.database.clone(), self.tasks.clone());
        let limits = watch::Sender::new(self.limits()).subscribe();
        let source = FakeSource::new(&self.server);
        let status = watch::Sender::default();
        let mut direct = Direct::new(source, self.options(), limits, status, tasks);
        let trace = self.trace.clone();
        self.sink = Some(self.tasks.spawn(async move {
            loop {
                let sink = FakeSink::new(&database);
                let Err(error) = direct.run(sink, &CancellationToken::new()).await else {
                    continue;
                };
                let line = format!("  direct: {error}");
                writeln!(trace.lock().expect("no thread failed"), "{line}").expect("it takes it");
                if error.class() != Class::Transient {
                    return format!("{:?} {error}", error.class());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }));
    }

    /// The time of day is the runtime's: a seed is the same run each time.
    fn options(&self) -> CaptureOptions {
        let begun = self.begun;
        CaptureOptions {
            heartbeat: Duration::from_secs(3),
            is_alone: true,
            clock: Arc::new(move || UNIX_EPOCH + TIME_OF_DAY + begun.elapsed()),
            ..crate::capture::tests::options()
        }
    }

    fn limits(&mut self) -> GroupLimits {
        GroupLimits {
            operations: self.random.random_range(1..12),
            bytes: 1 << 20,
            whole: WholeLimits {
                rows: self.random.random_range(2..8),
                bytes: 1 << 20,
            },
        }
    }

    fn start_sink(&mut self) {
        if self.case == Case::Direct {
            return self.start_direct();
        }
        let (database, kafka, tasks) = (
            self.database.clone(),
            self.kafka.clone(),
            self.tasks.clone(),
        );
        let (status, reader_status) = (watch::Sender::default(), self.status.clone());
        let limits = watch::Sender::new(self.limits()).subscribe();
        let trace = self.trace.clone();
        self.sink = Some(self.tasks.spawn(async move {
            loop {
                let announced = reader_status.borrow().began;
                let run = async {
                    let (sink, reader) = (FakeSink::new(&database), FakeLogReader::new(&kafka));
                    let (status, tasks) = (status.clone(), tasks.clone());
                    let limits = limits.clone();
                    let apply =
                        Apply::over_log(sink, reader, announced, limits, status, tasks).await?;
                    apply.run(&CancellationToken::new()).await
                };
                let Err(error) = run.await else { continue };
                let line = format!("  sink: {error}");
                writeln!(trace.lock().expect("no thread failed"), "{line}").expect("it takes it");
                if error.class() != Class::Transient {
                    return format!("{:?} {error}", error.class());
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }));
    }

    /// Starts what has ended, when that is right.
    async fn revive(&mut self) -> Result<(), String> {
        let ended = |process: &Option<Process>| process.as_ref().is_some_and(Process::is_finished);
        if ended(&self.sink) {
            let error = self
                .sink
                .take()
                .expect("it ended")
                .await
                .unwrap_or_default();
            if !error.is_empty() && !error.starts_with("Fenced") {
                return Err(format!("sink: {error}"));
            }
        }
        if ended(&self.reader) {
            let error = self
                .reader
                .take()
                .expect("it ended")
                .await
                .unwrap_or_default();
            if !error.is_empty() {
                return Err(format!("reader: {error}"));
            }
        }
        if self.case != Case::Direct && self.reader.is_none() && self.random.random_ratio(1, 3) {
            self.log("start reader");
            self.start_reader();
        }
        if self.sink.is_none() && self.random.random_ratio(1, 3) {
            self.log("start sink");
            self.start_sink();
        }
        Ok(())
    }

    /// Does what an operator does about a named error, where one was provoked.
    async fn revive_or_mend(&mut self) -> Result<(), String> {
        let Err(alarm) = self.revive().await else {
            return Ok(());
        };
        let is_named = ["--new-snapshot", "has no offset"]
            .iter()
            .any(|it| alarm.contains(it));
        if self.case != Case::Forgetful || !is_named {
            return Err(alarm);
        }
        self.alarms += 1;
        if self.alarms > 50 {
            return Err(format!("never mended: {alarm}"));
        }
        self.mend(&alarm).await;
        Ok(())
    }

    /// Begins a new generation, as an error says.
    async fn mend(&mut self, alarm: &str) {
        self.log(format!("the operator reads: {alarm}"));
        self.crash_reader().await;
        self.crash_sink().await;
        self.wants_snapshot = true;
        self.start_reader();
    }

    fn says(&self, what: &str) -> bool {
        let trace = self.trace.lock().expect("no thread failed");
        trace.lines().rev().take(20).any(|line| line.contains(what))
    }

    /// A server forgets something; whoever spoke to it notices at least that the connection broke.
    async fn damage(&mut self) {
        // The generation's record stays: its number is the time, and here no time passes before the
        // next one is announced.
        let log = self.kafka.log_records();
        let is_generation = |it: &&LogEntry| matches!(it.record, LogRecord::Generation(_));
        let kept = log
            .iter()
            .rfind(is_generation)
            .map_or(0, |it| it.offset + 1);
        let room = log
            .len()
            .saturating_sub(usize::try_from(kept).unwrap_or_default());
        let count = self.random.random_range(1..6).min(room);
        match self.random.random_range(0..5) {
            0 => {
                self.log(format!("the log forgets {count}"));
                self.kafka.lose_tail(&Place::Log, count);
            }
            1 | 2 => {
                let is_all = self.random.random_ratio(1, 2);
                for name in self.kafka.partitions() {
                    self.log(format!("{name:?} forgets {count}"));
                    self.kafka.lose_tail(&Place::Rows(name), count);
                }
                if is_all {
                    self.log("and so does the log");
                    self.kafka.lose_tail(&Place::Log, count);
                }
            }
            3 => {
                self.log("the slot is made anew");
                self.crash_reader().await;
                self.server.make_slot();
            }
            _ => {
                self.log("the source is restored");
                self.server.set_flush_lsn(Lsn(0x1000));
            }
        }
        self.crash_reader().await;
        self.crash_sink().await;
        // A consumer that stays learns from the leader's epoch that its place is gone.
        for sink in self.overtaken.drain(..) {
            sink.abort();
        }
        self.kafka.drop_zombies();
    }

    async fn crash_reader(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.abort();
            drop(reader.await);
        }
    }

    async fn crash_sink(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.abort();
            drop(sink.await);
        }
    }
}

// === impl World: its steps ===

impl World {
    async fn step(&mut self) -> Result<(), String> {
        self.revive_or_mend().await?;
        if self.case == Case::Forgetful && self.random.random_ratio(1, 40) {
            self.damage().await;
        }
        match self.random.random_range(0..100) {
            0..25 => self.commit(),
            25..30 => {
                let lsn = self.server.keepalive(self.random.random());
                self.log(format!("keepalive {lsn}"));
            }
            30..60 => self.acknowledge(),
            60..66 => self.flush_zombie(),
            66..69 => {
                self.log("flow");
                self.kafka.flow();
            }
            69..75 => {
                self.log("hold");
                self.kafka.hold();
            }
            75..77 => {
                self.log("delivery fails");
                self.kafka.fail_delivery();
            }
            77..79 => {
                self.log("links break");
                self.server.break_links();
            }
            79..82 => {
                self.log("reader crashes");
                self.crash_reader().await;
            }
            82..85 => {
                self.log("sink crashes");
                self.crash_sink().await;
            }
            85..87 => {
                self.log("another sink comes");
                if self.case == Case::Direct {
                    // The lock on the slot's name keeps a second one away.
                    self.crash_sink().await;
                }
                self.overtaken.extend(self.sink.take());
                self.start_sink();
            }
            87..92 => self.script(),
            92..94 => self.hide(),
            94..96 => {
                let room = self
                    .random
                    .random_ratio(1, 2)
                    .then(|| self.random.random_range(1..6));
                self.kafka.set_room(room);
            }
            _ => {
                self.database.release();
                let millis = self.random.random_range(50..3_000);
                tokio::time::advance(Duration::from_millis(millis)).await;
            }
        }
        for _ in 0..self.random.random_range(0..30) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn commit(&mut self) {
        let most = if self.random.random_ratio(1, 8) {
            16
        } else {
            5
        };
        let changes: Vec<_> = (0..self.random.random_range(1..most))
            .map(|_| self.change())
            .collect();
        let lsn = self.server.commit(&changes);
        self.log(format!("commit {lsn}: {changes:?}"));
    }

    fn change(&mut self) -> FakeChange {
        let (table, id) = (
            TABLES[self.random.random_range(0..3)],
            self.random.random_range(0..8),
        );
        let value = self.random.random_range(0..1_000).to_string();
        let is_there = self.keys.contains(&(table, id));
        match self.random.random_range(0..20) {
            0 => {
                self.keys.retain(|(it, _)| *it != table);
                FakeChange::Truncate(vec![table])
            }
            1 => FakeChange::Keepalive(self.random.random()),
            _ if !is_there => {
                self.keys.insert((table, id));
                FakeChange::Insert(table, id, value)
            }
            2..7 => {
                self.keys.remove(&(table, id));
                FakeChange::Delete(table, id)
            }
            7..12 if !self.keys.contains(&(table, id + 1)) => {
                self.keys.remove(&(table, id));
                self.keys.insert((table, id + 1));
                let value = self.random.random_ratio(1, 2).then_some(value);
                FakeChange::Rekey(table, id, id + 1, value)
            }
            _ => FakeChange::Update(table, id, self.random.random_ratio(2, 3).then_some(value)),
        }
    }

    fn acknowledge(&mut self) {
        let held = self.kafka.held();
        let Some(place) = held.choose(&mut self.random) else {
            return;
        };
        let count = self.random.random_range(1..6);
        match self.random.random_range(0..3) {
            0 => self.kafka.deliver(place, count),
            _ => self.kafka.release(place, count),
        }
        self.log(format!("acknowledge {count} of {place:?}"));
    }

    fn flush_zombie(&mut self) {
        let zombies = self.kafka.zombies();
        let Some(place) = zombies.choose(&mut self.random) else {
            return;
        };
        self.kafka.flush_zombie(place);
        self.log(format!("a dead reader flushes to {place:?}"));
    }

    /// Rows become visible later than the log's records that count them.
    fn hide(&mut self) {
        for name in self.kafka.partitions() {
            let from = i64::try_from(self.kafka.rows(&name).len()).expect("few rows");
            if self.random.random_ratio(1, 2) {
                self.kafka.hide(&Place::Rows(name), from + 1);
            } else {
                self.kafka.show(&Place::Rows(name));
            }
        }
        self.log("some rows are hidden");
    }

    fn script(&mut self) {
        let script = [
            Script::Pass,
            Script::FailAfterWrite,
            Script::Hold,
            Script::Fence,
            Script::Reject(Class::Transient),
        ];
        let script: Vec<_> = (0..3)
            .filter_map(|_| script.choose(&mut self.random).copied())
            .collect();
        self.log(format!("database: {script:?}"));
        self.database.script(&script);
        if self.random.random_ratio(1, 3) {
            self.database.crash_after(self.random.random_range(0..6));
        }
    }

    async fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS {
            self.step().await?;
        }
        self.recover().await?;
        if self.case == Case::Forgetful && self.says("have not come for 30 seconds") {
            // Repeated, in case the reader was only away; it is not.
            self.mend("rows have not come").await;
            self.recover().await?;
        }
        self.check()?;
        let (found, expected) = (
            self.database.documents(),
            self.source_before(self.server.end_lsn()),
        );
        if found != expected {
            let checkpoint = self.database.checkpoint();
            return Err(format!(
                "in the end {found:?}, not {expected:?}: {checkpoint:?}"
            ));
        }
        Ok(())
    }

    /// Everything works again, and both processes run on until nothing happens any more.
    async fn recover(&mut self) -> Result<(), String> {
        self.log("recover");
        self.database.script(&[]);
        self.database.release();
        self.kafka.set_room(None);
        for name in self.kafka.partitions() {
            self.kafka.show(&Place::Rows(name));
        }
        for second in 0..90 {
            if second % 3 == 0 {
                self.kafka.flow();
                self.flush_zombie();
            }
            self.revive_or_mend().await?;
            tokio::time::advance(Duration::from_secs(1)).await;
            for _ in 0..60 {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        let mut before = Documents::new();
        let mut position = None;
        for (index, group) in self.database.groups().iter().enumerate() {
            let checkpoint = &group.checkpoint;
            let at = |what: &str| Err(format!("group {index}: {what}: {checkpoint:?}"));
            if group.repaired > 0 {
                return at("an operation missed");
            }
            // A generation that is given up for one that was announced has no position yet.
            if checkpoint.position.is_some() && checkpoint.position < position {
                return at("the position fell");
            }
            position = checkpoint.position.max(position);
            let is_cut = checkpoint
                .position
                .is_some_and(|position| !position.is_end());
            let expected = match checkpoint.state {
                // A giant in pieces: what has to come out is seen at its end.
                PipelineState::Live if is_cut => group.documents.clone(),
                PipelineState::Live => self.source_before(checkpoint.end_lsn),
                PipelineState::Snapshot | PipelineState::Swapping => before,
            };
            if group.documents != expected {
                return at(&format!("{:?}, not {expected:?}", group.documents));
            }
            before = expected;
        }
        Ok(())
    }

    fn source_before(&self, lsn: Lsn) -> Documents {
        let mut documents = self.server.documents_at(Lsn(lsn.0 - 1));
        documents.remove("ignored");
        documents
    }
}

/// One run: its trace, and why it failed if it did.
fn simulate(seed: u64, case: Case) -> (String, Result<(), String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut world = World::new(seed, case);
        let result = world.run().await;
        let trace = world.trace.lock().expect("no thread failed").clone();
        (trace, result)
    })
}

/// Runs a seed; a failing one shows the end of its trace.
fn run(seed: u64, case: Case) {
    if let (trace, Err(error)) = simulate(seed, case) {
        let lines: Vec<&str> = trace.lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
        panic!("seed {seed}: {error}\n{shown}");
    }
}

fn run_all(case: Case) {
    let given = |name| std::env::var(name).ok().and_then(|it| it.parse().ok());
    match given("WALFERRY_SEED") {
        Some(seed) => run(seed, case),
        None => (0..given("WALFERRY_SEEDS").unwrap_or(SEEDS)).for_each(|seed| run(seed, case)),
    }
}

#[test]
fn a_seed_is_the_same_run_each_time() {
    for case in [Case::Kafka, Case::Direct, Case::Forgetful] {
        for seed in 0..10 {
            assert_eq!(simulate(seed, case), simulate(seed, case), "seed {seed}");
        }
    }
}

#[test]
fn a_pipeline_whose_parts_fail_at_random_shows_the_sources_commits_one_after_another() {
    run_all(Case::Kafka);
}

#[test]
fn so_does_one_without_kafka() {
    run_all(Case::Direct);
}

#[test]
fn what_the_servers_forget_is_noticed_and_mended_by_a_new_snapshot() {
    run_all(Case::Forgetful);
}
