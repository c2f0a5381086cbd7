//! The README is shown in three places (the repository, rustdoc and a registry's page) and says what the
//! manifest says too: what is true in one of them must be true in all.

#![cfg(not(loom))]

const README: &str = include_str!("../README.md");
const MANIFEST: &str = include_str!("../Cargo.toml");

/// The value of the first line `key = "value"` of the manifest.
fn stated(key: &str) -> &'static str {
    let line = MANIFEST
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = \""));
    line.and_then(|rest| rest.strip_suffix('"'))
        .unwrap_or_else(|| panic!("the manifest has no {key}"))
}

/// Where the links and pictures of a page of Markdown lead.
fn targets(page: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    let mut in_code = false;
    for line in page.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            targets.extend(rest.split_once(')').map(|(target, _)| target));
        }
    }
    targets
}

#[test]
fn no_link_or_picture_depends_on_where_it_is_shown() {
    let relative: Vec<_> = targets(README)
        .into_iter()
        .filter(|target| !target.starts_with("https://") && !target.starts_with('#'))
        .collect();
    assert!(
        relative.is_empty(),
        "broken in rustdoc and on a registry's page: {relative:?}"
    );
    // What this test would find.
    assert_eq!(
        targets("see ![bars](benches/figures.svg)\n```\n[a](b)\n```"),
        ["benches/figures.svg"]
    );
}

#[test]
fn the_dependency_line_is_that_of_this_version() {
    let (major_minor, _) = stated("version").rsplit_once('.').expect("three numbers");
    let line = format!("multiproc = \"{major_minor}\"");
    assert!(README.contains("[dependencies]\n"), "no [dependencies]");
    assert!(README.contains(&line), "the README does not say {line}");
}

#[test]
fn the_oldest_rust_is_that_of_the_manifest() {
    let oldest = stated("rust-version");
    assert!(
        README.contains(&format!("Both work with Rust {oldest}.")),
        "the set-up does not say that it works with Rust {oldest}"
    );
    assert!(
        README.contains(&format!("**Which Rust?** {oldest} or later")),
        "the questions do not say {oldest}"
    );
}
