//! The types of the extension `vector`, where there is a PostgreSQL that has it.

use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use walferry_harness::{Postgres, Stack, fresh_directory};

use super::{Case, ITSELF, TEXT, Table};
use crate::daemon::Pipeline;

macro_rules! elements {
    ($vector:literal) => {
        concat!(
            "(select jsonb_agg(jsonb_build_object('$double', e::text) order by o)
              from unnest((",
            $vector,
            ")::float4[]) with ordinality u(e, o))"
        )
    };
}

const VECTORS: Table = Table {
    setup: "create extension vector;
            create domain place as vector(2);
            create type item as (v vector(2), \"h,\" halfvec);
            create schema other; create type other.vector as (k text);",
    cases: &[
        Case {
            name: "vector",
            random: |r| vector(r, "vector"),
            json: elements!("c"),
        },
        Case {
            name: "vector(3)",
            random: |r| format!("'[{},0,1]'", float(r)),
            json: elements!("c"),
        },
        Case {
            name: "place",
            random: |r| format!("'[{},-0]'", float(r)),
            json: elements!("c"),
        },
        Case {
            name: "halfvec",
            random: |r| vector(r, "halfvec"),
            json: elements!("c"),
        },
        Case {
            name: "halfvec(1)",
            random: |r| format!("'[{}]'", half(r)),
            json: elements!("c"),
        },
        Case {
            name: "vector[]",
            random: |r| {
                format!(
                    "array[{}, null, {}]",
                    vector(r, "vector"),
                    vector(r, "vector")
                )
            },
            json: concat!(
                "(select jsonb_agg(case when v is not null then ",
                elements!("v"),
                " end order by n) from unnest(c) with ordinality w(v, n))"
            ),
        },
        Case {
            name: "item",
            random: |r| format!("row('[1,{}]', {})::item", float(r), vector(r, "halfvec")),
            json: concat!(
                "jsonb_build_object('v', ",
                elements!("(c).v"),
                ", 'h,', ",
                elements!("(c).\"h,\""),
                ")"
            ),
        },
        Case {
            name: "sparsevec",
            random: |r| format!("'{{1:{},7:-1}}/{}'", float(r), r.random_range(7..99)),
            json: TEXT,
        },
        Case {
            name: "sparsevec[]",
            random: |r| format!("array['{{2:{}}}/3'::sparsevec]", float(r)),
            json: "to_jsonb(c::text[])",
        },
        Case {
            name: "other.vector",
            random: |r| format!("row('[{}]')::other.vector", float(r)),
            json: ITSELF,
        },
    ],
};

/// A vector of one to five numbers.
fn vector(random: &mut ChaCha8Rng, kind: &str) -> String {
    let number = if kind == "halfvec" { half } else { float };
    let numbers: Vec<_> = (0..random.random_range(1..6))
        .map(|_| number(random))
        .collect();
    format!("'[{}]'::{kind}", numbers.join(","))
}

/// None that is zero: a sparse vector has no such elements.
fn float(random: &mut ChaCha8Rng) -> String {
    let special = ["0.1", "1e-30", "-3.4e38", "1e-45", "16777217", "-2.5"];
    match random.random_range(0..2) {
        0 => (*special.choose(random).unwrap()).to_owned(),
        _ => random.random_range(1e-6..1e6_f32).to_string(),
    }
}

fn half(random: &mut ChaCha8Rng) -> String {
    let special = ["0.1", "-0", "65504", "-6e-8", "2049", "1e-4"];
    match random.random_range(0..2) {
        0 => (*special.choose(random).unwrap()).to_owned(),
        _ => random.random_range(-6e4..6e4_f32).to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_vector_is_the_same_by_copy_and_by_stream_as_postgresql_says() {
    let root = fresh_directory("vectors").unwrap();
    let Some(server) = Postgres::start_with_vectors(root.path()).await.unwrap() else {
        println!("skipped: no PostgreSQL here has the extension vector");
        return;
    };
    let stack = Stack::shared().await.unwrap();
    let mut database = stack.fresh_database("vectors").await.unwrap();
    let create = format!("create database {}", database.name);
    let admin = server.connect("postgres").await.unwrap();
    admin.batch_execute(&create).await.unwrap();
    database.postgres_url = server.url_of(&database.name);
    let pipeline = Pipeline::over(database, &VECTORS.schema(), "public.*").await;
    VECTORS.copied_and_streamed(&pipeline).await;
}
