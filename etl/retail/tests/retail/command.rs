//! The command line: exit codes, and what goes where.

use std::process::Output;

use serde_json::Value;
use tokio::process::Command;

use crate::shop::Shop;

#[tokio::test]
async fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &["sell"][..],
        &["generate", "--sales", "0", "--seed", "1"],
        &["nonsense"],
    ] {
        assert_eq!(
            retail(arguments).await.status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
}

#[tokio::test]
async fn a_failure_is_exit_code_1_and_one_line_on_standard_error() {
    let output = retail(&[
        "install",
        "--url",
        "postgres://nobody:secret@127.0.0.1:1/none",
    ])
    .await;
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(
        text.starts_with("retail: connecting to PostgreSQL: ") && text.lines().count() == 1,
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn each_command_prints_one_json_document() {
    let shop = Shop::empty().await;
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    let generated = json(&[
        "generate", "--sales", "1000", "--seed", "1", "--out", out, "--json",
    ])
    .await;
    assert_eq!(generated["tables"].as_array().unwrap().len(), 12);
    let installed = json(&["install", "--url", shop.url(), "--json"]).await;
    assert_eq!(installed["files"][0], "01_tables.sql");
    let loaded = json(&["load", out, "--url", shop.url(), "--json"]).await;
    assert_eq!(loaded["store_roles"], 5);
    let sold = json(&[
        "sell",
        "--url",
        shop.url(),
        "--rate",
        "50",
        "--seconds",
        "1",
        "--json",
    ])
    .await;
    assert!(
        sold["sold"].as_u64().unwrap() > 0 && sold["achieved_rate"].as_f64().unwrap() > 0.0,
        "{sold}"
    );
}

#[tokio::test]
async fn help_describes_every_command() {
    let output = retail(&["--help"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    for command in ["generate", "install", "load", "sell", "story", "Exit codes"] {
        assert!(text.contains(command), "{text}");
    }
}

async fn retail(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_retail"))
        .args(arguments)
        .env_remove("RETAIL_URL")
        .output()
        .await
        .unwrap()
}

async fn json(arguments: &[&str]) -> Value {
    let output = retail(arguments).await;
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}
