//! Rule 2: which ordinals a change owns.

use walferry_core::fakes::FakeChange;

use super::{Rig, insert, settle};

/// The ordinals of all records of one transaction, sorted, with whether they are tombstones.
async fn ordinals(changes: &[FakeChange]) -> Vec<(u64, bool)> {
    let rig = Rig::streaming().await;
    let _term = rig.start();
    rig.server.commit(changes);
    settle().await;
    let rows = rig.kafka.all_rows();
    let mut found: Vec<_> = rows
        .iter()
        .map(|row| (row.stamp.ordinal, row.value.is_none()))
        .collect();
    found.sort_unstable();
    found
}

#[tokio::test(start_paused = true)]
async fn rule_2_an_insert_and_an_update_have_the_odd_ordinal_and_a_delete_the_even_one() {
    let changes = [
        insert(1),
        FakeChange::update("a", 1, "y"),
        FakeChange::Delete("a", 1),
    ];
    assert_eq!(
        ordinals(&changes).await,
        [(1, false), (3, false), (4, false), (4, true)]
    );
}

#[tokio::test(start_paused = true)]
async fn rule_2_the_halves_of_a_key_change_have_ordinals_of_their_own() {
    for value in [None, Some("y".to_owned())] {
        let changes = [insert(1), FakeChange::Rekey("a", 1, 2, value)];
        assert_eq!(
            ordinals(&changes).await,
            [(1, false), (2, false), (2, true), (3, false)]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rule_2_a_truncate_owns_ordinals_for_each_of_its_tables() {
    let changes = [FakeChange::Truncate(vec!["a", "ignored", "b"]), insert(1)];
    assert_eq!(
        ordinals(&changes).await,
        [(0, false), (4, false), (7, false)]
    );
}

#[tokio::test(start_paused = true)]
async fn rule_2_ordinals_are_counted_before_any_filter() {
    let changes = [FakeChange::insert("ignored", 1, "x"), insert(1)];
    assert_eq!(ordinals(&changes).await, [(3, false)]);
}
