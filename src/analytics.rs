//! Rules over what was delivered: listed, checked, asked, and their answers kept.
//!
//! - Nothing about a rule is here: what is asked stands in its file.
//! - Whoever only asks changes nothing that lasts: views that are not there yet stand aside meanwhile.

mod check;
mod desk;
mod error;
mod freshness;
mod keeper;
mod missing;
mod refresh;
mod rules;
mod schedule;

pub use check::{Checked, check};
pub use desk::{Answered, Desk};
pub use error::AnalyticsError;
pub use freshness::{Freshness, Incremental};
pub use missing::histories;
pub use refresh::{Outcome, Refreshed, refresh};
pub use rules::load;
pub(crate) use schedule::keep_fresh;
