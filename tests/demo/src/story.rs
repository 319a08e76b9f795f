//! The demo from its first server to its last.
//!
//! - Whatever happens, selling stops first, then walferry in order, then the servers; the directory goes with them.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use walferry_harness::{Process, Signal, free_port, fresh_directory};

use crate::cli::Options;
use crate::compare::Comparison;
use crate::ending::{Ending, report};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::latency::Latencies;
use crate::live::{View, count};
use crate::machines::Machines;
use crate::pipeline::{self, DATABASE, Programs, Servers, TARGET};
use crate::probe::Probe;
use crate::sample::Sampler;
use crate::screen;

const SNAPSHOT: Duration = Duration::from_mins(10);
const CAUGHT_UP: Duration = Duration::from_mins(10);
const VISIBLE: Duration = Duration::from_mins(5);
const BETWEEN_PROBES: Duration = Duration::from_millis(40);
const SEED: &str = "1";

/// Everything that runs.
#[derive(Debug)]
struct Story {
    options: Options,
    servers: Servers,
    programs: Programs,
    seller: Option<Process>,
    walferry: Option<Process>,
    machines: Machines,
}

/// Runs the demo to its end.
///
/// # Errors
/// When a server, a program or a step of it fails.
pub(crate) async fn tell(options: Options) -> Result<Ending> {
    let mut interrupt = Interrupt::listen()?;
    let directory = fresh_directory("demo")?;
    screen::say(format_args!(
        "starting PostgreSQL, {}MongoDB in {}",
        if options.direct { "" } else { "Kafka, " },
        directory.path().display()
    ));
    let mut story = tokio::select! {
        () = interrupt.received() => return Ok(Ending::Interrupted),
        story = Box::pin(Story::begin(options, directory.path())) => story?,
    };
    let ending = tokio::select! {
        () = interrupt.received() => Ok(Ending::Interrupted),
        ending = Box::pin(story.run(directory.path())) => ending,
    };
    tokio::select! {
        () = interrupt.received() => screen::say("stopping at once"),
        () = Box::pin(story.end()) => {}
    }
    ending
}

// === impl Story ===

impl Story {
    async fn begin(options: Options, directory: &Path) -> Result<Self> {
        let machines = Box::pin(Machines::start(directory, !options.direct)).await?;
        machines
            .postgres
            .connect("postgres")
            .await?
            .batch_execute(&format!("create database {DATABASE}"))
            .await?;
        let servers = Servers {
            postgres: machines.postgres.url_of(DATABASE),
            source: machines
                .postgres
                .url_of(DATABASE)
                .replace("postgres@", "walferry@"),
            brokers: machines.brokers(),
            mongo: machines.mongo.url(),
            page: free_port()?,
        };
        let programs = Programs::new(directory)?;
        programs.write_config(&servers)?;
        Ok(Self {
            options,
            servers,
            programs,
            seller: None,
            walferry: None,
            machines,
        })
    }

    async fn run(&mut self, directory: &Path) -> Result<Ending> {
        self.where_to_look();
        self.install(directory).await?;
        self.programs.backfill().await?;
        let sampler = Sampler::new(&self.machines).await?;
        self.start_walferry(&sampler).await?;
        self.sell(&sampler).await?;
        self.where_to_look();
        self.compare(&sampler).await
    }

    /// The retail schema and its data, generated unless a directory is given.
    async fn install(&self, directory: &Path) -> Result<()> {
        let generated = directory.join("data");
        let data = match &self.options.data {
            Some(given) => given
                .canonicalize()
                .map_err(Error::io(format!("finding {}", given.display())))?,
            None => generated,
        };
        let (data, sales) = (data.to_string_lossy(), self.options.sales.to_string());
        if self.options.data.is_none() {
            self.programs
                .retail(&[
                    "generate", "--sales", &sales, "--seed", SEED, "--out", &data,
                ])
                .await?;
        }
        self.programs
            .retail(&["install", "--url", &self.servers.postgres])
            .await?;
        self.programs
            .retail(&["load", &data, "--url", &self.servers.postgres])
            .await
    }

    /// Starts the daemon and waits until the streamed tables are there.
    async fn start_walferry(&mut self, sampler: &Sampler) -> Result<()> {
        screen::say(format_args!(
            "walferry run --config {}",
            self.programs.config().display()
        ));
        self.walferry = Some(self.programs.start_walferry()?);
        let began = Instant::now();
        self.while_walferry_runs(self.snapshot(sampler)).await?;
        self.own_sale().await?;
        let seconds = began.elapsed().as_secs_f64();
        screen::say(format_args!(
            "the streamed tables are live after {seconds:.1} s"
        ));
        Ok(())
    }

    /// Waits until both sides have the same rows: nothing is sold yet.
    async fn snapshot(&self, sampler: &Sampler) -> Result<()> {
        let began = Instant::now();
        while sampler.take().await?.rows_behind() > 0 {
            if began.elapsed() > SNAPSHOT {
                return Err(self.too_late("the snapshot of the streamed tables", SNAPSHOT));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Sells until the time is over, and shows it.
    async fn sell(&mut self, sampler: &Sampler) -> Result<()> {
        screen::say(format_args!("selling {} times a second", self.options.rate));
        let seller = self
            .programs
            .start_selling(&self.servers.postgres, self.options.rate)?;
        self.seller = Some(seller);
        let mut view = View::new(self.options.seconds);
        let end = self
            .options
            .seconds
            .map(|s| Instant::now() + Duration::from_secs(s));
        let (mut probe, mut latencies) = (Probe::new(&self.machines).await?, Latencies::default());
        let mut ticks = tokio::time::interval(view.interval());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while end.is_none_or(|end| Instant::now() < end) {
            let mut measured = std::pin::pin!(self.visible_within(VISIBLE, &mut probe));
            let visible = loop {
                tokio::select! {
                    visible = &mut measured => break visible?,
                    _ = ticks.tick() => view.show(sampler, &latencies).await?,
                }
            };
            latencies.add(visible);
            self.seller
                .as_ref()
                .map_or(Ok(()), Process::check_running)?;
            tokio::time::sleep(BETWEEN_PROBES).await;
        }
        view.show(sampler, &latencies).await
    }

    /// Stops selling, lets MongoDB catch up, and compares everything.
    async fn compare(&mut self, sampler: &Sampler) -> Result<Ending> {
        if let Some(seller) = self.seller.take() {
            screen::say("selling stops");
            pipeline::stop(&seller, Signal::INT).await;
        }
        self.catch_up(sampler).await?;
        screen::say(
            "batch tables are as of their last load (sales wrote promotionapplications): loading them again",
        );
        self.programs.backfill().await?;
        screen::say("comparing MongoDB with PostgreSQL, column for column");
        let postgres = self.machines.postgres.connect(DATABASE).await?;
        let mongo = self.machines.mongo.client().await?.database(TARGET);
        let comparison = Comparison::of(&postgres, &mongo, sampler.tables()).await?;
        Ok(report(&comparison, sampler.tables().len()))
    }

    /// Waits for the last sale: whole transactions in commit order, so when it is there, all are.
    async fn catch_up(&self, sampler: &Sampler) -> Result<()> {
        screen::say("waiting until MongoDB has caught up");
        let mut last_sale = std::pin::pin!(self.own_sale());
        loop {
            let behind = count(sampler.take().await?.rows_behind());
            tokio::select! {
                visible = &mut last_sale => {
                    let seconds = visible?.as_secs_f64();
                    screen::say(format_args!("caught up: the last sale was visible after {seconds:.3} s"));
                    return Ok(());
                }
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    screen::say(format_args!("{behind} rows behind"));
                }
            }
        }
    }

    /// Stops what still runs, in order; the servers follow when this is dropped.
    async fn end(&mut self) {
        if let Some(seller) = self.seller.take() {
            screen::say("selling stops");
            pipeline::stop(&seller, Signal::INT).await;
        }
        if let Some(walferry) = self.walferry.take() {
            screen::say("walferry stops");
            pipeline::stop(&walferry, Signal::TERM).await;
        }
        screen::say("the servers stop, their directory goes");
    }

    fn where_to_look(&self) {
        screen::say("where to look, as long as it runs:");
        addresses(&self.servers).iter().for_each(screen::line);
        screen::line(format_args!(
            "  logs        {}",
            self.programs.config().with_file_name("*.log").display()
        ));
    }

    /// Sells one thing and waits until MongoDB shows it.
    async fn own_sale(&self) -> Result<Duration> {
        self.visible_within(CAUGHT_UP, &mut Probe::new(&self.machines).await?)
            .await
    }

    async fn visible_within(&self, timeout: Duration, probe: &mut Probe) -> Result<Duration> {
        let visible = self.while_walferry_runs(probe.measure(timeout)).await?;
        visible.ok_or_else(|| self.too_late("a sale to be visible in MongoDB", timeout))
    }

    /// Does the work, unless walferry ends first.
    async fn while_walferry_runs<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(walferry) = &self.walferry else {
            return work.await;
        };
        tokio::select! {
            done = work => done,
            ended = walferry.wait(Duration::MAX) => {
                Err(Error::WalferryEnded { status: ended?, tail: walferry.log_tail() })
            }
        }
    }

    fn too_late(&self, what: &str, after: Duration) -> Error {
        let tail = self
            .walferry
            .as_ref()
            .map(Process::log_tail)
            .unwrap_or_default();
        Error::TooLate {
            what: what.to_owned(),
            after,
            tail,
        }
    }
}

fn addresses(servers: &Servers) -> Vec<String> {
    let mut lines = vec![format!("  PostgreSQL  {}", servers.postgres)];
    lines.extend(
        servers
            .brokers
            .iter()
            .map(|brokers| format!("  Kafka       {brokers}, topics walmartdb.*")),
    );
    lines.push(format!(
        "  MongoDB     {}, database {TARGET}",
        servers.mongo
    ));
    lines.push(format!("  walferry    http://127.0.0.1:{}", servers.page));
    lines
}
