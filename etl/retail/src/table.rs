//! The tables that have a CSV file, in an order in which every foreign key points backwards.

/// A table and its file, `<name>.csv`.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) key: &'static [&'static str],
    /// The columns that a file must have, in the order of the published data.
    pub(crate) columns: &'static [&'static str],
    /// Columns that a file may have besides.
    pub(crate) optional: &'static [&'static str],
    /// The key's sequence has to stand after the loaded rows.
    pub(crate) numbered: bool,
}

pub(crate) const CATEGORIES: Table = numbered(
    "categories",
    &["category_id"],
    &["category_id", "category_name"],
);
pub(crate) const STORES: Table = keyed("stores", &["store_id"], &["store_id", "location"]);
pub(crate) const PAYMENT_METHODS: Table = numbered(
    "paymentmethods",
    &["method_id"],
    &["method_id", "method_name"],
);
pub(crate) const PROMOTIONS: Table = numbered(
    "promotions",
    &["promotion_id"],
    &["promotion_id", "promotion_type"],
);
pub(crate) const WEATHER: Table = numbered(
    "weather",
    &["weather_id"],
    &["weather_id", "weather_conditions"],
);
pub(crate) const PRODUCTS: Table = keyed(
    "products",
    &["product_id"],
    &[
        "product_id",
        "product_name",
        "category_id",
        "supplier_id",
        "unit_price",
        "reorder_point",
        "reorder_quantity",
    ],
);
pub(crate) const CUSTOMERS: Table = keyed(
    "customers",
    &["customer_id"],
    &["customer_id", "age", "gender", "income", "loyalty_level"],
);
pub(crate) const INVENTORY: Table = keyed(
    "inventory",
    &["store_id", "product_id"],
    &["store_id", "product_id", "inventory_level"],
);
pub(crate) const DEMAND_FORECAST: Table = keyed(
    "demandforecast",
    &["forecast_date", "store_id", "product_id"],
    &[
        "forecast_date",
        "store_id",
        "product_id",
        "forecasted_demand",
        "actual_demand",
    ],
);
pub(crate) const TRANSACTIONS: Table = numbered(
    "transactions",
    &["transaction_id"],
    &[
        "transaction_id",
        "transaction_date",
        "customer_id",
        "store_id",
        "payment_method_id",
        "promotion_applied",
        "promotion_id",
        "weather_id",
        "stockout",
    ],
);
pub(crate) const TRANSACTION_DETAILS: Table = Table {
    optional: &["unit_price"],
    ..keyed(
        "transactiondetails",
        &["transaction_id", "product_id"],
        &["transaction_id", "product_id", "quantity"],
    )
};
pub(crate) const PROMOTION_APPLICATIONS: Table = keyed(
    "promotionapplications",
    &["transaction_id", "promotion_id"],
    &["transaction_id", "promotion_id"],
);

/// The flat file of sales: one line per product of a sale, with all that is known of both.
pub(crate) const FLAT: Table = keyed(
    "flat",
    &["transaction_id", "product_id"],
    &[
        "transaction_id",
        "customer_id",
        "product_id",
        "product_name",
        "category",
        "quantity_sold",
        "unit_price",
        "transaction_date",
        "store_id",
        "store_location",
        "inventory_level",
        "reorder_point",
        "reorder_quantity",
        "supplier_id",
        "supplier_lead_time",
        "customer_age",
        "customer_gender",
        "customer_income",
        "customer_loyalty_level",
        "payment_method",
        "promotion_applied",
        "promotion_type",
        "weather_conditions",
        "holiday_indicator",
        "weekday",
        "stockout_indicator",
        "forecasted_demand",
        "actual_demand",
    ],
);

pub(crate) static TABLES: [&Table; 12] = [
    &CATEGORIES,
    &STORES,
    &PAYMENT_METHODS,
    &PROMOTIONS,
    &WEATHER,
    &PRODUCTS,
    &CUSTOMERS,
    &INVENTORY,
    &DEMAND_FORECAST,
    &TRANSACTIONS,
    &TRANSACTION_DETAILS,
    &PROMOTION_APPLICATIONS,
];

// === impl Table ===

impl Table {
    pub(crate) fn file(&self) -> String {
        format!("{}.csv", self.name)
    }
}

const fn keyed(
    name: &'static str,
    key: &'static [&'static str],
    columns: &'static [&'static str],
) -> Table {
    Table {
        name,
        key,
        columns,
        optional: &[],
        numbered: false,
    }
}

const fn numbered(
    name: &'static str,
    key: &'static [&'static str],
    columns: &'static [&'static str],
) -> Table {
    Table {
        numbered: true,
        ..keyed(name, key, columns)
    }
}
