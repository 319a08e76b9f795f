//! The command line: what is asked for, and how the answer is shown.
//!
//! - Results go to stdout, everything else to stderr.
//! - The first SIGTERM or Ctrl-C stops in order, the second at once.
//! - An error shows its message, its causes and what to do; the exit code says of which kind it is.

mod about;
mod access;
mod analytics;
mod backfill;
mod check;
mod configuration;
mod daemon;
mod dead_letters;
mod error;
mod exit;
mod fidelity;
mod help;
mod init;
mod moving;
mod orders;
mod output;
mod plan;
mod preview;
mod progress;
mod signals;
mod status;
mod top;
mod trace;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use walferry_core::Tasks;
use walferry_schema::CommitId;

use self::about::About;
use self::access::Access;
use self::analytics::Analytics;
use self::dead_letters::DeadLetters;
use self::error::CliError;
pub use self::exit::Exit;
use self::output::Output;
use self::signals::Signals;
use crate::config::Config;
use crate::init::Wish;
use crate::moving::Destination;
use crate::orders::Request;
use crate::pipeline::{self, Role, RunOptions};
use crate::preview::MAX_ROWS;
use crate::reload::Reload;
use crate::telemetry::{LogFormat, LogLevel, Logs};
use crate::traces;

/// How long what is left after a command is waited for: connections that say goodbye. One of them
/// may wait for a lock that nobody gives up.
const STOP_DEADLINE: Duration = Duration::from_secs(3);
/// How often tasks that nobody waits for are looked at in the end, and when again.
const LAST_LOOKS: u32 = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Ferries PostgreSQL's changes through Kafka into MongoDB: exactly once, in commit order.
#[derive(Debug, Parser)]
#[command(name = "walferry", version, after_help = help::OVERVIEW, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

/// What every command understands.
#[derive(Debug, Args)]
struct Common {
    /// The configuration
    #[arg(
        long,
        global = true,
        env = "WALFERRY_CONFIG",
        default_value = "walferry.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
    /// Results as one JSON object on stdout
    #[arg(long, global = true)]
    json: bool,
    /// How log lines are written to stderr
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
    /// More log lines; twice for all (`RUST_LOG`, when set, decides instead)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Proposes a configuration for a database
    #[command(long_about = help::INIT, after_long_help = help::INIT_EXAMPLES)]
    Init {
        /// PostgreSQL, as somebody who may look at its catalog
        #[arg(long, value_name = "URL")]
        from: String,
        /// MongoDB; the path is the database
        #[arg(long, value_name = "URL")]
        to: String,
        /// Kafka's brokers; without them changes go straight into MongoDB
        #[arg(long, value_name = "HOST:PORT,...")]
        brokers: Option<String>,
        /// The role that the pipeline is to read as
        #[arg(long, default_value = "walferry", value_name = "NAME")]
        role: String,
    },
    /// Streams changes until it is told to stop
    #[command(long_about = help::RUN, after_long_help = help::RUN_EXAMPLES)]
    Run {
        /// Copy the streamed tables anew before streaming, under a new generation
        #[arg(long)]
        new_snapshot: bool,
        /// Which part of the pipeline this process is
        #[arg(long, value_enum, default_value_t, value_name = "ROLE")]
        role: Role,
    },
    #[command(flatten)]
    Configured(Configured),
    #[command(flatten)]
    About(About),
}

/// The commands that read the configuration and answer.
#[derive(Debug, Subcommand)]
enum Configured {
    /// Looks at everything that a pipeline needs, and says what would mend it
    #[command(long_about = help::CHECK, after_long_help = help::CHECK_EXAMPLES)]
    Check,
    /// Says what `run` and `backfill` would do
    #[command(long_about = help::PLAN, after_long_help = help::PLAN_EXAMPLES)]
    Plan,
    /// Shows what the running daemon is doing
    #[command(long_about = help::STATUS, after_long_help = help::STATUS_EXAMPLES)]
    Status {
        /// Look again each second, until Ctrl-C
        #[arg(long)]
        watch: bool,
    },
    /// Shows the same live in the terminal
    #[command(long_about = help::TOP, after_long_help = help::TOP_EXAMPLES)]
    Top,
    /// Follows one change through the servers, with the time that each stage took
    #[command(long_about = help::TRACE, after_long_help = help::TRACE_EXAMPLES)]
    Trace {
        /// An LSN, as 0/1A2B3C4, or a streamed table, as `public.inventory` or `inventory`
        #[arg(value_name = "LSN|TABLE")]
        what: String,
        /// The key of one of the table's rows: its values in key order, or one JSON of them
        #[arg(value_name = "KEY", allow_negative_numbers = true)]
        key: Vec<String>,
    },
    /// Loads batch tables as they are now
    #[command(long_about = help::BACKFILL, after_long_help = help::BACKFILL_EXAMPLES)]
    Backfill {
        /// Tables, as `public.customers` or `customers`; all batch tables when none is named
        #[arg(value_name = "TABLE")]
        tables: Vec<String>,
    },
    /// Compares MongoDB with PostgreSQL
    #[command(long_about = help::VERIFY, after_long_help = help::VERIFY_EXAMPLES)]
    Verify {
        /// Tables, as `public.customers` or `customers`; all streamed and batch tables when none
        /// is named
        #[arg(value_name = "TABLE")]
        tables: Vec<String>,
    },
    /// Says what each column becomes in MongoDB, and what of it may be lost
    #[command(long_about = help::FIDELITY, after_long_help = help::FIDELITY_EXAMPLES)]
    Fidelity {
        /// Tables, as `public.customers` or `customers`; all streamed and batch tables when none
        /// is named
        #[arg(value_name = "TABLE")]
        tables: Vec<String>,
    },
    /// Shows the documents that the first rows of a table become
    #[command(long_about = help::PREVIEW, after_long_help = help::PREVIEW_EXAMPLES)]
    Preview {
        /// The table, as `public.customers` or `customers`
        #[arg(value_name = "TABLE")]
        table: String,
        /// How many rows, 1,000 at most
        #[arg(
            long,
            default_value_t = 5,
            value_name = "N",
            value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ROWS))
        )]
        rows: u32,
    },
    /// Moves a stopped pipeline into Kafka, or out of it
    #[command(long_about = help::MOVE, after_long_help = help::MOVE_EXAMPLES)]
    Move {
        /// Where to
        #[arg(long, value_enum, value_name = "WAY")]
        to: Destination,
    },
    /// Has the pipeline apply nothing more, until `resume`
    #[command(long_about = help::PAUSE, after_long_help = help::PAUSE_EXAMPLES)]
    Pause {
        /// Why, for whoever looks at `walferry status`
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Has a paused pipeline go on
    #[command(long_about = help::RESUME, after_long_help = help::RESUME_EXAMPLES)]
    Resume,
    /// Has the pipeline pass over a transaction that cannot be applied
    #[command(long_about = help::SKIP, after_long_help = help::SKIP_EXAMPLES)]
    Skip {
        /// The transaction, as the error names it
        #[arg(long, value_name = "GENERATION/LSN")]
        commit: CommitId,
        /// Why, for whoever looks at `walferry status`
        #[arg(long, value_name = "TEXT", conflicts_with = "withdraw")]
        reason: Option<String>,
        /// Take the order back, while the pipeline has not come to the transaction
        #[arg(long)]
        withdraw: bool,
    },
    /// Shows what MongoDB could not take, and has something done about it
    #[command(subcommand, long_about = help::DEAD_LETTER, after_long_help = help::DEAD_LETTER_EXAMPLES)]
    DeadLetter(DeadLetters),
    /// Asks rules over what was delivered, and keeps their answers
    #[command(subcommand, long_about = help::ANALYTICS, after_long_help = help::ANALYTICS_EXAMPLES)]
    Analytics(Analytics),
    /// Gives roles of MongoDB their views: rows by a filter, columns by masks
    #[command(subcommand, long_about = help::ACCESS, after_long_help = help::ACCESS_EXAMPLES)]
    Access(Access),
    /// Shows the configuration in effect
    #[command(long_about = help::CONFIG, after_long_help = help::CONFIG_EXAMPLES)]
    Config,
}

/// Runs a command to its end, on a runtime of its own.
pub fn main(cli: Cli) -> Exit {
    let output = Output::new(cli.common.json);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(execute(cli, &output)),
        Err(error) => Err(CliError::Runtime(error)),
    };
    traces::finish();
    result.unwrap_or_else(|error| output.error(&error))
}

// === impl Cli ===

impl Cli {
    fn level(&self) -> LogLevel {
        let level = match (self.common.verbose, &self.command) {
            (0, Command::Run { .. }) => LevelFilter::INFO,
            // Their progress and their results say enough.
            (0, _) => LevelFilter::WARN,
            (1, _) => LevelFilter::DEBUG,
            (_, _) => LevelFilter::TRACE,
        };
        let is_asked = self.common.verbose > 0;
        LogLevel { level, is_asked }
    }
}

async fn execute(cli: Cli, output: &Output) -> Result<Exit, CliError> {
    let tasks = Tasks::default();
    let signals = Signals::watch(&tasks)?;
    let exit = command(cli, &tasks, output).await;
    tasks.stop();
    if tokio::time::timeout(STOP_DEADLINE, tasks.finished())
        .await
        .is_err()
    {
        tracing::debug!("some connections did not end in time");
    }
    signals.stop();
    last_tasks().await;
    exit
}

/// Waits for what outlives its owner, until nothing ends any more: the MongoDB driver ends its sessions in tasks that begin
/// when a client is dropped, and that panic when the runtime ends under them. Its monitors stay.
async fn last_tasks() {
    let metrics = Handle::current().metrics();
    let mut alive = metrics.num_alive_tasks();
    for _ in 0..LAST_LOOKS {
        if alive == 0 {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
        let before = std::mem::replace(&mut alive, metrics.num_alive_tasks());
        if alive == before {
            return;
        }
    }
}

async fn command(cli: Cli, tasks: &Tasks, output: &Output) -> Result<Exit, CliError> {
    let level = cli.level();
    let file = &*cli.common.config;
    let start = |collector| Logs::start(cli.common.log_format, level, collector);
    match cli.command {
        Command::About(about) => {
            start(None)?;
            about.answer(output)
        }
        Command::Init {
            from,
            to,
            brokers,
            role,
        } => {
            start(None)?;
            let wish = Wish {
                from,
                to,
                brokers,
                role,
            };
            init::run(&wish, file, tasks, output).await
        }
        Command::Run { new_snapshot, role } => {
            let options = RunOptions { new_snapshot, role };
            let config = Config::load(file)?;
            let logs = start(config.telemetry.otlp.as_ref())?;
            Box::pin(run(config, options, tasks, logs)).await
        }
        Command::Configured(command) => {
            let config = Config::load(file)?;
            let is_traced = matches!(command, Configured::Backfill { .. });
            start(config.telemetry.otlp.as_ref().filter(|_| is_traced))?;
            configured(command, &config, tasks, output).await
        }
    }
}

async fn configured(
    command: Configured,
    config: &Config,
    tasks: &Tasks,
    output: &Output,
) -> Result<Exit, CliError> {
    match command {
        Configured::Check => check::run(config, tasks, output).await,
        Configured::Plan => plan::run(config, tasks, output).await,
        Configured::Status { watch: false } => {
            until_stopped(tasks, status::run(config, tasks, output)).await
        }
        Configured::Status { watch: true } => {
            until_stopped(tasks, status::watch(config, tasks, output)).await
        }
        Configured::Top => until_stopped(tasks, top::run(config, tasks, output)).await,
        Configured::Trace { what, key } => trace::run(config, &what, &key, tasks, output).await,
        Configured::Backfill { tables } => backfill::run(config, &tables, tasks, output).await,
        Configured::Verify { tables } => verify::run(config, &tables, tasks, output).await,
        Configured::Fidelity { tables } => fidelity::run(config, &tables, tasks, output).await,
        Configured::Preview { table, rows } => {
            preview::run(config, &table, rows, tasks, output).await
        }
        Configured::Move { to } => Box::pin(moving::run(config, to, tasks, output)).await,
        Configured::Pause { reason } => {
            orders::run(config, &Request::Pause { reason }, output).await
        }
        Configured::Resume => orders::run(config, &Request::Resume, output).await,
        Configured::Skip {
            commit,
            reason,
            withdraw,
        } => {
            let request = if withdraw {
                Request::Withdraw { commit }
            } else {
                Request::Skip { commit, reason }
            };
            orders::run(config, &request, output).await
        }
        Configured::DeadLetter(command) => dead_letters::run(command, config, output).await,
        Configured::Analytics(command) => analytics::run(command, config, tasks, output).await,
        Configured::Access(command) => access::run(command, config, tasks, output).await,
        Configured::Config => configuration::run(config, output),
    }
}

/// What only looks leaves in order wherever it is.
async fn until_stopped(
    tasks: &Tasks,
    looking: impl Future<Output = Result<Exit, CliError>>,
) -> Result<Exit, CliError> {
    let looked = tasks.stop_signal().run_until_cancelled(looking).await;
    looked.unwrap_or(Ok(Exit::Success))
}

async fn run(
    config: Config,
    options: RunOptions,
    tasks: &Tasks,
    logs: Logs,
) -> Result<Exit, CliError> {
    let reload = Reload::of(config.clone(), logs);
    let live = reload.live();
    signals::reload_at_hang_up(reload, tasks)?;
    tracing::info!(
        pipeline = config.pipeline(),
        version = env!("CARGO_PKG_VERSION"),
        "starting"
    );
    Box::pin(pipeline::run(&config, options, live, tasks)).await?;
    tracing::info!("stopped");
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_after_the_command() {
        let cli = Cli::try_parse_from(["walferry", "run", "--config", "a.toml", "-vv"]).unwrap();
        assert_eq!(cli.common.config, PathBuf::from("a.toml"));
        assert_eq!(cli.level().level, LevelFilter::TRACE);
    }

    #[test]
    fn the_help_of_every_command_has_an_example_and_the_exit_codes() {
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            for part in ["Examples:", "Exit codes:", "  2  "] {
                assert!(help.contains(part), "{part} in:\n{help}");
            }
        }
    }
}
