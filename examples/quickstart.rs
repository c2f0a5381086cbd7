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

type Count = HashMap<String, u64>;

/// The job: how often each word occurs in one piece of text. It runs in the workers.
fn count_words(text: String) -> Count {
    let mut count = Count::new();
    for word in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
        if word.chars().any(char::is_alphabetic) {
            *count.entry(word.to_lowercase()).or_default() += 1;
        }
    }
    count
}

fn main() -> Result<(), Box<dyn Error>> {
    let files = files_to_read()?;
    let mut pieces = Vec::new();
    for file in &files {
        cut(&String::from_utf8_lossy(&fs::read(file)?), &mut pieces);
    }
    let bytes: usize = pieces.iter().map(String::len).sum();
    println!(
        "{} files, {bytes} bytes, {} pieces",
        files.len(),
        pieces.len()
    );

    let start = Instant::now();
    let alone = total(pieces.iter().cloned().map(count_words));
    let one_process = start.elapsed();

    let start = Instant::now();
    let workers = std::thread::available_parallelism()?.get();
    let pool = Pool::new(workers)?;
    let making = start.elapsed();

    let bar = progress_bar(pieces.len());
    let start = Instant::now();
    let mut counts = Vec::new();
    for batch in pieces.chunks(pieces.len().div_ceil(10).max(1)) {
        counts.extend(pool.map(count_words, batch.to_vec())?);
        bar.inc(batch.len() as u64);
    }
    let together = total(counts);
    let whole_pool = start.elapsed();
    bar.finish_and_clear();

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

/// The paths given, or this crate's own README and sources.
fn files_to_read() -> io::Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if paths.is_empty() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR"));
        paths = vec![home.join("README.md"), home.join("src")];
    }
    let mut files = Vec::new();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                paths.push(entry?.path());
            }
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

/// Cuts a text at line ends into pieces of some 16 KiB, so that a long file is shared out too.
fn cut(text: &str, pieces: &mut Vec<String>) {
    let mut piece = String::new();
    for line in text.split_inclusive('\n') {
        piece.push_str(line);
        if piece.len() >= 16 * 1024 {
            pieces.push(std::mem::take(&mut piece));
        }
    }
    pieces.push(piece);
}

fn total(counts: impl IntoIterator<Item = Count>) -> Count {
    let mut total = Count::new();
    for count in counts {
        for (word, times) in count {
            *total.entry(word).or_default() += times;
        }
    }
    total
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
