//! A short story of fraud, told through `insert_transaction`, for demos of what finds it.
//!
//! - Each event names the alerts that it raises, and raises no other.
//! - The same data always gives the same story, on the two days after its newest sale.
//! - Who takes part has bought nothing for a month, so that no older sale adds to the story.

mod cast;
mod scene;

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use tokio::time::sleep;
use tokio_postgres::{Client, Config};

use crate::{Error, Session};

use cast::Cast;
use scene::{SCENES, Scene, Visit};

/// How many units the hand takes that changes the stock without a sale.
const TAKEN: i32 = 25;

/// How to tell the story.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which database.
    pub database: Config,
    /// How long to wait after each event.
    pub pause: Duration,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// The moment that the sale carries, or the day of a change by hand.
    pub at: String,
    /// Who did what.
    pub what: String,
    /// The sale; `None` where there was none.
    pub transaction_id: Option<i32>,
    /// The rules that find it, as `F01 critical`; none where it only prepares the next event.
    pub alerts: Vec<&'static str>,
}

/// All that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// In the order in which it happened.
    pub events: Vec<Event>,
}

// === impl Event ===

impl fmt::Display for Event {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}  {}", self.at, self.what)?;
        if self.alerts.is_empty() {
            return Ok(());
        }
        write!(formatter, "  -> {}", self.alerts.join(", "))
    }
}

// === impl Told ===

impl fmt::Display for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alerts: usize = self.events.iter().map(|event| event.alerts.len()).sum();
        writeln!(
            formatter,
            "{} events that raise {alerts} alerts",
            self.events.len()
        )
    }
}

/// Tells the story; `hear` is told each event when it has happened. The whole cast is chosen first, so that a story
/// which cannot be told to its end does not begin.
///
/// # Errors
/// [`Error::Connect`], [`Error::NoScene`] when the data has nobody or nothing that a scene needs, and
/// [`Error::Database`], for one when somebody else sold the stock meanwhile.
pub async fn tell(plan: &Plan, hear: &mut (dyn FnMut(&Event) + Send)) -> Result<Told, Error> {
    let session = Session::connect(&plan.database).await?;
    let client = session.client();
    let days = cast::days(client).await?;
    let mut casts: Vec<Cast> = Vec::with_capacity(SCENES.len());
    for scene in &SCENES {
        let taken: Vec<i32> = casts.iter().map(|cast| cast.customer_id).collect();
        casts.push(cast::choose(client, scene, &taken, &days[0]).await?);
    }
    let mut events = Vec::new();
    for (scene, cast) in SCENES.iter().zip(&casts) {
        for visit in scene.visits {
            let event = sell(client, scene, visit, cast, &days).await?;
            hear(&event);
            events.push(event);
            sleep(plan.pause).await;
        }
    }
    let event = take_by_hand(client, &casts[0], &days[1]).await?;
    hear(&event);
    events.push(event);
    Ok(Told { events })
}

async fn sell(
    client: &Client,
    scene: &Scene,
    visit: &Visit,
    cast: &Cast,
    days: &[String; 2],
) -> Result<Event, Error> {
    let at = format!("{} {}", days[visit.day], visit.time);
    let store_id = cast.stores[visit.store];
    client
        .execute(
            "CALL insert_transaction($1::text::timestamp, $2, $3, $4, false, NULL, NULL, false, $5, $6)",
            &[
                &at,
                &cast.customer_id,
                &store_id,
                &cast.payment_method_id,
                &[cast.product_id].as_slice(),
                &[scene.quantity].as_slice(),
            ],
        )
        .await
        .map_err(Error::database("telling the story"))?;
    let id = "SELECT currval(pg_get_serial_sequence('transactions', 'transaction_id'))::integer";
    let row = client
        .query_one(id, &[])
        .await
        .map_err(Error::database("reading the number of a sale"))?;
    Ok(Event {
        at,
        what: format!(
            "customer {} buys {} of product {} in store {store_id} for {} ({})",
            cast.customer_id, scene.quantity, cast.product_id, cast.amount, scene.what
        ),
        transaction_id: Some(row.get(0)),
        alerts: visit.alerts.to_vec(),
    })
}

/// The change that no sale explains: only who sees the database transaction can tell.
async fn take_by_hand(client: &Client, cast: &Cast, day: &str) -> Result<Event, Error> {
    let store_id = cast.stores[0];
    client
        .execute(
            "UPDATE inventory SET inventory_level = inventory_level - $3 WHERE store_id = $1 AND product_id = $2",
            &[&store_id, &cast.product_id, &TAKEN],
        )
        .await
        .map_err(Error::database("taking from the stock by hand"))?;
    Ok(Event {
        at: day.to_owned(),
        what: format!(
            "{TAKEN} of product {} leave store {store_id} without a sale (an UPDATE by hand)",
            cast.product_id
        ),
        transaction_id: None,
        alerts: vec!["F11 high"],
    })
}
