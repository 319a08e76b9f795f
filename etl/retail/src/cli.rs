//! What `retail` understands on its command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// The retail system behind walferry: schema, data and live sales.
///
/// A database is ready for change data capture after `install` and `load`; `sell` then makes it live. Progress goes
/// to standard error, the result to standard output.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "retail", version)]
pub struct Cli {
    /// Print the result as one JSON document.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `retail` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write twelve CSV files distributed like the published data.
    ///
    /// One file per table with a header line, an empty field for NULL and t or f for a boolean; suppliers have no
    /// file, their ids stand in products. The same seed and number of sales always give the same bytes. Files of an
    /// earlier run are overwritten.
    Generate(Generate),
    /// Make the tables, the sale procedure, the tenants' rights and the publication.
    ///
    /// Needs a superuser, because it makes a publication for all tables and a role that replicates. May be run
    /// again. No role gets a password.
    Install(Install),
    /// Load a directory of CSV files, or one flat file of sales, into an installed database.
    ///
    /// A flat file has a line for each product of a sale, with all that is known of both. Of each customer, product,
    /// stock and so on its first line holds; later ones that say otherwise are counted, lines that are no sale are
    /// left out and counted by reason.
    ///
    /// All files in one transaction: after an error nothing is loaded. Rows whose key is there already are left as
    /// they are and counted, so loading twice is loading once. Stock is loaded as counted: history does not take
    /// from it. Afterwards every store has its role, `store_user_<id>`.
    Load(Load),
    /// Sell, at a steady rate, until the time is over or Ctrl-C is pressed.
    ///
    /// Sales are due by a schedule, so a slow moment is made up for. A sale that is refused for lack of stock is
    /// counted, and a product that runs low is restocked, so this can go on for days. With a store's own role in
    /// the URL only that store sells.
    Sell(Sell),
    /// Tell a short story of fraud, live, and name the alerts that each sale raises.
    ///
    /// Customers, products and stores are those of the published data where they fit, else others that do; all
    /// that have to fit is stock, price, income and a quiet month. The story plays on the two days after the newest
    /// sale. Its last event is a change of the stock by hand, which no sale explains.
    Story(Story),
}

/// Which database.
#[derive(Args)]
pub struct Database {
    /// Where PostgreSQL is, as `postgres://user@host:port/database`; the connection is not encrypted.
    #[arg(long, env = "RETAIL_URL", hide_env_values = true)]
    pub url: String,
}

/// Options of `retail generate`.
#[derive(Args, Debug)]
pub struct Generate {
    /// How many sales to write.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub sales: u32,
    /// What the random numbers grow from.
    #[arg(long)]
    pub seed: u64,
    /// The directory to write into, made if need be.
    #[arg(long, value_name = "DIR", default_value = "retail-data")]
    pub out: PathBuf,
}

/// Options of `retail install`.
#[derive(Args, Debug)]
pub struct Install {
    /// Which database.
    #[command(flatten)]
    pub database: Database,
}

/// Options of `retail load`.
#[derive(Args, Debug)]
pub struct Load {
    /// The directory with the twelve CSV files, or the flat file.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Which database.
    #[command(flatten)]
    pub database: Database,
}

/// Options of `retail sell`.
#[derive(Args, Debug)]
pub struct Sell {
    /// Which database.
    #[command(flatten)]
    pub database: Database,
    /// Sales per second.
    #[arg(long, value_parser = rate)]
    pub rate: f64,
    /// How long to sell; without it, until Ctrl-C.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// What the random numbers grow from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How many sales may be under way at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub connections: u16,
}

/// Options of `retail story`.
#[derive(Args, Debug)]
pub struct Story {
    /// Which database.
    #[command(flatten)]
    pub database: Database,
    /// How long to wait after each event, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 1)]
    pub pause: u64,
}

// === impl Database ===

/// A URL may hold a password.
impl std::fmt::Debug for Database {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Database").finish_non_exhaustive()
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if (0.001..=1_000_000.0).contains(&rate) => Ok(rate),
        _ => Err("a number from 0.001 to 1000000 is needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_password_in_the_url_is_not_shown_by_debug() {
        let cli =
            Cli::try_parse_from(["retail", "install", "--url", "postgres://u:secret@h/d"]).unwrap();
        assert!(!format!("{cli:?}").contains("secret"));
    }

    #[test]
    fn a_rate_of_nothing_is_refused() {
        for text in ["0", "-1", "NaN", "inf", "fast"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
