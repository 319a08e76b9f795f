//! Draws the sales one by one, and whatever each of them is the first to name.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Error;
use crate::calendar::Moment;
use crate::model;

use super::files::{Files, TableFile};
use super::rows::{
    Application, Cents, Customer, Detail, Flag, Forecast, Named, Product, Stock, Transaction,
};
use super::seen::Seen;
use super::{Plan, Rows};

/// Of 5,006 published sales the last 6 were made by hand through the sale procedure: one customer, two products, a time
/// with microseconds, no forecast, no row in promotionapplications.
const PUBLISHED_SALES: u64 = 5_006;
const PUBLISHED_BY_HAND: u32 = 6;
/// 2025-04-27 11:10.
const FIRST_BY_HAND: u32 = 482 * 24 * 60 + 670;

pub(super) struct Generator {
    random: ChaCha8Rng,
    files: Files,
    /// The first sale, counted from 0, that is made by hand.
    by_hand_from: u32,
    by_hand_minute: u32,
    customer_pool: u32,
    customers: Seen,
    products: Seen,
    stocks: Seen,
    forecasts: Seen,
}

/// A store and a product of it, both counted from 0.
#[derive(Clone, Copy)]
struct Shelf {
    store: u32,
    product: u32,
}

// === impl Generator ===

impl Generator {
    pub(super) fn new(plan: Plan, files: Files) -> Self {
        let by_hand = u64::from(plan.sales) * u64::from(PUBLISHED_BY_HAND) / PUBLISHED_SALES;
        let customer_pool = model::customer_pool(plan.sales);
        Self {
            random: ChaCha8Rng::seed_from_u64(plan.seed),
            files,
            by_hand_from: plan.sales - u32::try_from(by_hand).unwrap_or(0),
            by_hand_minute: FIRST_BY_HAND,
            customer_pool,
            customers: Seen::new(customer_pool),
            products: Seen::new(model::PRODUCTS),
            stocks: Seen::new(stores() * model::PRODUCTS),
            forecasts: Seen::new(model::DAYS * stores() * model::PRODUCTS),
        }
    }

    pub(super) fn write_masters(&mut self) -> Result<(), Error> {
        write_names(&mut self.files.categories, &model::CATEGORIES)?;
        write_names(&mut self.files.stores, &model::STORES)?;
        write_names(&mut self.files.payment_methods, &model::PAYMENT_METHODS)?;
        write_names(&mut self.files.promotions, &model::PROMOTIONS)?;
        write_names(&mut self.files.weather, &model::WEATHER)
    }

    /// Writes a sale, counted from 0.
    pub(super) fn write_sale(&mut self, sale: u32) -> Result<(), Error> {
        match sale.checked_sub(self.by_hand_from) {
            None => self.write_past_sale(sale + 1),
            Some(nth) => self.write_sale_by_hand(sale + 1, nth),
        }
    }

    pub(super) fn finish(self) -> Result<Vec<Rows>, Error> {
        self.files.finish()
    }

    fn write_past_sale(&mut self, transaction_id: u32) -> Result<(), Error> {
        let random = &mut self.random;
        let moment = Moment {
            minute: random.random_range(0..model::DAYS * 24 * 60),
            microsecond: 0,
        };
        let customer = random.random_range(0..self.customer_pool);
        let shelf = Shelf {
            store: random.random_range(0..stores()),
            product: random.random_range(0..model::PRODUCTS),
        };
        let promotion_applied = model::is_promotion_applied(random);
        let promotion_id = model::promotion(random, &[1, 2]);
        let transaction = Transaction {
            id: transaction_id,
            date: moment,
            customer_id: model::FIRST_CUSTOMER + customer,
            store_id: shelf.store + 1,
            payment_method_id: random.random_range(1..=4),
            promotion_applied: Flag(promotion_applied),
            promotion_id,
            weather_id: random.random_range(1..=4),
            stockout: Flag(model::is_stockout(random)),
        };
        self.files.transactions.write(transaction)?;
        if let (true, Some(promotion_id)) = (promotion_applied, promotion_id) {
            self.files.applications.write(Application {
                transaction_id,
                promotion_id,
            })?;
        }
        self.write_customer(customer)?;
        self.write_line(transaction_id, shelf)?;
        self.write_forecast(moment, shelf)
    }

    fn write_sale_by_hand(&mut self, transaction_id: u32, nth: u32) -> Result<(), Error> {
        let random = &mut self.random;
        let customer = nth / PUBLISHED_BY_HAND % self.customer_pool;
        let store = stores() - 1;
        let is_promoted = random.random_ratio(4, 6);
        let transaction = Transaction {
            id: transaction_id,
            date: Moment {
                minute: self.by_hand_minute,
                microsecond: random.random_range(1..60_000_000),
            },
            customer_id: model::FIRST_CUSTOMER + customer,
            store_id: store + 1,
            payment_method_id: 1,
            promotion_applied: Flag(is_promoted),
            promotion_id: is_promoted.then_some(2),
            weather_id: 1,
            stockout: Flag(false),
        };
        self.by_hand_minute += random.random_range(2..=30);
        self.files.transactions.write(transaction)?;
        self.write_customer(customer)?;
        self.write_line(transaction_id, Shelf { store, product: 1 })?;
        self.write_line(transaction_id, Shelf { store, product: 2 })
    }

    fn write_line(&mut self, transaction_id: u32, shelf: Shelf) -> Result<(), Error> {
        let quantity = model::quantity(&mut self.random);
        self.files.details.write(Detail {
            transaction_id,
            product_id: shelf.product_id(),
            quantity,
        })?;
        self.write_product(shelf.product)?;
        self.write_stock(shelf)
    }

    fn write_customer(&mut self, customer: u32) -> Result<(), Error> {
        if !self.customers.is_first(customer) {
            return Ok(());
        }
        let random = &mut self.random;
        self.files.customers.write(Customer {
            id: model::FIRST_CUSTOMER + customer,
            age: random.random_range(18..=70),
            gender: model::pick(random, &model::GENDERS),
            income: Cents(random.random_range(2_000_000..=12_000_000)),
            loyalty_level: model::pick(random, &model::LOYALTY_LEVELS),
        })
    }

    fn write_product(&mut self, product: u32) -> Result<(), Error> {
        if !self.products.is_first(product) {
            return Ok(());
        }
        let random = &mut self.random;
        self.files.products.write(Product {
            id: model::FIRST_PRODUCT + product,
            name: model::pick(random, &model::PRODUCT_NAMES),
            category_id: random.random_range(1..=2),
            supplier_id: random.random_range(100..=500),
            unit_price: Cents(random.random_range(5_000..=200_000)),
            reorder_point: random.random_range(50..=150),
            reorder_quantity: random.random_range(100..=300),
        })
    }

    fn write_stock(&mut self, shelf: Shelf) -> Result<(), Error> {
        if !self.stocks.is_first(shelf.number()) {
            return Ok(());
        }
        let inventory_level = self.random.random_range(0..=500);
        self.files.inventory.write(Stock {
            store_id: shelf.store + 1,
            product_id: shelf.product_id(),
            inventory_level,
        })
    }

    fn write_forecast(&mut self, moment: Moment, shelf: Shelf) -> Result<(), Error> {
        let day = moment.day();
        if !self
            .forecasts
            .is_first(day.0 * stores() * model::PRODUCTS + shelf.number())
        {
            return Ok(());
        }
        self.files.forecasts.write(Forecast {
            date: day,
            store_id: shelf.store + 1,
            product_id: shelf.product_id(),
            forecasted_demand: self.random.random_range(100..=500),
            actual_demand: self.random.random_range(90..=510),
        })
    }
}

// === impl Shelf ===

impl Shelf {
    fn number(self) -> u32 {
        self.store * model::PRODUCTS + self.product
    }

    fn product_id(self) -> u32 {
        model::FIRST_PRODUCT + self.product
    }
}

fn stores() -> u32 {
    u32::try_from(model::STORES.len()).expect("the stores can be counted")
}

fn write_names(file: &mut TableFile, names: &[&'static str]) -> Result<(), Error> {
    (1..)
        .zip(names)
        .try_for_each(|(id, name)| file.write(Named { id, name }))
}
