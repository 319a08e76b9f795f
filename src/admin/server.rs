//! Connections, few at a time.
//!
//! - Callers beyond the limit wait in the system's queue: they cost the daemon nothing.
//! - A caller that says nothing is hung up on, so that none keeps the others out.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;
use walferry_core::Tasks;

/// More than a page, a scraper and a few probes ever need.
pub(super) const CONNECTIONS: usize = 64;
/// How long a caller may take to ask, for the first time and each time after.
const ASKING: Duration = Duration::from_secs(10);
/// How long a connection lasts at most: whoever has more to ask connects again. One that takes no answers in would
/// last for ever.
const LONGEST: Duration = Duration::from_mins(1);
/// Until connections are taken again after that failed, as without file descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers until the tasks stop.
pub(super) async fn serve(listener: TcpListener, router: Router, tasks: Tasks) {
    let stop = tasks.stop_signal();
    stop.run_until_cancelled(accept(&listener, &router, &tasks))
        .await;
}

async fn accept(listener: &TcpListener, router: &Router, tasks: &Tasks) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = room.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "a connection cannot be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (answering, stop) = (answer(stream, router.clone()), tasks.stop_signal().clone());
        tasks.spawn(async move {
            let answering = timeout(LONGEST, answering);
            if stop
                .run_until_cancelled(answering)
                .await
                .is_some_and(|it| it.is_err())
            {
                debug!("a connection was long enough");
            }
            drop(place);
        });
    }
}

async fn answer(stream: TcpStream, router: Router) {
    let answered = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASKING)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await;
    if let Err(error) = answered {
        debug!(%error, "a connection ended early");
    }
}
