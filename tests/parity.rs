//! Reads `tests/python_parity.md` and fails when a test that it names is not among ours, so that the
//! table stays true when tests are renamed.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

#[test]
fn every_test_of_the_table_exists() {
    let table = read("python_parity.md");
    let names = names(&table);
    assert!(names.len() > 100, "only {} tests are named", names.len());
    let missing = missing(&names, &|file| fs::read_to_string(folder().join(file)).ok());
    assert!(missing.is_empty(), "not among the tests: {missing:#?}");
}

#[test]
fn every_test_of_python_is_there_once_and_answered() {
    let table = read("python_parity.md");
    let rows: Vec<_> = table.lines().filter_map(row).collect();
    let different: HashSet<_> = rows.iter().map(|(theirs, _)| theirs).collect();
    assert_eq!(different.len(), rows.len(), "one stands there twice");
    for (theirs, ours) in &rows {
        let is_answered = ours.starts_with("– ") || !names(ours).is_empty();
        assert!(is_answered, "{theirs}: {ours}");
    }
}

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests"))
}

fn read(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap()
}

/// Their test and our answer, in a line of a table.
fn row(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("| `")?
        .strip_suffix(" |")?
        .split_once(" | ")
}

/// What stands there as `file::test`.
fn names(text: &str) -> Vec<(&str, &str)> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter_map(|name| name.split_once("::"))
        .filter(|(file, _)| file.ends_with(".rs"))
        .collect()
}

/// The names of which no file has a test.
fn missing(names: &[(&str, &str)], text_of: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let is_test = |file: &str, test: &str| {
        let Some(text) = text_of(file) else {
            return false;
        };
        let function = text.find(&format!("fn {test}()"));
        match file.starts_with("processes/") {
            // Without its name in the list it never runs.
            true => function.is_some() && text.lines().any(|line| line == format!("    {test},")),
            false => function.is_some_and(|at| text[..at].ends_with("#[test]\n")),
        }
    };
    let missing = names.iter().filter(|(file, test)| !is_test(file, test));
    missing
        .map(|(file, test)| format!("{file}::{test}"))
        .collect()
}

#[test]
fn what_is_missing_is_found() {
    let text_of = |file: &str| match file {
        "a.rs" => Some("#[test]\nfn one() {}\nfn helper() {}\n".to_string()),
        "processes/b.rs" => Some("    two,\nfn two() {}\nfn three() {}\n".to_string()),
        _ => None,
    };
    let table = "| `T.t` | `a.rs::one`, `processes/b.rs::two` |\n| `T.u` | `a.rs::helper`: why |\n\
                 | `T.v` | `processes/b.rs::three` |\n| `T.w` | `c.rs::one`, `std::thread` |";
    assert_eq!(
        missing(&names(table), &text_of),
        ["a.rs::helper", "processes/b.rs::three", "c.rs::one"]
    );
    assert_eq!(table.lines().filter_map(row).count(), 4);
}
