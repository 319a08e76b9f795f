//! The story of fraud.

use std::path::Path;
use std::time::Duration;

use walferry_retail::story::{self, Event, Told};
use walferry_retail::{Error, generate, load};

use crate::shop::{Shop, published};

#[tokio::test]
async fn the_story_is_told_on_generated_data_and_is_the_same_on_the_same_data() {
    let directory = tempfile::tempdir().unwrap();
    let plan = generate::Plan {
        sales: 2_000,
        seed: 3,
    };
    generate::generate(plan, directory.path(), |_| {}).unwrap();
    let one = tell(&loaded(directory.path()).await).await.unwrap();
    let two = tell(&loaded(directory.path()).await).await.unwrap();
    assert_eq!(one, two);
    let alerts: Vec<_> = one.events.iter().flat_map(|event| &event.alerts).collect();
    assert_eq!(
        alerts,
        [
            &"F01 critical",
            &"F03 high",
            &"F01 high",
            &"F02 high",
            &"F04 medium",
            &"F05 medium",
            &"F06 low",
            &"F09 low",
            &"F11 high"
        ]
    );
}

#[tokio::test]
async fn a_second_story_follows_the_first_with_other_people_and_days() {
    let directory = tempfile::tempdir().unwrap();
    let plan = generate::Plan {
        sales: 2_000,
        seed: 4,
    };
    generate::generate(plan, directory.path(), |_| {}).unwrap();
    let shop = loaded(directory.path()).await;
    let one = tell(&shop).await.unwrap();
    let two = tell(&shop).await.unwrap();
    assert_eq!(one.events.len(), two.events.len());
    assert!(two.events[0].at > one.events[7].at, "{one:#?}\n{two:#?}");
    assert_ne!(one.events[0].what, two.events[0].what);
}

#[tokio::test]
async fn on_the_published_data_the_story_has_its_own_people() {
    let Some(directory) = published() else { return };
    let told = tell(&loaded(&directory).await).await.unwrap();
    let of = |event: &Event| event.what.split(" (").next().unwrap().to_owned();
    let told: Vec<_> = told.events.iter().map(of).collect();
    let burst = "customer 2824 buys 1 of product 843 in store 1 for 188.46";
    assert_eq!(told[..3], [burst; 3]);
    let rest = [
        "customer 1409 buys 1 of product 391 in store 2 for 1377.75",
        "customer 1409 buys 1 of product 391 in store 3 for 1377.75",
        "customer 5506 buys 12 of product 391 in store 3 for 16533.00",
        "customer 1570 buys 40 of product 843 in store 1 for 7538.40",
        "customer 1002 buys 5 of product 135 in store 3 for 9560.20",
        "25 of product 843 leave store 1 without a sale",
    ];
    assert_eq!(told[3..], rest);
}

#[tokio::test]
async fn every_sale_of_the_story_stands_in_the_database_as_told() {
    let directory = tempfile::tempdir().unwrap();
    let plan = generate::Plan {
        sales: 2_000,
        seed: 5,
    };
    generate::generate(plan, directory.path(), |_| {}).unwrap();
    let shop = loaded(directory.path()).await;
    let before = shop
        .number("SELECT sum(inventory_level) FROM inventory")
        .await;
    let told = tell(&shop).await.unwrap();
    let ids: Vec<_> = told
        .events
        .iter()
        .filter_map(|e| e.transaction_id)
        .collect();
    assert_eq!((ids.len(), told.events.len()), (8, 9));
    for (id, event) in ids.iter().zip(&told.events) {
        let at = format!("SELECT transaction_date FROM transactions WHERE transaction_id = {id}");
        assert_eq!(shop.text(&at).await, event.at);
    }
    let after = shop
        .number("SELECT sum(inventory_level) FROM inventory")
        .await;
    assert_eq!(before - after, 3 + 2 + 12 + 40 + 5 + 25);
}

#[tokio::test]
async fn a_story_that_the_data_has_nobody_for_does_not_begin() {
    let shop = Shop::open().await;
    let error = tell(&shop).await.unwrap_err();
    assert!(matches!(error, Error::NoScene { .. }), "{error:?}");
    assert_eq!(shop.number("SELECT count(*) FROM transactions").await, 2);
    let error = tell(&Shop::empty().await).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no earlier sale to sell with; load data first"
    );
}

async fn loaded(directory: &Path) -> Shop {
    let shop = Shop::empty().await;
    load::load(&shop.config(), directory, &mut |_| {})
        .await
        .unwrap();
    shop
}

async fn tell(shop: &Shop) -> Result<Told, Error> {
    let plan = story::Plan {
        database: shop.config(),
        pause: Duration::ZERO,
    };
    story::tell(&plan, &mut |_| {}).await
}
