//! Who asks for something, when and why, as a document.

use bson::{DateTime, Document, doc};
use walferry_core::Order;

/// An order as it is kept.
pub(crate) fn to_document(order: &Order) -> Document {
    doc! { "by": &order.by, "at": DateTime::from_millis(order.at), "reason": order.reason.as_deref() }
}

/// What was kept.
pub(crate) fn of_document(document: &Document) -> Order {
    let text = |name| document.get_str(name).ok().map(str::to_owned);
    Order {
        by: text("by").unwrap_or_default(),
        at: document
            .get_datetime("at")
            .map_or(0, |at| at.timestamp_millis()),
        reason: text("reason"),
    }
}
