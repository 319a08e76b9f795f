//! Who plays a scene: those of the published data where they fit, else the first that do.

use tokio_postgres::Client;

use crate::Error;

use super::scene::Scene;

/// More than the whole story takes, since all of it may meet at one shelf.
const ENOUGH: i32 = 100;
/// A store with fewer sales has no norm yet.
const SALES_OF_A_NORM: i64 = 30;
const CHOOSING: &str = "choosing who plays a scene (is the schema installed?)";

/// The product and as many stores as asked for, which hold enough of it at a price that fits.
const SHELF: &str = "
    WITH sale AS (
        SELECT store_id, sum(quantity * coalesce(transactiondetails.unit_price, products.unit_price)) AS amount
          FROM transactions JOIN transactiondetails USING (transaction_id) JOIN products USING (product_id)
         GROUP BY transaction_id, store_id
    ), norm AS (
        SELECT store_id, avg(amount) AS mean, stddev_pop(amount) AS deviation
          FROM sale GROUP BY store_id HAVING count(*) >= $9
    )
    SELECT product_id, (unit_price * $3::integer)::text,
           (array_agg(store_id ORDER BY array_position($1::integer[], store_id), store_id))[1:cardinality($1)]
      FROM inventory JOIN products USING (product_id) JOIN norm USING (store_id)
     WHERE inventory_level >= $4
       AND unit_price * $3 >= greatest($5::integer, mean + $7::float8::numeric * deviation)
       AND unit_price * $3 < least($6::integer, mean + $8::float8::numeric * deviation)
     GROUP BY product_id, unit_price
    HAVING count(*) >= cardinality($1)
     ORDER BY product_id = $2 DESC, product_id
     LIMIT 1";

/// A customer outside the story so far, quiet for a month, whose income fits the amount.
const CUSTOMER: &str = "
    SELECT customer_id
      FROM customers
     WHERE customer_id <> ALL ($1)
       AND CASE WHEN $3 THEN $2::text::numeric > 0.31 * income ELSE $2::text::numeric < 0.29 * income END
       AND NOT EXISTS (SELECT FROM transactions
                        WHERE transactions.customer_id = customers.customer_id
                          AND transaction_date > $4::text::date - 32)
     ORDER BY customer_id = $5 DESC, customer_id
     LIMIT 1";

const PAYMENT_METHOD: &str = "SELECT method_id FROM paymentmethods WHERE (method_name = 'Cash') = $1 ORDER BY method_id LIMIT 1";

/// Who plays a scene, with what.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) customer_id: i32,
    pub(super) product_id: i32,
    /// One for each store of the scene.
    pub(super) stores: Vec<i32>,
    pub(super) payment_method_id: i32,
    /// What each sale comes to.
    pub(super) amount: String,
}

/// The two days of the story: after the newest sale there is.
pub(super) async fn days(client: &Client) -> Result<[String; 2], Error> {
    let days =
        "SELECT (max(transaction_date)::date + 1)::text, (max(transaction_date)::date + 2)::text
                  FROM transactions WHERE isfinite(transaction_date)";
    let row = client
        .query_one(days, &[])
        .await
        .map_err(Error::database(CHOOSING))?;
    match (row.get(0), row.get(1)) {
        (Some(first), Some(second)) => Ok([first, second]),
        _ => Err(Error::NothingToSell {
            missing: "earlier sale",
        }),
    }
}

/// Chooses for one scene; `taken` customers play in another one.
pub(super) async fn choose(
    client: &Client,
    scene: &Scene,
    taken: &[i32],
    first_day: &str,
) -> Result<Cast, Error> {
    let missing = |missing| Error::NoScene {
        scene: scene.what,
        missing,
    };
    let (product_id, amount, stores) = shelf(client, scene)
        .await?
        .ok_or(missing("product in stock at a price that fits"))?;
    let customer = client
        .query_opt(
            CUSTOMER,
            &[
                &taken,
                &amount,
                &scene.is_beyond_income,
                &first_day,
                &scene.customer_id,
            ],
        )
        .await
        .map_err(Error::database(CHOOSING))?
        .ok_or(missing("quiet customer whose income fits"))?;
    let payment = client
        .query_opt(PAYMENT_METHOD, &[&scene.is_cash])
        .await
        .map_err(Error::database(CHOOSING))?
        .ok_or(missing("way to pay that fits"))?;
    Ok(Cast {
        customer_id: customer.get(0),
        product_id,
        stores,
        payment_method_id: payment.get(0),
        amount,
    })
}

async fn shelf(client: &Client, scene: &Scene) -> Result<Option<(i32, String, Vec<i32>)>, Error> {
    let row = client
        .query_opt(
            SHELF,
            &[
                &scene.stores,
                &scene.product_id,
                &scene.quantity,
                &ENOUGH,
                &scene.amount.least,
                &scene.amount.below,
                &scene.amount.least_deviations,
                &scene.amount.most_deviations,
                &SALES_OF_A_NORM,
            ],
        )
        .await
        .map_err(Error::database(CHOOSING))?;
    Ok(row.map(|row| (row.get(0), row.get(1), row.get(2))))
}
