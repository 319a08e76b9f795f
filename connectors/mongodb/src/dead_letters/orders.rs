//! What operators ask about dead letters, as it stands among their orders.

use bson::{Document, doc};
use walferry_core::{LetterAction, LetterChoice, LetterOrder};

use crate::order;

pub(crate) fn order_document(order: &LetterOrder) -> Document {
    let action = match order.action {
        LetterAction::Retry => "retry",
        LetterAction::Discard => "discard",
    };
    let mut document = doc! { "id": &order.id, "action": action };
    match &order.choice {
        LetterChoice::All => {}
        LetterChoice::Table(table) => drop(document.insert("table", table)),
        LetterChoice::Letter(letter) => drop(document.insert("letter", letter)),
    }
    document.extend(order::to_document(&order.order));
    document
}

pub(crate) fn order_of(document: &Document) -> Option<LetterOrder> {
    let text = |name| document.get_str(name).ok().map(str::to_owned);
    let choice = match (text("table"), text("letter")) {
        (Some(table), _) => LetterChoice::Table(table),
        (None, Some(letter)) => LetterChoice::Letter(letter),
        (None, None) => LetterChoice::All,
    };
    Some(LetterOrder {
        id: text("id")?,
        action: match &*text("action")? {
            "retry" => LetterAction::Retry,
            "discard" => LetterAction::Discard,
            _ => return None,
        },
        choice,
        order: order::of_document(document),
    })
}
