//! Status, metrics and the page over HTTP, and what only they need to know.
//!
//! - It only shows: no request changes anything.
//! - It answers a limited number of callers; on a loopback address only those who name no other host.
//! - The port is taken before anything else is begun, so that a mistake in it is noticed at once.

mod host;
mod metrics;
mod server;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;
use walferry_core::{Class, Classify, Tasks};
use walferry_postgres::SlotMonitor;

use crate::status::Board;

/// How often counts are remembered, for rates.
const SAMPLE: Duration = Duration::from_secs(1);
/// How often the slot is measured.
const MEASURE: Duration = Duration::from_secs(5);
/// How long measuring may take: each of several hosts has its own time to be reached.
const ANSWER: Duration = Duration::from_mins(1);

const PAGE: &str = include_str!("admin/page.html");
/// The page is one file: nothing else is ever loaded, and nothing that is shown can become code.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:";

/// A port that is taken and does not answer yet.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: TcpListener,
}

/// The port could not be taken.
#[derive(Debug, thiserror::Error)]
#[error(
    "listening on {listen} for status and metrics: choose another `listen` of [admin], or stop what uses it (of two \
     processes with one file, one takes WALFERRY__ADMIN__LISTEN)"
)]
pub(crate) struct Taken {
    listen: SocketAddr,
    source: io::Error,
}

impl Classify for Taken {
    fn class(&self) -> Class {
        Class::Fatal
    }
}

// === impl Admin ===

impl Admin {
    pub(crate) async fn bind(listen: SocketAddr) -> Result<Self, Taken> {
        let bound = TcpListener::bind(listen).await;
        let listener = bound.map_err(|source| Taken { listen, source })?;
        Ok(Self { listener })
    }

    /// Answers until the process stops; `monitor` measures the slot meanwhile.
    pub(crate) fn serve(self, board: Arc<Board>, monitor: Option<SlotMonitor>, tasks: &Tasks) {
        if let Ok(address) = self.listener.local_addr() {
            info!(%address, "status, metrics and a page");
        }
        let stop = tasks.stop_signal().clone();
        if let Some(monitor) = monitor {
            tasks.spawn(measure(board.clone(), monitor, stop));
        }
        let router = self.router(board);
        tasks.spawn(server::serve(self.listener, router, tasks.clone()));
    }

    fn router(&self, board: Arc<Board>) -> Router {
        let router = router(board);
        let address = self.listener.local_addr();
        if address.is_ok_and(|it| it.ip().to_canonical().is_loopback()) {
            return router.layer(from_fn(host::is_ours));
        }
        router
    }
}

fn router(board: Arc<Board>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/live", get("live\n"))
        .route("/ready", get(ready))
        .with_state(board)
}

async fn page() -> impl IntoResponse {
    ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(PAGE))
}

async fn status(Shared(board): Shared<Arc<Board>>) -> impl IntoResponse {
    Json(board.status().shown()).into_response()
}

async fn metrics(Shared(board): Shared<Arc<Board>>) -> impl IntoResponse {
    let form = "text/plain; version=0.0.4";
    (
        [(header::CONTENT_TYPE, form)],
        metrics::text(&board.status()),
    )
}

/// Whether changes are followed or tables copied.
async fn ready(Shared(board): Shared<Arc<Board>>) -> impl IntoResponse {
    let state = board.state();
    let code = if state.is_working() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, format!("{state}\n"))
}

/// Ticks that a late one puts off.
fn every(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Has the board remember each second, until the process stops.
pub(crate) async fn sample(board: Arc<Board>, stop: CancellationToken) {
    let mut ticks = every(SAMPLE);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        board.sample();
    }
}

async fn measure(board: Arc<Board>, mut monitor: SlotMonitor, stop: CancellationToken) {
    let mut ticks = every(MEASURE);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let measured = timeout(ANSWER, monitor.measure());
        let Some(measured) = stop.run_until_cancelled(measured).await else {
            return;
        };
        board.measured(match measured {
            Ok(measured) => measured.map_err(|error| walferry_core::Fault::from(error).to_string()),
            Err(_) => Err("PostgreSQL does not answer".to_owned()),
        });
    }
}
