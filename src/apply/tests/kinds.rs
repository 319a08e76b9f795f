//! Every kind of change ends in the document that PostgreSQL has.

use walferry_core::fakes::FakeChange;

use super::{Rig, insert, settle};

async fn mirrored(changes: &[FakeChange]) {
    let (rig, _sink) = Rig::live().await;
    rig.server.commit(changes);
    settle().await;
    rig.assert_mirrored();
}

#[tokio::test(start_paused = true)]
async fn an_update_without_its_toast_value_keeps_the_stored_one() {
    mirrored(&[FakeChange::Update("a", 1, None)]).await;
    mirrored(&[FakeChange::update("a", 1, "y")]).await;
}

#[tokio::test(start_paused = true)]
async fn a_key_change_moves_the_document_with_the_values_that_stayed() {
    mirrored(&[FakeChange::Rekey("a", 1, 9, None)]).await;
    mirrored(&[FakeChange::Rekey("a", 1, 9, Some("y".into()))]).await;
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_exchanged_within_a_transaction_keep_their_rows() {
    let rekey = |from, to| FakeChange::Rekey("a", from, to, None);
    mirrored(&[rekey(1, 9), rekey(2, 1), rekey(9, 2)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_truncate_takes_effect_where_it_stands_among_the_rows_of_other_partitions() {
    let truncate = FakeChange::Truncate(vec!["a", "b"]);
    mirrored(&[
        insert(3),
        insert(4),
        insert(5),
        truncate,
        insert(4),
        insert(6),
    ])
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_row_that_comes_and_goes_leaves_nothing() {
    mirrored(&[
        insert(3),
        FakeChange::Delete("a", 3),
        insert(3),
        FakeChange::Delete("a", 3),
    ])
    .await;
}
