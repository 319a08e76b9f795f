//! The daemon: a reader and a sink, in one process or two, each restarted for itself; or, without
//! Kafka, one pipeline.
//!
//! - The slot is owned before the pipeline is claimed, so that a second daemon changes nothing.
//! - Stopping goes in order: the reader drains and confirms, then the sink applies what it has.

pub(crate) mod connect;

use std::future::Future;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;
use walferry_core::{Fault, Log, LogReader, Sink, Source, Tasks};
use walferry_kafka::Flow;
use walferry_mongodb::Touched;

use crate::admin::{self, Admin};
use crate::analytics;
use crate::apply::{Apply, ApplyStatus, GroupLimits, LogFeed};
use crate::capture::{Capture, CaptureStatus};
use crate::check::{self, Beginning};
use crate::config::{Config, Format, Kafka};
use crate::debezium::Foreign;
use crate::direct::Direct;
use crate::reload::Live;
use crate::service;
use crate::status::{Board, Parts, Trouble};
use crate::supervise::Supervisor;
use crate::traces;

/// What `walferry run` was asked for beside the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Begin a new generation, whatever the log says.
    pub new_snapshot: bool,
    /// Which part of the pipeline this process is.
    pub role: Role,
}

/// Which part of the pipeline a process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Reader and sink
    #[default]
    Both,
    /// From PostgreSQL into Kafka only
    Reader,
    /// From Kafka into MongoDB only
    Sink,
}

/// Streams changes until the tasks are told to stop; `live` is what changes meanwhile.
///
/// # Errors
/// What an operator must act on, or that another writer took the pipeline over.
pub async fn run(
    config: &Config,
    options: RunOptions,
    live: Live,
    tasks: &Tasks,
) -> Result<(), Fault> {
    let debezium = config.kafka.as_ref();
    let debezium = debezium.filter(|kafka| kafka.format == Format::Debezium);
    if debezium.is_some() && options.role != Role::Sink {
        return Err(NoReader.into());
    }
    let show = Show::new(config, options.role, live, tasks).await?;
    if let Some(kafka) = debezium {
        return Box::pin(from_debezium(config, kafka, show, tasks)).await;
    }
    if options.role != Role::Sink {
        let beginning = Beginning {
            is_wanted: options.new_snapshot,
            writes: options.role == Role::Both,
        };
        check::before_a_snapshot(config, beginning, tasks).await?;
    }
    match (&config.kafka, options.role) {
        (Some(kafka), _) => Box::pin(through_kafka(config, kafka, options, show, tasks)).await,
        (None, Role::Both) => direct(config, options, show, tasks).await,
        (None, role) => Err(NoKafka { role }.into()),
    }
}

/// What shows how far the parts of this process are.
struct Show<'a> {
    config: &'a Config,
    role: Role,
    admin: Option<Admin>,
    trouble: watch::Sender<Option<Trouble>>,
    live: Live,
    /// What the sink wrote and the analytics did not look at yet.
    touched: Touched,
    tasks: &'a Tasks,
}

// === impl Show ===

impl<'a> Show<'a> {
    async fn new(
        config: &'a Config,
        role: Role,
        live: Live,
        tasks: &'a Tasks,
    ) -> Result<Self, Fault> {
        let admin = match config.admin.listen {
            Some(listen) => Some(Admin::bind(listen).await?),
            None => None,
        };
        Ok(Self {
            config,
            role,
            admin,
            trouble: watch::Sender::default(),
            live,
            touched: Touched::default(),
            tasks,
        })
    }

    /// Shows these parts, where anybody is to see them.
    fn parts(
        self,
        reader: Option<watch::Receiver<CaptureStatus>>,
        sink: Option<watch::Receiver<ApplyStatus>>,
        log: Option<Arc<Flow>>,
    ) -> Result<(), Fault> {
        let monitor = match reader {
            Some(_) => Some(connect::slot_monitor(self.config, self.tasks)?),
            None => None,
        };
        // Who only reads need not reach MongoDB.
        let analytics = sink.as_ref().and_then(|sink| {
            let (sink, touched) = (sink.clone(), &self.touched);
            analytics::keep_fresh(self.config, sink, touched, self.tasks)
        });
        let board = Arc::new(Board::new(Parts {
            pipeline: self.config.pipeline(),
            role: self.role.name(),
            has_kafka: self.config.kafka.is_some(),
            reader,
            sink,
            log,
            trouble: self.trouble.subscribe(),
            reloaded: self.live.reloaded,
            analytics,
        }));
        let stop = self.tasks.stop_signal().clone();
        self.tasks.spawn(admin::sample(board.clone(), stop));
        service::announce(board.clone(), self.tasks);
        if let Some(admin) = self.admin {
            admin.serve(board, monitor, self.tasks);
        }
        Ok(())
    }
}

async fn through_kafka(
    config: &Config,
    kafka: &Kafka,
    options: RunOptions,
    show: Show<'_>,
    tasks: &Tasks,
) -> Result<(), Fault> {
    let stop = Stops::under(tasks.stop_signal());
    let sink = SinkHalf {
        connect: connect::Downstream::new(config, kafka, show.touched.clone())?,
        limits: show.live.limits.clone(),
        status: watch::Sender::default(),
        trouble: show.trouble.clone(),
        tasks: tasks.clone(),
    };
    let trouble = show.trouble.clone();
    let sink_status = sink.status.subscribe();
    if options.role == Role::Sink {
        let owner = watch::Sender::new(CaptureStatus {
            is_owner: true,
            ..CaptureStatus::default()
        });
        show.parts(None, Some(sink_status), None)?;
        return sink.write(owner.subscribe(), stop.reader).await;
    }
    let log = connect::log(config, kafka);
    let flow = Some(log.flow());
    let capture = Capture::new(
        connect::source(config, tasks)?,
        log,
        connect::reader_options(config, kafka, options.role),
        stop.reader.clone(),
        options.new_snapshot,
    );
    let reader = Reader { capture, trouble };
    if options.role == Role::Reader {
        show.parts(Some(reader.capture.status()), None, flow)?;
        return reader.read(stop.reader).await;
    }
    show.parts(Some(reader.capture.status()), Some(sink_status), flow)?;
    ferry(reader, sink, stop, tasks).await
}

async fn direct(
    config: &Config,
    options: RunOptions,
    show: Show<'_>,
    tasks: &Tasks,
) -> Result<(), Fault> {
    let stop = tasks.stop_signal();
    let sinks = connect::Sinks::new(config, show.touched.clone());
    let applied = watch::Sender::default();
    let mut direct = Direct::new(
        connect::source(config, tasks)?,
        connect::direct_options(config),
        show.live.limits.clone(),
        applied.clone(),
        tasks.clone(),
    );
    direct.want_new_snapshot(options.new_snapshot);
    let mut supervisor = Supervisor::new("pipeline", show.trouble.clone());
    show.parts(Some(direct.reading()), Some(applied.subscribe()), None)?;
    while !stop.is_cancelled() {
        let attempt = async {
            let connecting = traces::connecting("MongoDB");
            let sink = traces::within(connecting, sinks.connect()).await?;
            Ok(direct.run(sink, stop).await?)
        };
        let attempt: Result<(), Fault> = attempt.await;
        if let Err(fault) = attempt {
            supervisor.note(direct.reading().borrow().is_owner);
            supervisor.after(fault, stop).await?;
        }
    }
    Ok(())
}

/// Applies what Debezium wrote.
async fn from_debezium(
    config: &Config,
    kafka: &Kafka,
    show: Show<'_>,
    tasks: &Tasks,
) -> Result<(), Fault> {
    let stop = tasks.stop_signal();
    let sinks = connect::Sinks::new(config, show.touched.clone());
    let status = watch::Sender::<ApplyStatus>::default();
    let foreign = Foreign {
        config,
        prefix: &kafka.prefix,
        modes: kafka.records.modes,
        limits: show.live.limits.clone(),
        status: status.clone(),
        tasks: tasks.clone(),
    };
    let mut supervisor = Supervisor::new("sink", show.trouble.clone());
    show.parts(None, Some(status.subscribe()), None)?;
    while !stop.is_cancelled() {
        let attempt = async {
            let connecting = traces::connecting("Kafka, MongoDB");
            let sink = traces::within(connecting, sinks.connect()).await?;
            let reader = connect::record_reader(config, kafka)?;
            Ok(foreign.run(reader, sink, stop).await?)
        };
        let attempt: Result<(), Fault> = tokio::select! {
            biased;
            ended = attempt => ended,
            () = stop.cancelled(), if !status.borrow().is_applying => Ok(()),
        };
        if let Err(fault) = attempt {
            supervisor.note(status.borrow().state.is_some());
            supervisor.after(fault, stop).await?;
        }
    }
    Ok(())
}

/// Makes what a sink needs, afresh for each attempt.
pub(crate) trait Connect: Send + Sync + 'static {
    /// Reads the log.
    type Reader: LogReader + 'static;
    /// Writes the documents.
    type Sink: Sink;

    /// New connections.
    fn connect(&self) -> impl Future<Output = Result<(Self::Reader, Self::Sink), Fault>> + Send;
}

/// The sink with all that restarting it takes.
pub(crate) struct SinkHalf<C> {
    connect: C,
    limits: watch::Receiver<GroupLimits>,
    status: watch::Sender<ApplyStatus>,
    trouble: watch::Sender<Option<Trouble>>,
    tasks: Tasks,
}

/// The reader with all that restarting it takes.
struct Reader<S, L> {
    capture: Capture<S, L>,
    trouble: watch::Sender<Option<Trouble>>,
}

/// When each half stops; both stop when the process does, the sink after the reader.
struct Stops {
    reader: CancellationToken,
    sink: CancellationToken,
}

// === impl Stops ===

impl Stops {
    fn under(process: &CancellationToken) -> Self {
        Self {
            reader: process.child_token(),
            sink: CancellationToken::new(),
        }
    }
}

/// Runs both halves until one fails for good or the process is told to stop.
async fn ferry<S, L, C>(
    reader: Reader<S, L>,
    sink: SinkHalf<C>,
    stop: Stops,
    tasks: &Tasks,
) -> Result<(), Fault>
where
    S: Source + 'static,
    L: Log + 'static,
    C: Connect,
{
    let reader_status = reader.capture.status();
    let mut reading = tasks.spawn(reader.read(stop.reader.clone()));
    let mut writing = tasks.spawn(sink.write(reader_status, stop.sink.clone()));
    let (read, written) = tokio::select! {
        read = &mut reading => {
            stop.sink.cancel();
            (read, writing.await)
        }
        written = &mut writing => {
            stop.reader.cancel();
            (reading.await, written)
        }
    };
    let ended = |result: Result<Result<(), Fault>, _>| result.unwrap_or(Err(Ended.into()));
    ended(read).and(ended(written))
}

// === impl Reader ===

impl<S: Source, L: Log> Reader<S, L> {
    /// Reads term after term.
    async fn read(mut self, stop: CancellationToken) -> Result<(), Fault> {
        let mut supervisor = Supervisor::new("reader", self.trouble);
        while !stop.is_cancelled() {
            if let Err(error) = self.capture.run_term().await {
                supervisor.note(self.capture.status().borrow().is_owner);
                supervisor.after(error.into(), &stop).await?;
            }
        }
        Ok(())
    }
}

// === impl Role ===

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Both => "both",
            Self::Reader => "reader",
            Self::Sink => "sink",
        }
    }
}

// === impl SinkHalf ===

impl<C: Connect> SinkHalf<C> {
    /// Applies, claiming the pipeline again after each passing error.
    async fn write(
        self,
        mut reader: watch::Receiver<CaptureStatus>,
        stop: CancellationToken,
    ) -> Result<(), Fault> {
        let mut supervisor = Supervisor::new("sink", self.trouble.clone());
        while !stop.is_cancelled() {
            match self.attempt(&mut reader, &stop).await {
                Ok(()) => return Ok(()),
                Err(fault) => {
                    supervisor.note(self.status.borrow().state.is_some());
                    supervisor.after(fault, &stop).await?;
                }
            }
        }
        Ok(())
    }

    /// Applies until told to stop, or until the reader has ended without owning the slot: its own
    /// error says why.
    async fn attempt(
        &self,
        reader: &mut watch::Receiver<CaptureStatus>,
        stop: &CancellationToken,
    ) -> Result<(), Fault> {
        let apply = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            apply = self.start(reader) => apply?,
        };
        let Some(apply) = apply else { return Ok(()) };
        info!("applying");
        Ok(apply.run(stop).await?)
    }

    /// Connects beside the reader, and claims the pipeline once that owns the slot.
    async fn start(
        &self,
        reader: &mut watch::Receiver<CaptureStatus>,
    ) -> Result<Option<Apply<LogFeed<C::Reader>, C::Sink>>, Fault> {
        let connecting = traces::connecting("Kafka, MongoDB");
        let (log, sink) = traces::within(connecting, self.connect.connect()).await?;
        let owner = reader.wait_for(|status| status.is_owner).await;
        let Ok(announced) = owner.map(|owner| owner.began) else {
            return Ok(None);
        };
        let (status, tasks) = (self.status.clone(), self.tasks.clone());
        let limits = self.limits.clone();
        let apply = Apply::over_log(sink, log, announced, limits, status, tasks).await?;
        Ok(Some(apply))
    }
}

/// A part of a pipeline that has none.
#[derive(Debug, thiserror::Error)]
#[error(
    "--role {role:?} needs Kafka: without a [kafka] section one process is the whole pipeline; leave \
     --role out, or configure [kafka]"
)]
struct NoKafka {
    role: Role,
}

impl walferry_core::Classify for NoKafka {
    fn class(&self) -> walferry_core::Class {
        walferry_core::Class::Fatal
    }
}

/// A reader of ours beside Debezium.
#[derive(Debug, thiserror::Error)]
#[error(
    "[kafka] format = \"debezium\": the topics are written by Debezium, and only `walferry run --role sink` reads them; \
     leave `format` out for topics of walferry's own"
)]
struct NoReader;

impl walferry_core::Classify for NoReader {
    fn class(&self) -> walferry_core::Class {
        walferry_core::Class::Fatal
    }
}

/// A half of the pipeline that ended without saying how.
#[derive(Debug, thiserror::Error)]
#[error("a part of the pipeline ended unexpectedly; this is a defect in walferry")]
struct Ended;

impl walferry_core::Classify for Ended {
    fn class(&self) -> walferry_core::Class {
        walferry_core::Class::Fatal
    }
}
