//! Twelve CSV files like the published ones, of any size.
//!
//! - The same seed and number of sales give the same bytes.
//! - Every id that a row names has its row.
//! - Memory is a bit per customer, product, stock and forecast: rows are written as they are drawn.

mod files;
mod generator;
mod rows;
mod seen;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Error;

use files::Files;
use generator::Generator;

/// How often progress is told, in sales.
const STEP: u32 = 10_000;

/// What to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many rows `transactions.csv` gets, at least 1.
    pub sales: u32,
    /// What the random numbers grow from.
    pub seed: u64,
}

/// What was generated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Generated {
    /// Where the files are.
    pub directory: PathBuf,
    /// The seed they grew from.
    pub seed: u64,
    /// Each table with its rows.
    pub tables: Vec<Rows>,
}

/// A table and how many rows its file has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// The table's name.
    pub table: &'static str,
    /// Without the header line.
    pub rows: u64,
}

// === impl Generated ===

impl fmt::Display for Generated {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Rows { table, rows } in &self.tables {
            writeln!(formatter, "{table:<22} {rows:>12}")?;
        }
        writeln!(formatter, "written to {}", self.directory.display())
    }
}

/// Writes the files into `directory`, which is made if need be; `progress` hears how many sales are written.
///
/// # Errors
/// [`Error::Write`] naming the file or directory.
pub fn generate(
    plan: Plan,
    directory: &Path,
    mut progress: impl FnMut(u32),
) -> Result<Generated, Error> {
    let files = Files::create(directory)?;
    let mut generator = Generator::new(plan, files);
    generator.write_masters()?;
    for sale in 0..plan.sales {
        generator.write_sale(sale)?;
        if sale % STEP == 0 {
            progress(sale);
        }
    }
    let tables = generator.finish()?;
    Ok(Generated {
        directory: directory.to_owned(),
        seed: plan.seed,
        tables,
    })
}
