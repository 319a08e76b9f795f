//! What operators ask, looked for beside the loop that applies: MongoDB may take its time to answer.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};
use walferry_core::{Fault, OrderReader, Orders, Tasks};

use super::ApplyStatus;

/// How often orders are looked for.
const LOOK: Duration = Duration::from_secs(1);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads the orders, then follows them until nobody listens any more or the tasks stop.
pub(super) async fn follow<R: OrderReader>(
    mut reader: R,
    status: watch::Sender<ApplyStatus>,
    tasks: &Tasks,
) -> Result<watch::Receiver<Orders>, Fault> {
    let sender = watch::Sender::new(Orders::default());
    let orders = sender.subscribe();
    take(&sender, &status, reader.read().await?);
    let stop = tasks.stop_signal().clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sender.closed() => return,
                () = sleep(LOOK) => {}
            }
            match timeout(PATIENCE, reader.read()).await {
                Ok(Ok(orders)) => take(&sender, &status, orders),
                // The sink meets the same, and what was ordered stands.
                Ok(Err(fault)) => debug!(%fault, "orders cannot be read"),
                Err(_) => debug!("orders are not answered"),
            }
        }
    });
    Ok(orders)
}

/// Shows orders to whoever follows them, and in the status, which may be an earlier attempt's.
fn take(sender: &watch::Sender<Orders>, status: &watch::Sender<ApplyStatus>, orders: Orders) {
    status.send_if_modified(|status| {
        let is_news = status.orders != orders;
        status.orders.clone_from(&orders);
        is_news
    });
    sender.send_if_modified(|standing| {
        let is_news = *standing != orders;
        match (&standing.pause, &orders.pause) {
            (None, Some(order)) => info!(by = order.by, reason = order.reason, "paused"),
            (Some(_), None) => info!("resumed"),
            _ => {}
        }
        *standing = orders;
        is_news
    });
}
