//! Reads the sources and fails when the house is not as it is drawn: the layers, where `unsafe` may
//! live and what each use of it must say, the bytes in shared memory, the form of the examples.
//!
//! To change the house, change the tables below in the same commit. Every check is itself checked at
//! the foot of this file, on text with a planted breach.

// The lint takes this file's talk of such comments for the comments themselves.
#![allow(clippy::unnecessary_safety_comment)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The layers, bottom first. A module may use those of its own row and of the rows before it.
const LAYERS: &[&[&str]] = &[
    &["error"],
    &["sync", "sys", "trace"],
    &["layout"],
    &["chunk", "latch", "roster", "ring", "signal", "stream"], // Pure protocols: handed headers and slots, never a segment.
    &["cookie", "mapped"],
    &["kin", "sealed"],
    &["segment"],
    &["named"],
    &["handle"],
    &["message"],
    &["queue", "pipe", "lock", "frozen"],
    &["process"],
    &["pool"],
    &["unwind"], // Says of all types what a panic leaves of them.
    &["door"],   // For fuzz targets, and compiled for them alone.
];

/// Text: may be written in by all and used by none.
const TEXT: &[&str] = &["docs"];

/// Modules that loom, the fuzzers and Miri run as they are: no mapping, no system call, no `unsafe`,
/// and no atomics but those of `sync`.
const PURE: &[&str] = &["chunk", "latch", "roster", "ring", "signal", "stream"];
const NOT_IN_PURE: &[&str] = &[
    "crate::segment",
    "crate::sys",
    "crate::handle",
    "crate::kin",
    "std::sync::atomic",
    "core::sync::atomic",
    "thread::spawn",
    "thread::sleep",
    "thread::park",
    "rustix::",
    "nix::",
];

/// A folder whose files import each other in no circle, and the lines of code it may have: comments, blank lines and
/// tests are not counted.
const POOL: &str = "src/pool";
const POOL_LINES: usize = 7_230;

/// The files in which `unsafe` may stand, and in how many places at most: blocks, functions, traits,
/// implementations and attributes.
const UNSAFE_FILES: &[(&str, usize)] = &[
    ("src/sys/memory.rs", 3),
    ("src/sys/large.rs", 2),
    ("src/sys/process.rs", 13),
    ("src/sys/program.rs", 1),
    ("src/sys/stack.rs", 2),
    ("src/sys/overflow.rs", 6),
    ("src/sys/thread.rs", 4),
    ("src/sys/fork.rs", 13),
    ("src/mapped.rs", 5),
    ("src/segment/view.rs", 9),
    ("src/frozen.rs", 4),
    ("src/message/known.rs", 3),
    ("src/lock.rs", 6),
    ("src/queue/loan.rs", 6),
    ("src/process/task.rs", 4),
    ("src/process/boot.rs", 5),
];

/// The only file that describes bytes in shared memory.
const LAYOUT: &str = "src/layout.rs";

/// What no source may hold.
const NEVER: &[&str] = &[
    "todo!",
    "unimplemented!",
    "dbg!",
    "#[ignore",
    "allow(dead_code)",
    "allow(unused",
];

/// The twins of the tutorial's programs, and how long they may be.
const TUTORIAL: &[&str] = &[
    "worker",
    "squares",
    "numbers",
    "pids",
    "results",
    "numbers_by_pid",
];
const TUTORIAL_LINES: usize = 30;

#[test]
fn every_module_uses_only_the_layers_below_it() {
    none(sources("src").iter().flat_map(upward_uses));
}

#[test]
fn the_protocols_are_pure() {
    none(sources("src").iter().flat_map(impurities));
}

#[test]
fn the_files_of_the_pool_import_each_other_in_no_circle() {
    none(circles(&sources(POOL), POOL));
}

#[test]
fn the_pool_is_small() {
    none(too_much_code(&sources(POOL), POOL_LINES));
}

#[test]
fn unsafe_stays_in_its_files_and_is_counted() {
    none(
        sources("src")
            .iter()
            .flat_map(|file| stray_unsafe(file, UNSAFE_FILES)),
    );
}

#[test]
fn every_unsafe_place_has_its_proof() {
    none(sources("src").iter().flat_map(unproven));
}

#[test]
fn shared_structures_have_a_fixed_layout() {
    none(
        sources("src")
            .iter()
            .filter(|file| file.path == LAYOUT)
            .flat_map(loose_layout),
    );
}

#[test]
fn nothing_is_left_undone() {
    let files = ["src", "tests", "examples", "benches"]
        .map(sources)
        .concat();
    none(files.iter().flat_map(leftovers));
}

#[test]
fn examples_say_what_they_show_and_how_to_run_them() {
    none(sources("examples").iter().flat_map(bad_header));
}

#[test]
fn the_tutorial_programs_are_short() {
    let files = sources("examples");
    for name in TUTORIAL {
        let path = format!("examples/{name}.rs");
        assert!(
            files.iter().any(|file| file.path == path),
            "{path} is missing"
        );
    }
    none(files.iter().flat_map(too_long));
}

// The checks. Each takes one file and returns what is wrong with it, a line each.

/// A source file: as written, and as code alone, with comments and text blanked out line by line.
#[derive(Clone)]
struct Source {
    path: String,
    text: String,
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        Source {
            path: path.to_owned(),
            text: text.to_owned(),
            code: code_of(text),
        }
    }

    /// `src/queue/loan.rs` and `src/queue.rs` are both in module `queue`; the front door is in none.
    fn module(&self) -> Option<&str> {
        let inside = self.path.strip_prefix("src/")?;
        let module = inside.split('/').next()?;
        Some(module.trim_end_matches(".rs")).filter(|&module| module != "lib")
    }

    fn breach(&self, line: usize, what: impl std::fmt::Display) -> String {
        format!("{}:{}: {what}", self.path, line + 1)
    }

    /// Every place where `word` stands alone in the code, as (line, byte offset).
    fn words(&self, word: &str) -> Vec<(usize, usize)> {
        let within = |c: char| c.is_alphanumeric() || c == '_';
        self.code
            .match_indices(word)
            .filter(|&(at, _)| {
                !self.code[..at].ends_with(within)
                    && !self.code[at + word.len()..].starts_with(within)
            })
            .map(|(at, _)| (self.code[..at].matches('\n').count(), at))
            .collect()
    }
}

fn upward_uses(file: &Source) -> Vec<String> {
    let Some(module) = file.module().filter(|module| !TEXT.contains(module)) else {
        return Vec::new();
    };
    let Some(own) = layer(module) else {
        return vec![file.breach(0, format!("`{module}` has no place in the layers"))];
    };
    let mut breaches = Vec::new();
    for (line, name) in names_used(file) {
        match layer(&name) {
            Some(other) if other <= own => {}
            Some(_) => breaches
                .push(file.breach(line, format!("`{module}` uses `{name}`, which is above it"))),
            None => breaches.push(file.breach(
                line,
                format!("`crate::{name}` is not a module of the layers"),
            )),
        }
    }
    breaches
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

/// The first names after `crate::`, also in a group, and after a `super::` that means the crate.
fn names_used(file: &Source) -> Vec<(usize, String)> {
    let top = file.path.matches('/').count() == 1;
    let roots: &[&str] = if top { &["crate", "super"] } else { &["crate"] };
    let mut names = Vec::new();
    for root in roots {
        for (line, at) in file.words(root) {
            let Some(rest) = file.code[at + root.len()..].trim_start().strip_prefix("::") else {
                continue;
            };
            // In a file's inner module `super` is the file itself.
            if *root == "super"
                && file.code[..at].matches('{').count() > file.code[..at].matches('}').count()
            {
                continue;
            }
            names.extend(first_names(rest).into_iter().map(|name| (line, name)));
        }
    }
    names
}

/// `a::b` gives `a`; `{a, b::{c, d}}` gives `a` and `b`.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = rest.trim_start().strip_prefix('{') else {
        return vec![name(rest)];
    };
    let (mut names, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn impurities(file: &Source) -> Vec<String> {
    let Some(module) = file.module().filter(|module| PURE.contains(module)) else {
        return Vec::new();
    };
    let mut breaches = Vec::new();
    for (number, line) in file.code.lines().enumerate() {
        for banned in NOT_IN_PURE.iter().filter(|banned| line.contains(**banned)) {
            breaches.push(file.breach(number, format!("`{module}` is pure and uses `{banned}`")));
        }
    }
    let uses = names_used(file).into_iter();
    breaches.extend(
        uses.filter(|(_, name)| ["segment", "sys", "handle", "kin"].contains(&name.as_str()))
            .map(|(line, name)| file.breach(line, format!("`{module}` is pure and uses `{name}`"))),
    );
    breaches.extend(
        file.words("unsafe")
            .into_iter()
            .map(|(line, _)| file.breach(line, "a protocol is safe code")),
    );
    breaches.dedup();
    breaches
}

/// Circles of imports among the files of a folder, each once. A folder in it counts as one file; the folder's own
/// `mod.rs`, from which all the others hang, as none.
fn circles(files: &[Source], folder: &str) -> Vec<String> {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files {
        let Some(own) = unit(file, folder).filter(|own| own != "mod") else {
            continue;
        };
        let its = uses.entry(own.clone()).or_default();
        its.extend(
            siblings_used(file, folder)
                .into_iter()
                .filter(|name| *name != own),
        );
    }
    let units: BTreeSet<String> = uses.keys().cloned().collect();
    let mut breaches = Vec::new();
    let mut over = BTreeSet::new();
    for unit in &units {
        circle_from(unit, &uses, &mut Vec::new(), &mut over, &mut breaches);
    }
    let circle = |names: &Vec<String>| format!("{folder}: a circle: {}", names.join(" uses "));
    breaches.iter().map(circle).collect()
}

/// Walks along the uses; a unit is `over` when everything that it leads to was seen.
fn circle_from(
    unit: &str,
    uses: &BTreeMap<String, BTreeSet<String>>,
    path: &mut Vec<String>,
    over: &mut BTreeSet<String>,
    found: &mut Vec<Vec<String>>,
) {
    if let Some(start) = path.iter().position(|before| before == unit) {
        let end = std::iter::once(unit.to_owned());
        found.push(path[start..].iter().cloned().chain(end).collect());
        return;
    }
    if over.contains(unit) {
        return;
    }
    path.push(unit.to_owned());
    for next in uses.get(unit).into_iter().flatten() {
        circle_from(next, uses, path, over, found);
    }
    path.pop();
    over.insert(unit.to_owned());
}

/// The file in a folder, or the folder in it, that a file is or is in.
fn unit(file: &Source, folder: &str) -> Option<String> {
    let inside = file.path.strip_prefix(folder)?.strip_prefix('/')?;
    let first = inside.split('/').next()?;
    Some(first.trim_end_matches(".rs").to_owned())
}

/// Files of the folder that this one of its files names, by `super::` or from the crate on. Tests are left out.
fn siblings_used(file: &Source, folder: &str) -> BTreeSet<String> {
    let depth = file.path[folder.len()..].matches('/').count() - 1;
    let is_root = file.path.ends_with("/mod.rs");
    let from_crate = folder.replacen("src", "crate", 1).replace('/', "::");
    // `super` of a `mod.rs` is the folder above its own.
    let from_here = vec!["super"; depth + usize::from(!is_root)].join("::");
    let code = before_tests(&file.code);
    let mut names = BTreeSet::new();
    for root in [from_crate, from_here] {
        for (at, _) in code.match_indices(&format!("{root}::")) {
            let within = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
            if !code[..at].ends_with(within) {
                names.extend(first_names(&code[at + root.len() + 2..]));
            }
        }
    }
    // What is not a file's name is something of `mod.rs`.
    names.retain(|name| name != "super" && name.starts_with(char::is_lowercase));
    names
}

fn before_tests(code: &str) -> &str {
    &code[..code.find("#[cfg(test)]").unwrap_or(code.len())]
}

fn too_much_code(files: &[Source], most: usize) -> Vec<String> {
    let lines = |file: &Source| {
        let code = before_tests(&file.code).lines();
        code.filter(|line| !line.trim().is_empty()).count()
    };
    let all: usize = files.iter().map(lines).sum();
    let breach = format!("{all} lines of code, {most} allowed");
    (all > most).then_some(breach).into_iter().collect()
}

/// `unsafe` in a file off the list, or in too many places; a file on the list without its reason, or
/// without need to be there.
fn stray_unsafe(file: &Source, list: &[(&str, usize)]) -> Vec<String> {
    let places = unsafe_places(file).len();
    let Some((_, allowed)) = list.iter().find(|(path, _)| *path == file.path) else {
        let off = |word| file.words(word).into_iter().map(|(line, _)| line);
        let denied = |line: &usize| {
            file.path == "src/lib.rs"
                && file
                    .code
                    .lines()
                    .nth(*line)
                    .is_some_and(|line| line.contains("deny"))
        };
        let lints = off("unsafe_code").filter(|line| !denied(line));
        let what = |line| file.breach(line, "`unsafe` in a file that is not on the list");
        return off("unsafe").chain(lints).map(what).collect();
    };
    let mut breaches = Vec::new();
    if places == 0 {
        breaches.push(file.breach(0, "on the list of unsafe files, and has no `unsafe`"));
    }
    if places > *allowed {
        breaches.push(file.breach(0, format!("{places} unsafe places, {allowed} allowed")));
    }
    let comments = file
        .text
        .lines()
        .filter(|line| line.trim_start().starts_with("//"));
    if places > 0
        && !comments
            .into_iter()
            .any(|line| line.contains("Why this file may"))
    {
        breaches.push(file.breach(0, "has `unsafe` and no paragraph \"Why this file may\""));
    }
    breaches
}

/// The places a person must believe: every `unsafe` but those in the type of a function pointer.
fn unsafe_places(file: &Source) -> Vec<(usize, usize)> {
    let mut places = file.words("unsafe");
    places.retain(|&(_, at)| {
        let after_fn = function_head(file, at).map(|rest| rest.trim_start());
        after_fn.is_none_or(|name| !name.is_empty())
    });
    places
}

/// What stands between `fn` and the next bracket, when this `unsafe` is of a function.
fn function_head(file: &Source, at: usize) -> Option<&str> {
    let head = file.code[at..].split(['(', '{', ';']).next()?;
    head.find(" fn").map(|fn_at| &head[fn_at + " fn".len()..])
}

/// Blocks, implementations and attributes without `SAFETY:` directly above their statement, and unsafe
/// functions and traits without a `# Safety` section (or a `SAFETY:` comment).
fn unproven(file: &Source) -> Vec<String> {
    let text: Vec<&str> = file.text.lines().map(str::trim).collect();
    let code: Vec<&str> = file.code.lines().map(str::trim).collect();
    let comment = |line: usize| text[line].starts_with("//");
    let attribute = |line: usize| code[line].starts_with("#[") || code[line].starts_with("#![");
    let ends = |line: &str| {
        line.is_empty() || line.ends_with([';', '{', '}', ',']) || line.ends_with("=>")
    };
    let mut breaches = Vec::new();
    for (line, at) in unsafe_places(file) {
        let mut first = line;
        while first > 0 && !comment(first - 1) && (attribute(first - 1) || !ends(code[first - 1])) {
            first -= 1;
        }
        let above = (0..first)
            .rev()
            .take_while(|&line| comment(line) || attribute(line));
        let mut proof = above.filter(|&line| comment(line)).map(|line| text[line]);
        let asks = function_head(file, at).is_some() || file.code[at..].starts_with("unsafe trait");
        if !proof.any(|line| line.contains("SAFETY:") || (asks && line.contains("# Safety"))) {
            breaches.push(file.breach(line, "no SAFETY comment directly above"));
        }
    }
    breaches
}

/// Structures in shared memory: `repr(C)`, no word of the machine's size, no pointer, a size that is asserted.
fn loose_layout(file: &Source) -> Vec<String> {
    let mut breaches = Vec::new();
    let code: Vec<&str> = file.code.lines().collect();
    for (line, at) in file.words("struct") {
        let rest = file.code[at + "struct".len()..].trim_start();
        let name = &rest[..rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len())];
        let above = code[..line]
            .iter()
            .rev()
            .take_while(|l| l.trim().is_empty() || l.trim_start().starts_with("#["));
        if !above
            .into_iter()
            .any(|l| l.contains("repr(C") || l.contains("repr(transparent"))
        {
            breaches.push(file.breach(line, format!("`{name}` is not repr(C)")));
        }
        let body = &rest[..rest.find(['}', ';']).unwrap_or(rest.len())];
        for word in [
            "usize", "isize", "*const", "*mut", "&", "bool", "char", "Option",
        ] {
            if body.contains(word) {
                breaches.push(file.breach(line, format!("`{name}` holds `{word}`")));
            }
        }
        if !file.code.contains(&format!("size_of::<{name}")) {
            breaches.push(file.breach(line, format!("the size of `{name}` is not asserted")));
        }
    }
    breaches
}

fn leftovers(file: &Source) -> Vec<String> {
    let lines = file.code.lines().enumerate();
    lines
        .flat_map(|(number, line)| {
            let found = NEVER.iter().filter(move |never| line.contains(**never));
            found.map(move |never| file.breach(number, format!("`{never}`")))
        })
        .collect()
}

fn bad_header(file: &Source) -> Vec<String> {
    let Some(name) = file
        .path
        .strip_prefix("examples/")
        .and_then(|path| path.strip_suffix(".rs"))
    else {
        return Vec::new();
    };
    let mut lines = file.text.lines();
    let (says, runs) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let mut breaches = Vec::new();
    if !says.starts_with("//! ") {
        breaches.push(file.breach(0, "the first line does not say what the example shows"));
    }
    if !runs.starts_with("//! Run: cargo run ") || !runs.contains(&format!("--example {name}")) {
        breaches.push(file.breach(1, "the second line does not say how to run it"));
    }
    breaches
}

fn too_long(file: &Source) -> Vec<String> {
    let lines = file.text.lines().count();
    let tutorial = TUTORIAL
        .iter()
        .any(|name| file.path == format!("examples/{name}.rs"));
    if tutorial && lines > TUTORIAL_LINES {
        return vec![file.breach(
            lines - 1,
            format!("{lines} lines, {TUTORIAL_LINES} allowed"),
        )];
    }
    Vec::new()
}

// Reading.

/// All Rust files of a folder of this crate. `fuzz` and `benches/peers` are crates of their own.
fn sources(folder: &str) -> Vec<Source> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    let mut folders = vec![home.join(folder)];
    while let Some(folder) = folders.pop() {
        // A folder that is not there has no files.
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() && !path.join("Cargo.toml").exists() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a readable source");
                let path = path
                    .strip_prefix(home)
                    .expect("inside the crate")
                    .display()
                    .to_string();
                files.push(Source::new(&path, &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// The text with comments, strings and characters replaced by spaces; lines and offsets stay.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let within_word =
            at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let length = if rest.starts_with(b"//") {
            find(rest, b"\n").unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            block_comment(rest)
        } else if let Some(length) = (!within_word).then(|| raw_string(rest)).flatten() {
            length
        } else if rest[0] == b'"' {
            quoted(rest)
        } else if let Some(length) = character(rest) {
            length
        } else {
            at += 1;
            continue;
        };
        for byte in &mut code[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length;
    }
    String::from_utf8(code).expect("whole characters were replaced")
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

fn block_comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` or `cr"…"`.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = ["r", "br", "cr"]
        .iter()
        .find(|prefix| rest.starts_with(prefix.as_bytes()))?
        .len();
    let hashes = rest[prefix..]
        .iter()
        .take_while(|&&byte| byte == b'#')
        .count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let start = prefix + hashes + 1;
    let end = [b"\"".as_slice(), &b"#".repeat(hashes)].concat();
    Some(find(&rest[start..], &end).map_or(rest.len(), |at| start + at + end.len()))
}

fn quoted(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of `'x'` or `'\n'`; nothing for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    if rest[0] != b'\'' {
        return None;
    }
    if rest.get(1) == Some(&b'\\') {
        return Some(3 + find(&rest[3..], b"'")? + 1);
    }
    let end = find(&rest[1..rest.len().min(6)], b"'")? + 1;
    let one = std::str::from_utf8(&rest[1..end]).is_ok_and(|text| text.chars().count() == 1);
    one.then_some(end + 1)
}

fn none(breaches: impl IntoIterator<Item = String>) {
    let breaches: Vec<String> = breaches.into_iter().collect();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

// Each check on text with a planted breach, and on the same text without it.

mod planted {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path, text)
    }

    fn breaches(found: Vec<String>, expected: &[&str]) {
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                found.contains(expected),
                "{found:?} does not hold {expected:?}"
            );
        }
    }

    #[test]
    fn code_is_told_from_comments_and_text() {
        let text = "a /* b /* c */ d */ e // f\n\"g \\\" h\" i r#\"j \" k\"# l 'm' '\\'' '\\n' n<'o> b\"p\" 'ä' q br\"s\" t";
        let code = code_of(text);
        let left: Vec<&str> = code.split_whitespace().collect();
        assert_eq!(left, ["a", "e", "i", "l", "n<'o>", "b", "q", "t"]);
        assert_eq!(code.len(), text.len());
        assert_eq!(code.lines().count(), 2);
    }

    #[test]
    fn an_upward_use_is_found() {
        let down = "use crate::ring::Writer;\nuse crate::{error, sync::{Futex, fence}};\nuse super::layout::Header;";
        breaches(upward_uses(&source("src/queue.rs", down)), &[]);
        breaches(
            upward_uses(&source("src/ring.rs", "use crate::segment::Segment;")),
            &["src/ring.rs:1: `ring` uses `segment`"],
        );
        breaches(
            upward_uses(&source(
                "src/layout.rs",
                "\nuse crate::{sync::Futex, ring::{Reader, Writer}, pool};",
            )),
            &[
                "src/layout.rs:2: `layout` uses `ring`",
                "`layout` uses `pool`",
            ],
        );
        breaches(
            upward_uses(&source(
                "src/sys/memory.rs",
                "fn f() { crate::segment::open() }",
            )),
            &["`sys` uses `segment`"],
        );
        breaches(
            upward_uses(&source("src/signal.rs", "use super::process::Child;")),
            &["`signal` uses `process`"],
        );
    }

    #[test]
    fn a_use_through_the_front_door_or_of_a_module_without_a_place_is_found() {
        breaches(
            upward_uses(&source("src/pool/mod.rs", "use crate::Process;")),
            &["`crate::Process` is not a module"],
        );
        breaches(
            upward_uses(&source("src/attic.rs", "")),
            &["`attic` has no place"],
        );
        breaches(
            upward_uses(&source("src/lib.rs", "pub use crate::pool::Pool;")),
            &[],
        );
    }

    #[test]
    fn what_only_looks_like_a_use_is_not_one() {
        let text = "// use crate::pool;\nconst A: &str = \"crate::pool\";\npub(crate) fn f() {}\n\
                    mod tests { use super::Slot; }";
        breaches(upward_uses(&source("src/ring.rs", text)), &[]);
    }

    #[test]
    fn an_impure_protocol_is_found() {
        breaches(
            impurities(&source("src/ring.rs", "use crate::sync::AtomicU64;")),
            &[],
        );
        breaches(
            impurities(&source("src/queue.rs", "use crate::segment::Segment;")),
            &[],
        );
        breaches(
            impurities(&source(
                "src/roster.rs",
                "use crate::{layout, segment::Segment};",
            )),
            &["uses `segment`"],
        );
        breaches(
            impurities(&source(
                "src/signal.rs",
                "use std::sync::atomic::AtomicU32;",
            )),
            &["std::sync::atomic"],
        );
        breaches(
            impurities(&source("src/ring/lane.rs", "fn f() { unsafe { g() } }")),
            &["safe code"],
        );
    }

    #[test]
    fn a_circle_is_found() {
        let files = |board: &str, worker: &str| {
            [
                source("src/pool/mod.rs", "mod board;\nuse board::Board;"),
                source("src/pool/board.rs", board),
                source("src/pool/job.rs", "use super::{Pool, wire::Wire};"),
                source("src/pool/wire.rs", "use crate::layout::PoolCell;"),
                source("src/pool/worker/mod.rs", "use super::wire::Wire; mod run;"),
                source("src/pool/worker/run.rs", worker),
            ]
        };
        let board = "use super::job::Job;\n#[cfg(test)]\nmod tests { use super::worker::W; }";
        let worker = "use super::WorkerState;\nuse super::super::job::Job;\n// super::super::board";
        breaches(circles(&files(board, worker), POOL), &[]);
        let worker = "fn f() { crate::pool::board::g() }";
        let board = "use super::{job, worker::WorkerState};";
        breaches(
            circles(&files(board, worker), POOL),
            &["board uses worker uses board"],
        );
        breaches(
            circles(&files("", "use super::super::job::Job;"), POOL),
            &[],
        );
    }

    #[test]
    fn too_much_code_is_found() {
        let files = [
            source(
                "src/pool/a.rs",
                "// One.\n\nfn f() {\n}\n#[cfg(test)]\nmod tests {\n}",
            ),
            source("src/pool/b.rs", "mod c;"),
        ];
        breaches(too_much_code(&files, 3), &[]);
        breaches(too_much_code(&files, 2), &["3 lines of code, 2 allowed"]);
    }

    #[test]
    fn stray_unsafe_is_found() {
        let list = &[("src/lock.rs", 2)];
        let reason = "//! Why this file may: because.\n#![allow(unsafe_code)]\nunsafe fn f() {}";
        breaches(stray_unsafe(&source("src/lock.rs", reason), list), &[]);
        breaches(
            stray_unsafe(
                &source("src/ring.rs", "// unsafe\nconst A: &str = \"unsafe\";"),
                list,
            ),
            &[],
        );
        breaches(
            stray_unsafe(&source("src/lib.rs", "#![deny(unsafe_code)]"), list),
            &[],
        );
        breaches(
            stray_unsafe(
                &source(
                    "src/ring.rs",
                    "#![allow(unsafe_code)]\nunsafe impl Send for A {}",
                ),
                list,
            ),
            &[
                "src/ring.rs:2: `unsafe` in a file",
                "src/ring.rs:1: `unsafe` in a file",
            ],
        );
        breaches(
            stray_unsafe(&source("src/lock.rs", "unsafe fn f() {}"), list),
            &["no paragraph"],
        );
        breaches(
            stray_unsafe(
                &source("src/lock.rs", "//! Why this file may: because."),
                list,
            ),
            &["has no `unsafe`"],
        );
        let three = format!("{reason}\nunsafe fn g() {{}}\nunsafe fn h() {{}}");
        breaches(
            stray_unsafe(&source("src/lock.rs", &three), list),
            &["3 unsafe places, 2 allowed"],
        );
    }

    #[test]
    fn an_unsafe_place_without_a_proof_is_found() {
        let proven = "fn f() {\n    // SAFETY: because a, therefore b.\n    let x =\n        unsafe { g() };\n}\n\
                      // SAFETY: two lines,\n// both above.\n#[inline]\nunsafe impl Send for A {}\n\
                      /// # Safety\n/// Implementor.\nunsafe trait B {}\n\
                      /// Does.\n///\n/// # Safety\n/// Caller.\npub unsafe extern \"C\" fn h(g: unsafe fn(u8)) {}";
        breaches(unproven(&source("src/lock.rs", proven)), &[]);
        let bare = "fn f() {\n    // Not a proof.\n    unsafe { g() }\n}\n// SAFETY: of something else.\nlet a = 1;\n\
                    unsafe impl Send for A {}\nfn i() {\n    // SAFETY: too far away.\n\n    unsafe { g() }\n}";
        breaches(
            unproven(&source("src/lock.rs", bare)),
            &["lock.rs:3:", "lock.rs:7:", "lock.rs:11:"],
        );
        assert_eq!(unsafe_places(&source("src/lock.rs", proven)).len(), 4);
    }

    #[test]
    fn a_loose_layout_is_found() {
        let fixed = "#[repr(C, align(128))]\n#[derive(Debug)]\npub struct Header {\n    magic: AtomicU64,\n}\n\
                     const _: () = assert!(size_of::<Header>() == 128);";
        breaches(loose_layout(&source(LAYOUT, fixed)), &[]);
        breaches(
            loose_layout(&source(
                LAYOUT,
                "#[derive(Debug)]\nstruct Header { length: usize }",
            )),
            &["not repr(C)", "holds `usize`", "not asserted"],
        );
    }

    #[test]
    fn a_leftover_is_found() {
        breaches(
            leftovers(&source("src/ring.rs", "// todo!\nfn f() { todo!() }")),
            &["src/ring.rs:2: `todo!`"],
        );
        breaches(
            leftovers(&source("tests/a.rs", "#[test]\n#[ignore]\nfn f() {}")),
            &["#[ignore"],
        );
    }

    #[test]
    fn a_bad_example_is_found() {
        let good = "//! Shows.\n//! Run: cargo run --example pids\n";
        breaches(bad_header(&source("examples/pids.rs", good)), &[]);
        breaches(
            bad_header(&source("examples/worker.rs", good)),
            &["how to run it"],
        );
        breaches(
            bad_header(&source("examples/worker.rs", "use a;\n")),
            &["what the example shows", "how to run it"],
        );
        breaches(too_long(&source("examples/pids.rs", &"\n".repeat(30))), &[]);
        breaches(
            too_long(&source("examples/pids.rs", &"\n".repeat(31))),
            &["31 lines, 30 allowed"],
        );
        breaches(
            too_long(&source("examples/crash.rs", &"\n".repeat(31))),
            &[],
        );
    }
}
