//! One row of each table, its fields in the order of the file's columns (whose names are the table's).

use serde::{Serialize, Serializer};

use crate::calendar::{Day, Moment};

/// A row of `categories`, `stores`, `paymentmethods`, `promotions` or `weather`.
#[derive(Serialize)]
pub(super) struct Named {
    pub(super) id: u32,
    pub(super) name: &'static str,
}

#[derive(Serialize)]
pub(super) struct Product {
    pub(super) id: u32,
    pub(super) name: &'static str,
    pub(super) category_id: u32,
    pub(super) supplier_id: u32,
    pub(super) unit_price: Cents,
    pub(super) reorder_point: u32,
    pub(super) reorder_quantity: u32,
}

#[derive(Serialize)]
pub(super) struct Customer {
    pub(super) id: u32,
    pub(super) age: u32,
    pub(super) gender: &'static str,
    pub(super) income: Cents,
    pub(super) loyalty_level: &'static str,
}

#[derive(Serialize)]
pub(super) struct Stock {
    pub(super) store_id: u32,
    pub(super) product_id: u32,
    pub(super) inventory_level: u32,
}

#[derive(Serialize)]
pub(super) struct Forecast {
    pub(super) date: Day,
    pub(super) store_id: u32,
    pub(super) product_id: u32,
    pub(super) forecasted_demand: u32,
    pub(super) actual_demand: u32,
}

#[derive(Serialize)]
pub(super) struct Transaction {
    pub(super) id: u32,
    pub(super) date: Moment,
    pub(super) customer_id: u32,
    pub(super) store_id: u32,
    pub(super) payment_method_id: u32,
    pub(super) promotion_applied: Flag,
    pub(super) promotion_id: Option<i32>,
    pub(super) weather_id: u32,
    pub(super) stockout: Flag,
}

#[derive(Serialize)]
pub(super) struct Detail {
    pub(super) transaction_id: u32,
    pub(super) product_id: u32,
    pub(super) quantity: i32,
}

#[derive(Serialize)]
pub(super) struct Application {
    pub(super) transaction_id: u32,
    pub(super) promotion_id: i32,
}

/// An amount of money, written with two decimals.
#[derive(Clone, Copy)]
pub(super) struct Cents(pub(super) u32);

/// A boolean, written as `t` or `f`.
#[derive(Clone, Copy)]
pub(super) struct Flag(pub(super) bool);

// === impl Cents ===

impl Serialize for Cents {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}.{:02}", self.0 / 100, self.0 % 100))
    }
}

// === impl Flag ===

impl Serialize for Flag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.0 { "t" } else { "f" })
    }
}
