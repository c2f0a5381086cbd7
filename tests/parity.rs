//! Reads `tests/python_parity.md` and `tests/README.md` and fails when a test that they name is not among ours,
//! so that the tables stay true when tests are renamed.

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

#[test]
fn every_test_of_the_list_exists() {
    let list = read("README.md");
    let missing = missing(&names(&list), &|file| {
        fs::read_to_string(folder().join(file)).ok()
    });
    assert!(missing.is_empty(), "not among the tests: {missing:#?}");
    // What the list is of: T1 to T53.
    let rows: HashSet<_> = list.lines().filter_map(number).collect();
    let absent: Vec<_> = (1..=53).filter(|number| !rows.contains(number)).collect();
    assert!(absent.is_empty(), "not in the list: {absent:?}");
}

/// The number of a line of the list.
fn number(line: &str) -> Option<u32> {
    line.strip_prefix("| T")?.split(' ').next()?.parse().ok()
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

/// What stands there as `file::test`; operations of the stepper that follow one of theirs stand alone.
fn names(text: &str) -> Vec<(&str, &str)> {
    let mut names = Vec::new();
    for line in text.lines() {
        let mut stepper = None;
        for name in line.split('`').skip(1).step_by(2) {
            match (name.split_once("::"), stepper) {
                (Some((file, test)), _) if file.ends_with(".rs") => {
                    stepper = file.starts_with("stepper/").then_some(file);
                    names.push((file, test));
                }
                (None, Some(file)) if name.chars().all(char::is_alphanumeric) => {
                    names.push((file, name));
                }
                _ => {}
            }
        }
    }
    names
}

/// The names of which no file has a test.
fn missing(names: &[(&str, &str)], text_of: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let is_test = |file: &str, test: &str| {
        let Some(text) = text_of(file) else {
            return false;
        };
        let function = text.find(&format!("fn {test}()"));
        match file.split_once('/').map(|(folder, _)| folder) {
            // Without its name in the list it never runs.
            Some("processes") => {
                function.is_some() && text.lines().any(|line| line == format!("    {test},"))
            }
            Some("kill") => text.contains(&format!("(\"{test}\", ")),
            Some("stepper") => {
                let is_word = |text: String, word| text.split([' ', ';', '\n']).any(|w| w == word);
                text.contains(&format!("    {test}"))
                    && text_of("stepper/main.rs").is_some_and(|main| is_word(main, test))
            }
            _ => function.is_some_and(|at| text[..at].ends_with("#[test]\n")),
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
        "kill/d.rs" => Some("[(\"four\", run)]".to_string()),
        "stepper/main.rs" => Some("    in e: Five Six;".to_string()),
        "stepper/e.rs" => Some("    Five {}\n    Seven {}".to_string()),
        _ => None,
    };
    let table = "| `T.t` | `a.rs::one`, `processes/b.rs::two` |\n| `T.u` | `a.rs::helper`: why |\n\
                 | `T.v` | `processes/b.rs::three` |\n| `T.w` | `c.rs::one`, `std::thread` |";
    assert_eq!(
        missing(&names(table), &text_of),
        ["a.rs::helper", "processes/b.rs::three", "c.rs::one"]
    );
    let list = "`kill/d.rs::four` and `kill/d.rs::five`; `stepper/e.rs::Five`, `Seven`, `Six`";
    assert_eq!(
        missing(&names(list), &text_of),
        [
            "kill/d.rs::five",
            "stepper/e.rs::Seven",
            "stepper/e.rs::Six"
        ]
    );
    assert_eq!(table.lines().filter_map(row).count(), 4);
}
