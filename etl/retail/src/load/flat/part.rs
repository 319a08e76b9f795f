//! What each table takes of a line of the flat file.

/// A table, its key, its other columns, and which lines have a row of it.
pub(super) struct Part {
    pub(super) table: &'static str,
    key: &'static str,
    others: &'static str,
    lines: &'static str,
}

/// In an order in which every foreign key points backwards.
pub(super) static PARTS: [Part; 9] = [
    part(
        "suppliers",
        "supplier_id",
        "lead_time",
        "supplier_id IS NOT NULL",
    ),
    part(
        "products",
        "product_id",
        "product_name, category_id, supplier_id, unit_price, reorder_point, reorder_quantity",
        "true",
    ),
    part("stores", "store_id", "location", "true"),
    part(
        "customers",
        "customer_id",
        "age, gender, income, loyalty_level",
        "true",
    ),
    part(
        "inventory",
        "store_id, product_id",
        "inventory_level",
        "inventory_level IS NOT NULL",
    ),
    part(
        "demandforecast",
        "forecast_date, store_id, product_id",
        "forecasted_demand, actual_demand",
        "num_nonnulls(forecasted_demand, actual_demand) > 0",
    ),
    part(
        "transactions",
        "transaction_id",
        "transaction_date, customer_id, store_id, payment_method_id, promotion_applied, promotion_id, weather_id, stockout",
        "true",
    ),
    part(
        "transactiondetails",
        "transaction_id, product_id",
        "quantity, unit_price",
        "true",
    ),
    part(
        "promotionapplications",
        "transaction_id, promotion_id",
        "",
        "promotion_applied AND promotion_id IS NOT NULL",
    ),
];

// === impl Part ===

const fn part(
    table: &'static str,
    key: &'static str,
    others: &'static str,
    lines: &'static str,
) -> Part {
    Part {
        table,
        key,
        others,
        lines,
    }
}

impl Part {
    fn columns(&self) -> Vec<&str> {
        let columns = self.key.split(", ").chain(self.others.split(", "));
        columns.filter(|column| !column.is_empty()).collect()
    }

    /// How many keys the file has.
    pub(super) fn keys(&self) -> String {
        let Self { key, lines, .. } = self;
        format!("SELECT count(*) FROM (SELECT DISTINCT {key} FROM sold WHERE {lines}) AS keys")
    }

    pub(super) fn insert(&self) -> String {
        let columns = self.columns().join(", ");
        let Self {
            table, key, lines, ..
        } = self;
        format!(
            "INSERT INTO {table} ({columns})
             SELECT DISTINCT ON ({key}) {columns} FROM sold WHERE {lines} ORDER BY {key}, line
             ON CONFLICT ({key}) DO NOTHING"
        )
    }

    /// How many lines say otherwise than what is there now.
    pub(super) fn different(&self) -> String {
        let row = |of: &str| {
            let columns = self.columns().into_iter();
            let columns = columns.map(|column| format!("{of}.{column}"));
            columns.collect::<Vec<_>>().join(", ")
        };
        let Self {
            table, key, lines, ..
        } = self;
        let (sold, there) = (row("sold"), row("there"));
        format!(
            "SELECT count(*) FROM (SELECT * FROM sold WHERE {lines}) AS sold JOIN {table} AS there USING ({key})
              WHERE ({sold}) IS DISTINCT FROM ({there})"
        )
    }
}
