//! Who sees what.

use walferry_retail::schema;

use crate::shop::{Shop, number, refusal, sale};

const TENANT_TABLES: [&str; 5] = [
    "transactions",
    "transactiondetails",
    "inventory",
    "promotionapplications",
    "demandforecast",
];
const DENIED: &str = "42501";

#[tokio::test]
async fn a_store_sees_its_own_rows_of_all_five_tables() {
    let shop = Shop::open().await;
    for (role, rows) in [
        ("store_user_1", [1, 1, 2, 1, 1]),
        ("store_user_2", [1, 1, 1, 1, 1]),
    ] {
        let store = shop.login(role).await;
        for (table, rows) in TENANT_TABLES.into_iter().zip(rows) {
            assert_eq!(
                number(&store, &format!("SELECT count(*) FROM {table}")).await,
                rows,
                "{role} {table}"
            );
        }
        let own = role.trim_start_matches("store_user_");
        for table in ["transactions", "inventory", "demandforecast"] {
            let foreign = format!("SELECT count(*) FROM {table} WHERE store_id <> {own}");
            assert_eq!(number(&store, &foreign).await, 0, "{role} {table}");
        }
    }
}

#[tokio::test]
async fn a_store_cannot_write_rows_of_another() {
    let shop = Shop::open().await;
    let store = shop.login("store_user_1").await;
    for statement in [
        "INSERT INTO transactions VALUES (99, '2024-05-01', 1, 2, 1, false, NULL, 1, false)",
        "INSERT INTO transactiondetails VALUES (2, 2, 1)",
        "INSERT INTO promotionapplications VALUES (2, 1)",
        "UPDATE inventory SET store_id = 2",
        "INSERT INTO inventory VALUES (2, 2, 1)",
        "DELETE FROM transactions",
        "TRUNCATE transactions CASCADE",
    ] {
        assert_eq!(
            refusal(store.client(), statement).await.0,
            DENIED,
            "{statement}"
        );
    }
    let raised = store
        .client()
        .execute("UPDATE inventory SET inventory_level = 99", &[])
        .await
        .unwrap();
    assert_eq!(
        (raised, shop.level(2, 1).await),
        (2, 5),
        "the other store's stock is not even seen"
    );
}

#[tokio::test]
async fn a_row_of_a_store_cannot_be_given_to_another() {
    let shop = Shop::open().await;
    shop.run("GRANT UPDATE ON inventory, demandforecast, transactions TO store_users")
        .await;
    let store = shop.login("store_user_1").await;
    for table in ["inventory", "demandforecast", "transactions"] {
        let refused = refusal(store.client(), &format!("UPDATE {table} SET store_id = 2")).await;
        let message = format!("new row violates row-level security policy for table \"{table}\"");
        assert_eq!(refused, (DENIED.into(), message));
    }
}

#[tokio::test]
async fn a_store_does_not_become_another_by_a_setting() {
    let shop = Shop::open().await;
    let store = shop.login("store_user_1").await;
    store
        .client()
        .batch_execute("SET app.current_store = '2'")
        .await
        .unwrap();
    assert_eq!(
        number(&store, "SELECT sum(store_id) FROM transactions").await,
        1
    );
}

#[tokio::test]
async fn an_application_names_its_store_and_sees_nothing_before() {
    let shop = Shop::open().await;
    let application = walferry_harness::unique("application");
    shop.run(&format!(
        "CREATE ROLE {application} LOGIN IN ROLE store_users"
    ))
    .await;
    let session = shop.login(&application).await;
    for table in TENANT_TABLES {
        assert_eq!(
            number(&session, &format!("SELECT count(*) FROM {table}")).await,
            0,
            "{table}"
        );
    }
    session
        .client()
        .batch_execute("SET app.current_store = '2'")
        .await
        .unwrap();
    for table in TENANT_TABLES {
        assert_eq!(
            number(&session, &format!("SELECT count(*) FROM {table}")).await,
            1,
            "{table}"
        );
    }
    assert_eq!(
        number(&session, "SELECT min(store_id) FROM transactions").await,
        2
    );
}

#[tokio::test]
async fn the_owner_of_the_tables_is_no_exception() {
    let shop = Shop::open().await;
    let owner = walferry_harness::unique("owner");
    shop.run(&format!("CREATE ROLE {owner} LOGIN")).await;
    for table in TENANT_TABLES {
        shop.run(&format!("ALTER TABLE {table} OWNER TO {owner}"))
            .await;
    }
    let session = shop.login(&owner).await;
    for table in TENANT_TABLES {
        assert_eq!(
            number(&session, &format!("SELECT count(*) FROM {table}")).await,
            0,
            "{table}"
        );
    }
}

#[tokio::test]
async fn adminlog_sees_all_rows_and_changes_none() {
    let shop = Shop::open().await;
    let admin = shop.login("adminlog").await;
    for (table, rows) in TENANT_TABLES.into_iter().zip([2, 2, 3, 2, 2]) {
        assert_eq!(
            number(&admin, &format!("SELECT count(*) FROM {table}")).await,
            rows,
            "{table}"
        );
    }
    assert_eq!(number(&admin, "SELECT count(*) FROM customers").await, 2);
    for statement in [
        "UPDATE inventory SET inventory_level = 1",
        "DELETE FROM demandforecast",
        &sale("{1}", "{1}"),
    ] {
        assert_eq!(
            refusal(admin.client(), statement).await.0,
            DENIED,
            "{statement}"
        );
    }
}

#[tokio::test]
async fn a_store_sells_with_its_own_role() {
    let shop = Shop::open().await;
    let store = shop.login("store_user_1").await;
    let promoted =
        "CALL insert_transaction('2024-05-01', 1, 1, 1, true, 1, 1, false, '{2,1}', '{2,1}')";
    store.client().batch_execute(promoted).await.unwrap();
    assert_eq!((shop.level(1, 1).await, shop.level(1, 2).await), (9, 18));
    assert_eq!(
        number(&store, "SELECT count(*) FROM promotionapplications").await,
        2
    );
}

#[tokio::test]
async fn a_store_does_not_sell_for_another() {
    let shop = Shop::open().await;
    let store = shop.login("store_user_2").await;
    let refused = refusal(store.client(), &sale("{1}", "{1}")).await;
    assert_eq!(
        refused,
        (
            DENIED.into(),
            "store_user_2 may not sell for store 1".into()
        )
    );
}

#[tokio::test]
async fn a_store_does_not_list_the_customers_of_the_chain() {
    let shop = Shop::open().await;
    let store = shop.login("store_user_1").await;
    assert_eq!(
        refusal(store.client(), "SELECT * FROM customers").await.0,
        DENIED
    );
}

#[tokio::test]
async fn a_stranger_sees_and_sells_nothing() {
    let shop = Shop::open().await;
    let stranger = walferry_harness::unique("stranger");
    shop.run(&format!("CREATE ROLE {stranger} LOGIN")).await;
    let session = shop.login(&stranger).await;
    for table in TENANT_TABLES {
        assert_eq!(
            refusal(session.client(), &format!("SELECT * FROM {table}"))
                .await
                .0,
            DENIED,
            "{table}"
        );
    }
    for statement in [
        &sale("{1}", "{1}"),
        "CALL create_store_roles()",
        "CREATE TABLE mine (id int)",
    ] {
        assert_eq!(
            refusal(session.client(), statement).await.0,
            DENIED,
            "{statement}"
        );
    }
}

#[tokio::test]
async fn every_comparison_with_a_store_has_an_index() {
    let shop = Shop::empty().await;
    for table in ["transactions", "inventory", "demandforecast"] {
        let leading = format!(
            "SELECT count(*) FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0]
              WHERE indrelid = '{table}'::regclass AND attname = 'store_id'"
        );
        assert_eq!(shop.number(&leading).await, 1, "{table}");
    }
}

#[tokio::test]
async fn a_new_store_gets_its_role_when_asked_again() {
    let shop = Shop::open().await;
    shop.run("INSERT INTO stores VALUES (77, 'Nowhere'); CALL create_store_roles(); CALL create_store_roles()").await;
    let store = shop.login("store_user_77").await;
    assert_eq!(number(&store, "SELECT count(*) FROM transactions").await, 0);
}

#[tokio::test]
async fn no_role_has_a_password_and_no_file_names_one() {
    let shop = Shop::open().await;
    let with_password = "SELECT count(*) FROM pg_authid WHERE rolpassword IS NOT NULL";
    assert_eq!(shop.number(with_password).await, 0);
    for (file, sql) in schema::FILES {
        let words = sql
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"))
            .collect::<String>();
        assert!(!words.to_lowercase().contains("password"), "{file}");
    }
}

#[tokio::test]
async fn the_schema_may_be_installed_again() {
    let shop = Shop::open().await;
    schema::install(&shop.config()).await.unwrap();
    let store = shop.login("store_user_1").await;
    assert_eq!(number(&store, "SELECT count(*) FROM transactions").await, 1);
    assert_eq!(shop.number("SELECT count(*) FROM transactions").await, 2);
}
