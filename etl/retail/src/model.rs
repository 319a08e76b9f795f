//! How the published data is distributed, measured on its 5,006 sales.
//!
//! It is uniform noise: stores, customers, products, hours, quantities and amounts are each drawn evenly and
//! independently of one another. What looks like a defect is one of the source and is kept, because the analytics
//! look for it: whether a promotion was applied says nothing about whether one is named.

use rand::Rng;

/// Products 100 to 999.
pub(crate) const FIRST_PRODUCT: u32 = 100;
pub(crate) const PRODUCTS: u32 = 900;
pub(crate) const FIRST_CUSTOMER: u32 = 1001;
/// History runs over this many days from 2024-01-01.
pub(crate) const DAYS: u32 = 260;

pub(crate) const STORES: [&str; 5] = [
    "Miami, FL",
    "Dallas, TX",
    "Los Angeles, CA",
    "Chicago, IL",
    "New York, NY",
];
pub(crate) const CATEGORIES: [&str; 2] = ["Electronics", "Appliances"];
pub(crate) const PAYMENT_METHODS: [&str; 4] =
    ["Credit Card", "Cash", "Digital Wallet", "Debit Card"];
pub(crate) const PROMOTIONS: [&str; 2] = ["Percentage Discount", "BOGO"];
pub(crate) const WEATHER: [&str; 4] = ["Stormy", "Rainy", "Sunny", "Cloudy"];
pub(crate) const PRODUCT_NAMES: [&str; 8] = [
    "Fridge",
    "TV",
    "Smartphone",
    "Tablet",
    "Laptop",
    "Camera",
    "Washing Machine",
    "Headphones",
];
pub(crate) const GENDERS: [&str; 3] = ["Male", "Female", "Other"];
pub(crate) const LOYALTY_LEVELS: [&str; 4] = ["Bronze", "Silver", "Gold", "Platinum"];

/// The customers that sales draw from, given how many sales there are: with 1.8 of them per sale, one customer in four
/// of those who buy at all buys again.
pub(crate) fn customer_pool(sales: u32) -> u32 {
    sales.saturating_add(sales / 5 * 4).max(1)
}

/// 2,611 of 5,006.
pub(crate) fn is_promotion_applied(random: &mut impl Rng) -> bool {
    random.random_ratio(522, 1000)
}

/// None in 3,409 of 5,006 sales, whether one was applied or not.
pub(crate) fn promotion(random: &mut impl Rng, promotions: &[i32]) -> Option<i32> {
    if promotions.is_empty() || random.random_ratio(681, 1000) {
        return None;
    }
    Some(pick(random, promotions))
}

/// 2,593 of 5,006.
pub(crate) fn is_stockout(random: &mut impl Rng) -> bool {
    random.random_ratio(518, 1000)
}

/// How many pieces of one product a sale takes.
pub(crate) fn quantity(random: &mut impl Rng) -> i32 {
    random.random_range(1..=5)
}

/// One of them, each as likely as the next. There must be one.
pub(crate) fn pick<T: Copy>(random: &mut impl Rng, choices: &[T]) -> T {
    choices[random.random_range(0..choices.len())]
}
