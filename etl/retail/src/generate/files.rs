//! The twelve files while they are written.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use csv::{Writer, WriterBuilder};
use serde::Serialize;

use crate::Error;
use crate::table::{self, Table};

use super::Rows;

const BUFFER_BYTES: usize = 256 * 1024;

pub(super) struct Files {
    pub(super) categories: TableFile,
    pub(super) stores: TableFile,
    pub(super) payment_methods: TableFile,
    pub(super) promotions: TableFile,
    pub(super) weather: TableFile,
    pub(super) products: TableFile,
    pub(super) customers: TableFile,
    pub(super) inventory: TableFile,
    pub(super) forecasts: TableFile,
    pub(super) transactions: TableFile,
    pub(super) details: TableFile,
    pub(super) applications: TableFile,
}

pub(super) struct TableFile {
    table: &'static str,
    path: PathBuf,
    writer: Writer<File>,
    rows: u64,
}

// === impl Files ===

impl Files {
    pub(super) fn create(directory: &Path) -> Result<Self, Error> {
        fs::create_dir_all(directory).map_err(|source| Error::Write {
            path: directory.to_owned(),
            source,
        })?;
        let create = |table: &'static Table| TableFile::create(directory, table);
        Ok(Self {
            categories: create(&table::CATEGORIES)?,
            stores: create(&table::STORES)?,
            payment_methods: create(&table::PAYMENT_METHODS)?,
            promotions: create(&table::PROMOTIONS)?,
            weather: create(&table::WEATHER)?,
            products: create(&table::PRODUCTS)?,
            customers: create(&table::CUSTOMERS)?,
            inventory: create(&table::INVENTORY)?,
            forecasts: create(&table::DEMAND_FORECAST)?,
            transactions: create(&table::TRANSACTIONS)?,
            details: create(&table::TRANSACTION_DETAILS)?,
            applications: create(&table::PROMOTION_APPLICATIONS)?,
        })
    }

    /// Writes what is still in memory and tells the rows of each.
    pub(super) fn finish(self) -> Result<Vec<Rows>, Error> {
        [
            self.categories,
            self.stores,
            self.payment_methods,
            self.promotions,
            self.weather,
            self.products,
            self.customers,
            self.inventory,
            self.forecasts,
            self.transactions,
            self.details,
            self.applications,
        ]
        .into_iter()
        .map(TableFile::finish)
        .collect()
    }
}

// === impl TableFile ===

impl TableFile {
    fn create(directory: &Path, table: &'static Table) -> Result<Self, Error> {
        let path = directory.join(table.file());
        let mut writer = WriterBuilder::new()
            .has_headers(false)
            .buffer_capacity(BUFFER_BYTES)
            .from_path(&path)
            .map_err(|error| write_error(&path, error))?;
        writer
            .write_record(table.columns)
            .map_err(|error| write_error(&path, error))?;
        Ok(Self {
            table: table.name,
            path,
            writer,
            rows: 0,
        })
    }

    pub(super) fn write(&mut self, row: impl Serialize) -> Result<(), Error> {
        self.rows += 1;
        self.writer
            .serialize(row)
            .map_err(|error| write_error(&self.path, error))
    }

    fn finish(mut self) -> Result<Rows, Error> {
        self.writer.flush().map_err(|source| Error::Write {
            path: self.path,
            source,
        })?;
        Ok(Rows {
            table: self.table,
            rows: self.rows,
        })
    }
}

fn write_error(path: &Path, error: csv::Error) -> Error {
    Error::Write {
        path: path.to_owned(),
        source: io::Error::from(error),
    }
}
