//! Claims, fences, and answers that get lost.

use std::time::Instant;

use bson::doc;
use walferry_core::{Class, RowEvent, Sink, Tasks};
use walferry_mongodb::Writer;

use crate::support::{Fixture, Tested, checkpoint, columns, document, int, row};

#[tokio::test]
async fn a_new_pipeline_has_no_checkpoint_and_a_claimed_one_gives_back_the_last() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.sink().await;
    assert_eq!(sink.claim().await?, None);
    assert_eq!(sink.claim().await?, None);
    sink.apply(sink.batch(), &checkpoint(41)).await?;
    let columns = columns();
    fixture
        .apply(
            &mut sink,
            vec![RowEvent::Insert(row(&columns, 1, 2, Some("x")))],
        )
        .await?;
    sink.apply(sink.batch(), &checkpoint(42)).await?;
    assert_eq!(sink.claim().await?, Some(checkpoint(42)));
    let position = fixture.position().await;
    assert_eq!(
        (int(position.get("epoch")), int(position.get("seq"))),
        (3, 3)
    );
    assert_eq!(fixture.documents("t").await, [document(1, 2, "x")]);
    Ok(())
}

#[tokio::test]
async fn rule_14_a_second_claim_fences_the_first() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut first = fixture.claimed().await;
    let insert = |id| vec![RowEvent::Insert(row(&columns, id, 0, Some("")))];
    fixture.apply(&mut first, insert(1)).await?;
    let mut second = fixture.claimed().await;
    let fenced = fixture.apply(&mut first, insert(2)).await.unwrap_err();
    assert_eq!(fenced.class(), Class::Fenced, "{fenced}");
    let unclaimed = first
        .apply(first.batch(), &checkpoint(5))
        .await
        .unwrap_err();
    assert_eq!(unclaimed.class(), Class::Transient, "{unclaimed}");
    fixture.apply(&mut second, insert(3)).await?;
    let mut third = fixture.claimed().await;
    let fenced = second
        .apply(second.batch(), &checkpoint(5))
        .await
        .unwrap_err();
    assert_eq!(fenced.class(), Class::Fenced, "{fenced}");
    fixture.apply(&mut third, insert(4)).await?;
    let expected = [document(1, 0, ""), document(3, 0, ""), document(4, 0, "")];
    assert_eq!(fixture.documents("t").await, expected);
    Ok(())
}

#[tokio::test]
async fn rule_14_a_claim_ends_an_orphaned_transaction_at_once() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut orphan = fixture.claimed().await;
    let mut batch = orphan.batch();
    let event = RowEvent::Insert(row(&columns, 1, 0, Some("")));
    walferry_core::Batch::push(&mut batch, &fixture.target(0), event)?;
    let block = doc! {
        "failCommands": ["commitTransaction"], "blockConnection": true, "blockTimeMS": 600_000,
    };
    let alone = fixture.fail(1, block).await;
    let task = Tasks::default().spawn(async move { orphan.apply(batch, &checkpoint(1)).await });
    fixture.until_met(&alone).await;
    assert!(!task.is_finished());
    let begun = Instant::now();
    let mut successor = fixture.sink().await;
    assert_eq!(successor.claim().await?, None);
    assert!(
        begun.elapsed() < walferry_harness::PATIENCE,
        "{:?}",
        begun.elapsed()
    );
    drop(alone);
    let fenced = task.await?.unwrap_err();
    assert_eq!(fenced.class(), Class::Fenced, "{fenced}");
    assert!(fixture.documents("t").await.is_empty());
    successor.apply(successor.batch(), &checkpoint(2)).await?;
    Ok(())
}

#[tokio::test]
async fn rule_15_a_commit_whose_answer_is_lost_takes_effect_once() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let mut sink = fixture.claimed().await;
    let failures = [
        doc! { "failCommands": ["commitTransaction"], "closeConnection": true },
        // Done, but the server does not know whether for good.
        doc! {
            "failCommands": ["commitTransaction"],
            "writeConcernError": { "code": 64, "errmsg": "waiting timed out" },
        },
        doc! { "failCommands": ["commitTransaction"], "errorCode": 91 },
        // Aborted for certain: everything is done again.
        doc! {
            "failCommands": ["commitTransaction"],
            "errorCode": 251,
            "errorLabels": ["TransientTransactionError"],
        },
        doc! {
            "failCommands": ["insert"],
            "errorCode": 112,
            "errorLabels": ["TransientTransactionError"],
        },
        doc! { "failCommands": ["update"], "closeConnection": true },
    ];
    let mut id = 0;
    for failure in failures {
        for times in 1..=4 {
            let alone = fixture.fail(times, failure.clone()).await;
            id += 1;
            let event = RowEvent::Insert(row(&columns, id, 0, Some("")));
            fixture.apply(&mut sink, vec![event]).await?;
            drop(alone);
            assert_eq!(int(fixture.position().await.get("seq")), i64::from(id));
        }
    }
    assert_eq!(fixture.documents("t").await.len(), usize::try_from(id)?);
    Ok(())
}

#[tokio::test]
async fn rule_15_a_checkpoint_whose_answer_is_lost_is_recognised() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    let failures = [
        doc! { "failCommands": ["update"], "closeConnection": true },
        doc! {
            "failCommands": ["update"],
            "writeConcernError": { "code": 64, "errmsg": "waiting timed out" },
        },
    ];
    for (seq, failure) in (1..).zip(failures) {
        let alone = fixture.fail(1, failure).await;
        sink.apply(sink.batch(), &checkpoint(seq)).await?;
        drop(alone);
        assert_eq!(int(fixture.position().await.get("seq")), seq);
    }
    Ok(())
}

#[tokio::test]
async fn rule_14_a_claim_is_repeated_while_the_position_is_held() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    let failures = [
        doc! { "failCommands": ["findAndModify"], "errorCode": 50 },
        doc! { "failCommands": ["findAndModify"], "errorCode": 112 },
    ];
    for failure in failures {
        let _alone = fixture.fail(2, failure).await;
        assert_eq!(sink.claim().await?, None);
    }
    Ok(())
}

#[tokio::test]
async fn a_claim_that_may_not_kill_the_last_session_names_the_grant() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    let failure = doc! { "failCommands": ["killSessions"], "errorCode": 13 };
    let _alone = fixture.fail(1, failure).await;
    let refused = sink.claim().await.unwrap_err();
    assert_eq!(refused.class(), Class::Fatal);
    assert!(refused.to_string().contains("killAnySession"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_position_that_someone_else_changed_is_a_named_error() -> Tested {
    let fixture = Fixture::new().await;
    let positions = fixture.database.client().database("_walferry");
    let positions = positions.collection::<bson::Document>("positions");
    let mine = doc! { "_id": &fixture.settings.pipeline };
    let changes = [
        (doc! { "$inc": { "seq": 5_i64 } }, "was changed or removed"),
        (doc! { "$inc": { "seq": -1_i64 } }, "went back"),
        (doc! { "$inc": { "epoch": -1_i64 } }, "went back"),
        (
            doc! { "$set": { "session": bson::Uuid::new() } },
            "went back",
        ),
    ];
    for (change, expected) in changes {
        let mut sink = fixture.claimed().await;
        sink.apply(sink.batch(), &checkpoint(1)).await?;
        positions.update_one(mine.clone(), change).await?;
        let refused = sink.apply(sink.batch(), &checkpoint(1)).await.unwrap_err();
        assert_eq!(refused.class(), Class::Fatal, "{refused}");
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    let mut sink = fixture.claimed().await;
    positions.delete_one(mine.clone()).await?;
    let refused = sink.apply(sink.batch(), &checkpoint(1)).await.unwrap_err();
    assert!(
        refused.to_string().contains("was changed or removed"),
        "{refused}"
    );
    let mut sink = fixture.claimed().await;
    sink.apply(sink.batch(), &checkpoint(1)).await?;
    positions
        .update_one(mine, doc! { "$set": { "format": 99 } })
        .await?;
    let refused = sink.claim().await.unwrap_err();
    assert!(refused.to_string().contains("format 99"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_transient_and_a_url_never_shows() -> Tested {
    let mut fixture = Fixture::new().await;
    fixture.settings.url = "mongodb://u:s3cret@127.0.0.1:1/?serverSelectionTimeoutMS=200".into();
    let gone = walferry_mongodb::MongoSink::connect(fixture.settings.clone())
        .await
        .unwrap_err();
    assert_eq!(
        walferry_core::Classify::class(&gone),
        Class::Transient,
        "{gone}"
    );
    let shown = format!(
        "{:?} {}",
        fixture.settings,
        walferry_core::Fault::from(gone)
    );
    assert!(!shown.contains("s3cret"), "{shown}");
    fixture.settings.url = "mongodb://u:s3cr@et@host:x/".into();
    let invalid = walferry_mongodb::MongoSink::connect(fixture.settings)
        .await
        .unwrap_err();
    assert_eq!(walferry_core::Classify::class(&invalid), Class::Fatal);
    assert!(
        !walferry_core::Fault::from(invalid)
            .to_string()
            .contains("s3cr")
    );
    Ok(())
}

#[tokio::test]
async fn rule_14_a_process_that_was_overtaken_never_takes_the_pipeline_back() -> Tested {
    let fixture = Fixture::new().await;
    let columns = columns();
    let insert = |id| vec![RowEvent::Insert(row(&columns, id, 0, Some("")))];
    let process = Writer::new();
    let mut sink = fixture.sink().await.with_writer(process.clone());
    sink.claim().await?;
    let failure = doc! { "failCommands": ["insert"], "errorCode": 50 };
    let alone = fixture.fail(1, failure).await;
    let passing = fixture.apply(&mut sink, insert(1)).await.unwrap_err();
    assert_eq!(passing.class(), Class::Transient, "{passing}");
    drop(alone);
    let mut newcomer = fixture.claimed().await;
    for mut again in [sink, fixture.sink().await.with_writer(process)] {
        let fenced = again.claim().await.unwrap_err();
        assert_eq!(fenced.class(), Class::Fenced, "{fenced}");
    }
    fixture.apply(&mut newcomer, insert(2)).await?;
    Ok(())
}

#[tokio::test]
async fn rule_14_an_own_claim_whose_answer_is_lost_is_not_taken_for_anothers() -> Tested {
    let fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    let failures = [
        doc! {
            "failCommands": ["findAndModify"],
            "writeConcernError": { "code": 64, "errmsg": "waiting timed out" },
        },
        doc! { "failCommands": ["findAndModify"], "closeConnection": true },
    ];
    for failure in failures {
        let _alone = fixture.fail(1, failure).await;
        let first = sink.claim().await;
        if let Err(passing) = first {
            assert_eq!(passing.class(), Class::Transient, "{passing}");
            sink.claim().await?;
        }
    }
    assert!(int(fixture.position().await.get("epoch")) >= 4);
    Ok(())
}

#[tokio::test]
async fn a_position_that_went_back_is_named_when_it_is_claimed_again() -> Tested {
    let fixture = Fixture::new().await;
    let positions = fixture.database.client().database("_walferry");
    let positions = positions.collection::<bson::Document>("positions");
    let mine = doc! { "_id": &fixture.settings.pipeline };
    let mut sink = fixture.claimed().await;
    let back = doc! { "$inc": { "epoch": -1_i64 } };
    positions.update_one(mine, back).await?;
    let refused = sink.claim().await.unwrap_err();
    assert_eq!(refused.class(), Class::Fatal, "{refused}");
    assert!(refused.to_string().contains("went back"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_position_of_another_database_is_refused_and_its_writer_left_alone() -> Tested {
    let mut fixture = Fixture::new().await;
    let mut sink = fixture.claimed().await;
    sink.apply(sink.batch(), &checkpoint(1)).await?;
    let configured = fixture.settings.database.clone();
    fixture.settings.database.push_str("-other");
    let refused = fixture.sink().await.claim().await.unwrap_err();
    assert_eq!(refused.class(), Class::Fatal, "{refused}");
    let remedy = format!("set sink.database = \"{configured}\" again");
    assert!(refused.to_string().contains(&remedy), "{refused}");
    sink.apply(sink.batch(), &checkpoint(2)).await?;
    Ok(())
}
