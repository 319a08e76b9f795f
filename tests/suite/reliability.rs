//! `docs/reliability.md` names tests that exist and messages that the engine has.

use std::collections::BTreeSet;
use std::path::Path;

use walferry_harness::project_root;

#[test]
fn every_test_and_message_of_the_reliability_table_exists() {
    let sources = sources();
    let table = std::fs::read_to_string(project_root().join("docs/reliability.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| "));
    let (mut tests, mut missing) = (BTreeSet::new(), Vec::new());
    for row in rows.filter(|row| !row.starts_with("| Fault")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        let [_, _, seen, exit, proof] = cells.as_slice() else {
            panic!("five cells: {row}");
        };
        assert!(["–", "0", "1", "4", "130"].contains(&exit.trim()), "{row}");
        assert!(!quoted(proof).is_empty(), "no test: {row}");
        for test in quoted(proof) {
            if !sources.contains(&format!("fn {test}()")) {
                missing.push(test);
            }
            tests.insert(test);
        }
        for message in quoted(seen) {
            let pieces = message.split('…').map(str::trim);
            missing.extend(pieces.filter(|piece| !sources.contains(piece)));
        }
    }
    assert!(missing.is_empty(), "not in the sources: {missing:#?}");
    assert!(tests.len() > 50, "{} tests", tests.len());
}

#[test]
fn every_message_of_the_operations_page_exists() {
    let sources = sources();
    let page = std::fs::read_to_string(project_root().join("docs/operations.md")).unwrap();
    let (_, errors) = page.split_once("## Restore from a backup").unwrap();
    let rows: Vec<_> = errors
        .lines()
        .filter(|line| line.starts_with("| "))
        .collect();
    let mut missing = Vec::new();
    for row in &rows {
        let cells: Vec<_> = row.trim_matches('|').split('|').collect();
        let seen = cells[cells.len() - 2];
        missing.extend(quoted(seen).into_iter().filter(|it| !sources.contains(it)));
    }
    assert!(missing.is_empty(), "not in the sources: {missing:#?}");
    assert!(rows.len() > 30, "{} rows", rows.len());
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// All Rust sources but this one, with strings that go over several lines made one.
fn sources() -> String {
    let mut text = String::new();
    for directory in ["src", "connectors", "schema", "etl", "tests"] {
        add(&project_root().join(directory), &mut text);
    }
    text
}

fn add(directory: &Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            add(&path, text);
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with(file!()) {
            let source = std::fs::read_to_string(&path).unwrap();
            let mut pieces = source.split("\\\n");
            text.push_str(pieces.next().unwrap_or_default());
            pieces.for_each(|piece| text.push_str(piece.trim_start()));
        }
    }
}
