//! Runs one command: progress to standard error, the result to standard output.

use std::fmt::Display;
use std::io::{self, Write, stderr, stdout};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::cli::{self, Cli, Command};
use crate::generate::{self, Generated};
use crate::load::{self, Loaded};
use crate::progress::Progress;
use crate::sell::{self, Seller, Sold};
use crate::story::{self, Told};
use crate::{Error, explain, parse_url, schema};

const TICK: Duration = Duration::from_millis(500);

/// Runs the command; the exit code is 0 when it is done and 1 when it failed, which standard error explains.
pub async fn run(cli: Cli) -> ExitCode {
    match Box::pin(execute(cli)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to hear that standard error is closed.
            drop(writeln!(stderr().lock(), "retail: {}", explain(&error)));
            ExitCode::FAILURE
        }
    }
}

async fn execute(cli: Cli) -> Result<(), Error> {
    match cli.command {
        Command::Generate(options) => print(&generate(&options)?, cli.json),
        Command::Install(options) => print(
            &schema::install(&parse_url(&options.database.url)?).await?,
            cli.json,
        ),
        Command::Load(options) => print(&load(&options).await?, cli.json),
        Command::Sell(options) => print(&sell(&options).await?, cli.json),
        Command::Story(options) => print(&tell(&options, cli.json).await?, cli.json),
    }
}

fn generate(options: &cli::Generate) -> Result<Generated, Error> {
    let total = Some(u64::from(options.sales));
    let mut progress = Progress::start("generating", total);
    let plan = generate::Plan {
        sales: options.sales,
        seed: options.seed,
    };
    let outcome = generate::generate(plan, &options.out, |sales| {
        progress.reach(u64::from(sales), total, &format!("{sales} sales"));
    });
    progress.finish();
    outcome
}

async fn load(options: &cli::Load) -> Result<Loaded, Error> {
    let database = parse_url(&options.database.url)?;
    let mut progress = Progress::start("loading", Some(0));
    let outcome = load::load(&database, &options.path, &mut |advance| {
        progress.reach(advance.done_bytes, Some(advance.total_bytes), advance.table);
    })
    .await;
    progress.finish();
    outcome
}

async fn sell(options: &cli::Sell) -> Result<Sold, Error> {
    let plan = sell::Plan {
        database: parse_url(&options.database.url)?,
        rate: options.rate,
        length: options.seconds.map(Duration::from_secs),
        seed: options.seed,
        connections: options.connections,
    };
    let seller = Seller::prepare(plan).await?;
    let counts = seller.counts();
    let mut progress = Progress::start("selling", options.seconds);
    let stop = CancellationToken::new();
    let mut selling = Box::pin(seller.run(&stop));
    let mut interrupted = Box::pin(interrupt());
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let start = tick.tick().await;
    let outcome = loop {
        tokio::select! {
            biased;
            // 1. Stop; asked a second time, do not wait for the sales under way.
            () = &mut interrupted => {
                if stop.is_cancelled() {
                    break Err(Error::Interrupted);
                }
                stop.cancel();
                interrupted.set(interrupt());
            }
            // 2. Done.
            outcome = &mut selling => break outcome,
            // 3. Progress.
            now = tick.tick() => {
                progress.reach((now - start).as_secs(), options.seconds, &counts.totals().to_string());
            }
        }
    };
    progress.finish();
    outcome
}

/// Each event is a line as soon as it has happened, unless the result is to be one JSON document.
async fn tell(options: &cli::Story, as_json: bool) -> Result<Told, Error> {
    let plan = story::Plan {
        database: parse_url(&options.database.url)?,
        pause: Duration::from_secs(options.pause),
    };
    story::tell(&plan, &mut |event| {
        if !as_json {
            // Whoever no longer listens is told so by the result.
            drop(writeln!(stdout().lock(), "{event}"));
        }
    })
    .await
}

/// Resolves at Ctrl-C or SIGTERM.
async fn interrupt() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

fn print(result: &(impl Serialize + Display), as_json: bool) -> Result<(), Error> {
    let mut stdout = stdout().lock();
    let written = if as_json {
        serde_json::to_writer(&mut stdout, result)
            .map_err(io::Error::from)
            .and_then(|()| writeln!(stdout))
    } else {
        write!(stdout, "{result}")
    };
    written.and_then(|()| stdout.flush()).map_err(Error::Print)
}
