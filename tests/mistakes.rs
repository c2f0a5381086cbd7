//! What the compiler says of the mistakes that users make: the crate's own sentence, at the place of the call.
//!
//! `tests/mistakes/check.rs` has those that `cargo check` tells, `build.rs` those that nothing but `cargo build` can.
//! Each file is compiled once, whole. A mistake begins with `// mistake:`; every line `//~` behind that must stand in
//! what is said of it, and no error may lie elsewhere.

#![cfg(not(loom))]

use std::fs;
use std::path::Path;
use std::process::Command;

/// The least number of mistakes that are tried.
const MISTAKES: usize = 31;

/// A mistake in a file: its name, its lines, and what is to be said of it.
#[derive(Debug)]
struct Mistake {
    name: String,
    first: usize,
    sentences: Vec<String>,
}

fn mistakes_in(source: &str) -> Vec<Mistake> {
    let mut found: Vec<Mistake> = Vec::new();
    for (at, line) in source.lines().enumerate() {
        if let Some(name) = line.strip_prefix("// mistake: ") {
            found.push(Mistake {
                name: name.to_owned(),
                first: at + 1,
                sentences: Vec::new(),
            });
        } else if let (Some(sentence), Some(last)) = (line.strip_prefix("//~ "), found.last_mut()) {
            last.sentences.push(sentence.to_owned());
        }
    }
    found
}

/// An error of the compiler: where in the file, and all that it says.
#[derive(Debug)]
struct Said {
    lines: Vec<usize>,
    text: String,
}

/// The errors among what the compiler prints, with the lines of `file` that each names.
fn errors_in(printed: &str, file: &str) -> Vec<Said> {
    let mut blocks: Vec<Vec<&str>> = Vec::new();
    for line in printed.lines() {
        let is_error = line.starts_with("error[") || line.starts_with("error:");
        let is_end = line.starts_with("warning") || line.starts_with("For more information");
        if is_error || is_end {
            blocks.push(Vec::new());
        }
        if let Some(block) = blocks.last_mut() {
            block.push(line);
        }
    }
    let place = format!("--> {file}:");
    let said = blocks
        .into_iter()
        .filter(|block| block.first().is_some_and(|line| line.starts_with("error")));
    let said = said.map(|block| Said {
        lines: block
            .iter()
            .filter_map(|line| {
                line.split_once(place.as_str())?
                    .1
                    .split(':')
                    .next()?
                    .parse()
                    .ok()
            })
            .collect(),
        text: block.join("\n"),
    });
    // The last words, "could not compile", are of no place.
    said.filter(|said| !said.lines.is_empty()).collect()
}

/// What is wrong with what was said.
fn faults(mistakes: &[Mistake], said: &[Said]) -> Vec<String> {
    let mut faults = Vec::new();
    let of = |line: usize| mistakes.iter().rposition(|mistake| mistake.first <= line);
    let mut texts = vec![String::new(); mistakes.len()];
    for said in said {
        // The call comes last: before it, the compiler may point into the crate.
        match said.lines.iter().rev().find_map(|line| of(*line)) {
            Some(at) => texts[at] += &said.text,
            None => faults.push(format!(
                "an error that belongs to no mistake: {}",
                said.text
            )),
        }
    }
    for (mistake, text) in mistakes.iter().zip(&texts) {
        let name = &mistake.name;
        if text.is_empty() {
            faults.push(format!("nothing is said of: {name}"));
            continue;
        }
        if mistake.sentences.is_empty() {
            faults.push(format!("nothing is expected of: {name}"));
        }
        let is_missing = |sentence: &&String| !text.contains(sentence.as_str());
        if let Some(sentence) = mistake.sentences.iter().find(is_missing) {
            faults.push(format!("{name}: not said: {sentence}\nbut: {text}"));
        }
    }
    faults
}

/// Compiles a file of mistakes, and gives what the compiler prints.
fn compile(name: &str, file: &str, source: &str, command: &str) -> String {
    let this = env!("CARGO_MANIFEST_DIR");
    // The folder of tests/builds.rs, so that the dependencies are built once for both.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("builds")
        .join(name);
    fs::create_dir_all(folder.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = {name:?}\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\nmultiproc = {{ path = {this:?} }}\nserde = {{ version = \"1\", features = [\"derive\"] }}\n"
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    // The same versions as this package, which are there already.
    fs::copy(
        Path::new(this).join("Cargo.lock"),
        folder.join("Cargo.lock"),
    )
    .unwrap();
    fs::write(folder.join(file), source).unwrap();
    let output = Command::new(env!("CARGO"))
        .args([command, "--offline", "--color", "never"])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", folder.with_file_name("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "the mistakes compile: {printed}");
    printed
}

#[test]
fn check_tells_mistakes_at_the_call() {
    let source = include_str!("mistakes/check.rs");
    let mistakes = mistakes_in(source);
    assert!(mistakes.len() >= MISTAKES, "{}", mistakes.len());
    let printed = compile("mistaken", "src/lib.rs", source, "check");
    let faults = faults(&mistakes, &errors_in(&printed, "src/lib.rs"));
    assert!(
        faults.is_empty(),
        "{}\n{} faults",
        faults.join("\n\n"),
        faults.len()
    );
}

/// One after another, for the compiler ends at the first of them.
#[test]
fn build_tells_the_rest_at_the_call() {
    let source = include_str!("mistakes/build.rs");
    let mistakes = mistakes_in(source);
    let printed = compile("capturing_all", "src/main.rs", source, "build");
    let faults = faults(&mistakes, &errors_in(&printed, "src/main.rs"));
    assert!(
        faults.is_empty(),
        "{}\n{} faults",
        faults.join("\n\n"),
        faults.len()
    );
}

/// The check can fail, for each of its reasons.
#[test]
fn faults_are_found() {
    let source =
        "// mistake: one\n//~ take two\nfn one() {}\n// mistake: two\n//~ take one\nfn two() {}\n";
    let mistakes = mistakes_in(source);
    assert_eq!(
        mistakes
            .iter()
            .map(|mistake| mistake.first)
            .collect::<Vec<_>>(),
        [1, 4]
    );
    let error = |line, text| {
        format!("error[E1]: it\n  --> src/lib.rs:{line}:5\n   = note: {text}\n\nwarning: unused\n")
    };
    let found = |printed: String| faults(&mistakes, &errors_in(&printed, "src/lib.rs"));
    assert_eq!(
        found(error(3, "take two") + &error(6, "take one")),
        Vec::<String>::new()
    );
    assert_eq!(found(error(3, "take two")), ["nothing is said of: two"]);
    let other = found(error(3, "take three") + &error(6, "take one"));
    assert!(
        other.len() == 1 && other[0].starts_with("one: not said: take two"),
        "{other:?}"
    );
}
