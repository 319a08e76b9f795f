//! Who may log in, and what is said to those who may not.

use walferry_core::{Class, Source};
use walferry_harness::{Postgres, PostgresOptions, fresh_directory};
use walferry_postgres::{ReplicationSource, Settings, SnapshotReader};

use crate::support::{Tested, database, database_on, refused};

/// The lines of `pg_hba.conf` that the shared server has.
pub(crate) fn hba() -> Vec<String> {
    let methods = [
        ("scram_user", "scram-sha-256"),
        ("md5_user", "md5"),
        ("plain_user", "password"),
    ];
    let line = |(user, method)| format!("host all {user} 127.0.0.1/32 {method}");
    methods.into_iter().map(line).collect()
}

#[tokio::test]
async fn every_method_of_authentication_lets_the_right_password_in() -> Tested {
    let database = database("").await;
    database
        .run(
            "create role scram_user login replication password 'pass€ ß';
             set password_encryption = 'md5'; create role md5_user login replication password 'pass';
             create role plain_user login replication password 'pass'; create role trusted_user login replication",
        )
        .await;
    let source = |login: &str| {
        let url = database.url.replace("postgres@", &format!("{login}@"));
        database.source_with(Settings {
            url,
            ..database.settings()
        })
    };
    for login in [
        "scram_user:pass%E2%82%AC%20%C3%9F",
        "md5_user:pass",
        "plain_user:pass",
        "trusted_user",
    ] {
        let state = source(login)
            .inspect()
            .await
            .map_err(|fault| format!("{login}: {fault}"))?;
        assert_eq!(state.database, database.name);
    }
    for user in ["scram_user", "md5_user", "plain_user"] {
        let error = refused(
            source(&format!("{user}:wrong")).inspect().await,
            Class::Fatal,
        );
        assert!(
            error.contains(user) && error.contains("check the password") && error.contains("28P01"),
            "{error}"
        );
        let error = refused(source(user).inspect().await, Class::Fatal);
        assert!(error.contains("the server asks for a password"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_user_who_may_not_replicate_is_told_the_command() {
    let database = database("").await;
    database.run("create role \"no é\" login").await;
    let url = database.url.replace("postgres@", "no%20%C3%A9@");
    let mut source = database.source_with(Settings {
        url,
        ..database.settings()
    });
    let error = refused(source.inspect().await, Class::Fatal);
    assert!(error.contains("ALTER ROLE \"no é\" REPLICATION"), "{error}");
}

#[tokio::test]
async fn a_missing_database_is_fatal_and_a_missing_server_is_not() -> Tested {
    let database = database("").await;
    let url = database.url.replace(&database.name, "nowhere");
    let mut source = database.source_with(Settings {
        url,
        ..database.settings()
    });
    assert!(refused(source.inspect().await, Class::Fatal).contains("3D000"));
    let port = walferry_harness::free_port()?;
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    let mut source = database.source_with(Settings {
        url: url.clone(),
        ..database.settings()
    });
    assert!(refused(source.inspect().await, Class::Transient).contains(&port.to_string()));
    refused(source.tables().await, Class::Transient);
    let error = SnapshotReader::export(&url, &database.tasks)
        .await
        .err()
        .ok_or("it cannot be reached")?;
    assert_eq!(walferry_core::Classify::class(&error), Class::Transient);
    Ok(())
}

#[tokio::test]
async fn hosts_are_tried_in_order() -> Tested {
    let database = database("create table t (id int primary key)").await;
    let (dead, live) = (
        walferry_harness::free_port()?,
        crate::support::shared().await.port(),
    );
    let url = format!(
        "postgres://postgres@127.0.0.1:{dead},127.0.0.1:{live}/{}",
        database.name
    );
    let mut source = database.source_with(Settings {
        url,
        ..database.settings()
    });
    source.inspect().await?;
    assert_eq!(source.tables().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn when_no_host_will_do_each_is_named_with_its_reason() -> Tested {
    let database = database("").await;
    let (dead, live) = (
        walferry_harness::free_port()?,
        crate::support::shared().await.port(),
    );
    let url = format!(
        "postgres://postgres@127.0.0.1:{dead},127.0.0.1:{live},name.invalid:5432/{}",
        database.name
    );
    let with = |session: &str| {
        database.source_with(Settings {
            url: format!("{url}?target_session_attrs={session}"),
            ..database.settings()
        })
    };
    for error in [
        refused(with("read-only").inspect().await, Class::Transient),
        refused(with("read-only").tables().await, Class::Transient),
    ] {
        let reasons = [
            format!("127.0.0.1:{dead}: Connection refused"),
            format!("the server at 127.0.0.1:{live} is not read-only"),
            "name.invalid:5432: failed to lookup address".to_owned(),
        ];
        for reason in reasons {
            assert!(error.contains(&reason), "{reason} in {error}");
        }
    }
    with("read-write").inspect().await?;
    with("read-write").tables().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_without_logical_decoding_is_told_the_setting() -> Tested {
    let root = fresh_directory("postgres-tests")?;
    let settings = vec![("wal_level".to_owned(), "replica".to_owned())];
    let server = Postgres::start_with(
        root.path(),
        PostgresOptions {
            settings,
            ..Default::default()
        },
    )
    .await?;
    let database = database_on(&server, "").await;
    let mut source: ReplicationSource = database.source();
    let error = refused(source.inspect().await, Class::Fatal);
    assert!(
        error.contains("wal_level is replica: run ALTER SYSTEM SET wal_level = 'logical'"),
        "{error}"
    );
    Ok(())
}
