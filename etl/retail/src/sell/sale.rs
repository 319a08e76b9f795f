//! One sale, drawn from the catalogue.

use rand::seq::index;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::model;

use super::catalogue::{Catalogue, Shelf, Store};

#[derive(Debug)]
pub(super) struct Sale<'a> {
    pub(super) customer_id: i32,
    pub(super) store: &'a Store,
    pub(super) payment_method_id: i32,
    pub(super) promotion_applied: bool,
    pub(super) promotion_id: Option<i32>,
    pub(super) weather_id: i32,
    pub(super) stockout: bool,
    pub(super) lines: Vec<Line<'a>>,
}

#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) shelf: &'a Shelf,
    pub(super) quantity: i32,
}

// === impl Sale ===

impl<'a> Sale<'a> {
    /// The nth sale of a seed, whoever makes it: each has its own stream of random numbers.
    pub(super) fn draw(catalogue: &'a Catalogue, seed: u64, nth: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(nth);
        let random = &mut random;
        let store = &catalogue.stores[random.random_range(0..catalogue.stores.len())];
        Self {
            customer_id: model::pick(random, &catalogue.customers),
            store,
            payment_method_id: model::pick(random, &catalogue.payment_methods),
            promotion_applied: model::is_promotion_applied(random),
            promotion_id: model::promotion(random, &catalogue.promotions),
            weather_id: model::pick(random, &catalogue.weather),
            stockout: model::is_stockout(random),
            lines: lines(random, store),
        }
    }

    pub(super) fn product_ids(&self) -> Vec<i32> {
        self.lines
            .iter()
            .map(|line| line.shelf.product_id)
            .collect()
    }

    pub(super) fn quantities(&self) -> Vec<i32> {
        self.lines.iter().map(|line| line.quantity).collect()
    }
}

/// One product as a rule, as in history; sometimes two or three, as in its sales by hand.
fn lines<'a>(random: &mut ChaCha8Rng, store: &'a Store) -> Vec<Line<'a>> {
    let products = match random.random_range(0..10) {
        0 => 3,
        1..=3 => 2,
        _ => 1,
    };
    index::sample(
        random,
        store.shelves.len(),
        products.min(store.shelves.len()),
    )
    .into_iter()
    .map(|shelf| Line {
        shelf: &store.shelves[shelf],
        quantity: model::quantity(random),
    })
    .collect()
}
