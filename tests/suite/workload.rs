//! A random workload by seed: all operations, key changes, TOAST, savepoints and aborts.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio_postgres::Client;

/// Tables with a simple key, a composite key in another order than its columns, and TOAST.
pub(crate) const SCHEMA: &str = "
    create table plain (id int primary key, b bool, i2 int2, i8 int8, f4 float4, f8 float8,
        n numeric, n2 numeric(10,2), t text, c varchar(20), ts timestamp, tz timestamptz, d date,
        u uuid, j jsonb, by bytea);
    create table paired (b int, a text, v numeric(12,4), primary key (a, b));
    create table toasted (id int primary key, big text, note text, also text);
    alter table toasted alter big set storage external, alter also set storage external;
";

/// The tables of [`SCHEMA`].
pub(crate) const TABLES: [&str; 3] = ["plain", "paired", "toasted"];

/// Runs some transactions over one connection; `lane` keeps connections off each other's keys.
pub(crate) async fn run(sql: &Client, seed: u64, lane: i32, transactions: usize) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..transactions {
        sql.batch_execute("begin").await.unwrap();
        statements(sql, &mut random, lane).await.unwrap();
        let end = if random.random_bool(0.15) {
            "rollback"
        } else {
            "commit"
        };
        sql.batch_execute(end).await.unwrap();
    }
}

/// Runs the statements of one transaction, which the caller begins and ends.
pub(crate) async fn statements(
    sql: &Client,
    random: &mut ChaCha8Rng,
    lane: i32,
) -> Result<(), tokio_postgres::Error> {
    for _ in 0..random.random_range(1..8) {
        let is_nested = random.random_bool(0.2);
        if is_nested {
            sql.batch_execute("savepoint s").await?;
        }
        for _ in 0..random.random_range(1..4) {
            let statement = statement(random, lane);
            sql.batch_execute(&statement).await?;
        }
        if is_nested {
            let end = ["rollback to s", "release s"].choose(random).unwrap();
            sql.batch_execute(end).await?;
        }
    }
    Ok(())
}

fn statement(random: &mut ChaCha8Rng, lane: i32) -> String {
    let id = lane * 1000 + random.random_range(0..40);
    let other = lane * 1000 + random.random_range(0..40);
    let n: i32 = random.random_range(-1_000_000..1_000_000);
    let seed = random.random_range(0..1_000_000);
    match random.random_range(0..14) {
        0..=2 => format!(
            "insert into plain values ({id}, {}, {}, {n}::int8 * 4000000000, {n}::float4 / 7, \
             {n}::float8 / 11, {n}.{seed}, {n} / 100.0, 'é \"{seed}\" \\ ☃', 'c{n}', \
             timestamp '1969-12-31 23:59:59.999999' + {n} * interval '1 ms', \
             timestamptz '2024-02-29 10:00:00.5+02' + {n} * interval '1 us', \
             date '1970-01-01' + {n} / 100, md5('{seed}')::uuid, \
             '{{\"a\": {n}, \"b\": [1, null, \"x\"]}}', decode(md5('{seed}'), 'hex')) \
             on conflict (id) do update set n = excluded.n, t = null, j = excluded.j",
            n > 0,
            n % 30_000,
        ),
        3 => format!("update plain set t = 't{n}', b = not b, by = null where id = {id}"),
        4 => format!("delete from plain where id = {id}"),
        5 => format!(
            "update plain set id = {other} where id = {id} \
             and not exists (select from plain where id = {other})"
        ),
        6 => format!(
            "insert into paired values ({id}, 'k{}', {n} / 10.0) \
             on conflict (a, b) do update set v = excluded.v",
            n % 5
        ),
        7 => format!("update paired set v = v + 1 where b = {id}"),
        8 => format!(
            "update paired set b = {other}, a = a || '!' where b = {id} and length(a) < 9 \
             and not exists (select from paired p where p.b = {other})"
        ),
        9 => format!("delete from paired where b = {id}"),
        10 => format!(
            "insert into toasted values ({id}, repeat('big{seed}', 3000), 'n', \
             repeat('also{seed}', 2000)) on conflict (id) do update set note = 'n{n}'"
        ),
        11 => format!("update toasted set note = 'note{n}' where id = {id}"),
        12 => format!(
            "update toasted set id = {other}, note = 'moved' where id = {id} \
             and not exists (select from toasted where id = {other})"
        ),
        _ => format!(
            "update toasted set big = case when {n} > 0 then repeat('{seed}', 4000) end \
             where id = {id}"
        ),
    }
}
