//! What happens, and whom it should happen to.
//!
//! The numbers are those of the published data; other data has others that fit as well.

/// One customer, one product, one or more sales.
#[derive(Debug)]
pub(super) struct Scene {
    /// What it is, in a few words.
    pub(super) what: &'static str,
    /// Whom the published data has for it; 0 for nobody in particular.
    pub(super) customer_id: i32,
    pub(super) product_id: i32,
    /// The stores that it needs, in the order of [`Visit::store`].
    pub(super) stores: &'static [i32],
    /// Units in each sale.
    pub(super) quantity: i32,
    /// What each sale comes to.
    pub(super) amount: Amount,
    /// Whether that is far too much for the customer's income; otherwise it is well below.
    pub(super) is_beyond_income: bool,
    /// Paid in cash; otherwise in another way.
    pub(super) is_cash: bool,
    pub(super) visits: &'static [Visit],
}

/// The bounds of a sale's amount: of itself, and in standard deviations above the mean of the store's sales.
#[derive(Debug)]
pub(super) struct Amount {
    pub(super) least: i32,
    pub(super) below: i32,
    pub(super) least_deviations: f64,
    pub(super) most_deviations: f64,
}

/// One sale of a scene.
#[derive(Debug)]
pub(super) struct Visit {
    /// Which of the scene's stores.
    pub(super) store: usize,
    /// 0 or 1: which of the story's two days.
    pub(super) day: usize,
    pub(super) time: &'static str,
    pub(super) alerts: &'static [&'static str],
}

/// Nothing that any rule about amounts looks at.
const USUAL: Amount = Amount {
    least: 0,
    below: 7_000,
    least_deviations: -100.0,
    most_deviations: 2.0,
};

pub(super) static SCENES: [Scene; 5] = [
    Scene {
        what: "the same again, within four minutes",
        customer_id: 2824,
        product_id: 843,
        stores: &[1],
        quantity: 1,
        amount: USUAL,
        is_beyond_income: false,
        is_cash: false,
        visits: &[
            visit(0, 0, "10:00:00", &[]),
            visit(0, 0, "10:01:30", &["F01 critical", "F03 high"]),
            visit(0, 0, "10:03:40", &["F01 high"]),
        ],
    },
    Scene {
        what: "two cities, two hours",
        customer_id: 1409,
        product_id: 391,
        stores: &[2, 3],
        quantity: 1,
        amount: USUAL,
        is_beyond_income: false,
        is_cash: false,
        visits: &[
            visit(0, 0, "11:00:00", &[]),
            visit(1, 0, "13:00:00", &["F02 high"]),
        ],
    },
    Scene {
        what: "far above the store's norm",
        customer_id: 5506,
        product_id: 391,
        stores: &[3],
        quantity: 12,
        amount: Amount {
            least: 0,
            below: 1_000_000,
            least_deviations: 4.0,
            most_deviations: 100.0,
        },
        is_beyond_income: false,
        is_cash: false,
        visits: &[visit(0, 0, "14:30:00", &["F04 medium"])],
    },
    Scene {
        what: "a large part of a year's income",
        customer_id: 1570,
        product_id: 843,
        stores: &[1],
        quantity: 40,
        amount: Amount {
            least: 7_000,
            below: 9_000,
            least_deviations: -100.0,
            most_deviations: 2.5,
        },
        is_beyond_income: true,
        is_cash: false,
        visits: &[visit(0, 0, "16:00:00", &["F05 medium"])],
    },
    Scene {
        what: "cash, at night, just under 10,000",
        customer_id: 0,
        product_id: 135,
        stores: &[3],
        quantity: 5,
        amount: Amount {
            least: 9_000,
            below: 10_000,
            least_deviations: -100.0,
            most_deviations: 2.95,
        },
        is_beyond_income: false,
        is_cash: true,
        visits: &[visit(0, 1, "03:10:00", &["F06 low", "F09 low"])],
    },
];

// === impl Visit ===

const fn visit(
    store: usize,
    day: usize,
    time: &'static str,
    alerts: &'static [&'static str],
) -> Visit {
    Visit {
        store,
        day,
        time,
        alerts,
    }
}
