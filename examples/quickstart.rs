//! Counts the words of real text files over a pool of processes, and on one process beside it.
//! Run: cargo run --release --example quickstart [FILE OR FOLDER]...
use std::collections::HashMap;
use std::error::Error;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fs, io};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use multiproc::Pool;

/// The job: the words in some files, and how often each occurs. It runs in the workers.
fn count_words(files: Vec<PathBuf>) -> Vec<(String, u64)> {
    let mut count = HashMap::new();
    for file in files {
        let text = fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let text = String::from_utf8_lossy(&text).to_lowercase();
        for word in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
            if let Some(times) = count.get_mut(word) {
                *times += 1;
            } else if word.contains(char::is_alphabetic) {
                count.insert(word.to_owned(), 1);
            }
        }
    }
    count.into_iter().collect()
}

/// Adds what one piece of the work gave to the whole.
fn add(total: &mut HashMap<String, u64>, words: Vec<(String, u64)>) {
    for (word, times) in words {
        *total.entry(word).or_default() += times;
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let files = files_to_read()?;
    let workers = std::thread::available_parallelism()?.get();
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let (number, pieces) = (files.len(), pieces(files, bytes / (4 * workers as u64)));
    println!("{number} files, {bytes} bytes, {} pieces", pieces.len());

    let start = Instant::now();
    let pool = Pool::new(workers)?;
    let making = start.elapsed();

    let start = Instant::now();
    let bar = progress_bar(pieces.len());
    let mut together = HashMap::new();
    for words in bar.wrap_iter(pool.imap_unordered(count_words, &pieces)) {
        add(&mut together, words?);
    }
    let whole_pool = start.elapsed();
    bar.finish_and_clear();

    let start = Instant::now();
    let mut alone = HashMap::new();
    for piece in pieces {
        add(&mut alone, count_words(piece));
    }
    let one_process = start.elapsed();

    assert_eq!(alone, together, "a pool counts what one process counts");
    let mut words: Vec<_> = together.into_iter().collect();
    words.sort_by(|(a, m), (b, n)| n.cmp(m).then(a.cmp(b)));
    for (word, times) in words.iter().take(10) {
        println!("{times:>8}  {word}");
    }
    println!("one process: {one_process:.1?}");
    println!("pool of {workers}: {whole_pool:.1?}, after {making:.1?} to start it");
    Ok(())
}

/// The files given, or this crate's own README, sources and tests, with the bytes in each.
fn files_to_read() -> io::Result<Vec<(PathBuf, u64)>> {
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        paths = ["README.md", "src", "tests", "examples"]
            .map(|path| home.join(path))
            .into();
    }
    let mut files = Vec::new();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                paths.push(entry?.path());
            }
        } else {
            let bytes = path.metadata()?.len();
            files.push((path, bytes));
        }
    }
    Ok(files)
}

/// Puts files together until there are so many bytes in each piece of work.
fn pieces(files: Vec<(PathBuf, u64)>, enough: u64) -> Vec<Vec<PathBuf>> {
    let mut pieces = Vec::new();
    let (mut piece, mut filled) = (Vec::new(), 0);
    for (file, bytes) in files {
        piece.push(file);
        filled += bytes;
        if filled >= enough {
            pieces.push(std::mem::take(&mut piece));
            filled = 0;
        }
    }
    pieces.extend((!piece.is_empty()).then_some(piece));
    pieces
}

/// A bar on standard error when a person is watching, and nothing otherwise.
fn progress_bar(length: usize) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style =
        ProgressStyle::with_template("{bar:40} {pos}/{len} pieces").expect("a valid template");
    ProgressBar::with_draw_target(Some(length as u64), target).with_style(style)
}
