//! Whoever can write a pool's memory must not have its workers run what is no task of the program, nor a task on
//! values that are not of its types.
//!
//! An attacker who runs the same program learns from pools of its own which words name a function, and writes
//! those of a function of other types, or of no function at all, over them in the victim's. (A task of the same types
//! may well run in another's place: who can write the names can write the arguments too.)

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use multiproc::{Pool, Process, Segment, TaskError};

use crate::{LIMIT, Random, at, shared};

const TIME: Duration = Duration::from_secs(3);
/// Bytes of a pool's own segment that are looked through.
const DEPTH: u64 = 4 << 20;

fn add_one(number: u64) -> u64 {
    number + 1
}

/// Of other types: run on numbers it would follow them as if they were places in memory.
fn longest(mut texts: Vec<String>) -> Vec<String> {
    texts.sort_by_key(String::len);
    texts.pop().into_iter().collect()
}

/// The words of a file, as they are now.
fn words(file: &File) -> Vec<u64> {
    let length = file.metadata().map_or(0, |data| data.len().min(DEPTH));
    let mut bytes = vec![0; (length & !7) as usize];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => bytes
            .chunks_exact(8)
            .map(|word| u64::from_ne_bytes(word.try_into().unwrap()))
            .collect(),
        Err(_) => Vec::new(),
    }
}

fn is_pool(path: &Path) -> bool {
    std::fs::read_link(path).is_ok_and(|target| {
        let target = target.display().to_string();
        target.contains("multiproc:pool") && !target.contains("arena")
    })
}

/// What stands in the segment of a new pool that has run nothing but this.
fn after(function: fn(&Pool)) -> Vec<u64> {
    let pool = Pool::new(2).unwrap();
    function(&pool);
    let path = shared(std::process::id())
        .into_iter()
        .find(|path| is_pool(path));
    words(&File::open(path.expect("a pool has a segment")).unwrap())
}

/// For each word that may name the one function, that of the other.
fn learn() -> HashMap<u64, u64> {
    let run = |pool: &Pool| _ = pool.map(add_one, 0..64_u64);
    let other = |pool: &Pool| _ = pool.map(longest, vec![vec!["a".to_owned()]; 64]);
    let (theirs, mine) = (after(run), after(other));
    // A cookie, a number of a process or a time is also another each time, and nowhere in the victim's.
    let names = theirs.into_iter().zip(mine);
    names
        .filter(|(theirs, mine)| theirs != mine && theirs.count_ones() > 3 && mine.count_ones() > 3)
        .collect()
}

/// Writes over the names until it is told to stop; how often.
fn rename(victim: u32, board: Segment, to_another: bool) -> u64 {
    let names = learn();
    let stop = &board.words()[at::STOP];
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut written = 0;
    while stop.load(Relaxed) == 0 {
        for path in shared(victim).iter().filter(|path| is_pool(path)) {
            let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else {
                continue;
            };
            let places: Vec<_> = words(&file)
                .into_iter()
                .enumerate()
                .filter_map(|(index, word)| Some((index as u64 * 8, word, *names.get(&word)?)))
                .collect();
            for _ in 0..200 {
                for (place, theirs, mine) in &places {
                    let word = match to_another {
                        true => *mine,
                        // Near enough to be code, if the word says where a function is.
                        false => theirs
                            .wrapping_add(random.below(1 << 12))
                            .wrapping_sub(1 << 11),
                    };
                    let _ = file.write_all_at(&word.to_ne_bytes(), *place);
                    written += 1;
                }
            }
        }
    }
    written
}

/// Has a pool add ones until it is told to stop: how many results came, right or not, and how many workers died.
fn add(board: Segment) -> (u64, u64) {
    let stop = || board.words()[at::STOP].load(Relaxed) != 0;
    let (mut results, mut dead) = (0, 0);
    while !stop() {
        let Ok(pool) = Pool::new(2) else { continue };
        while !stop() {
            let task = pool.map_async(add_one, 0..64_u64);
            match task.get_timeout(Duration::from_secs(1)) {
                Ok(numbers) => {
                    results += numbers.len() as u64;
                }
                // What was written over is refused, and the pool goes on.
                Err(TaskError::NoFunction { .. } | TaskError::Decode { .. }) => {}
                Err(TaskError::WorkerDied { .. }) => dead += 1,
                Err(_) => break,
            }
        }
        dead += pool.stats().restarts;
    }
    (results, dead)
}

fn names_are_written_over(to_another: bool) {
    let board = Segment::new(64).unwrap();
    let victim = Process::spawn(add, (board.clone(),)).unwrap();
    let attacker = Process::spawn(rename, (victim.pid(), board.clone(), to_another)).unwrap();
    let end = Instant::now() + TIME;
    while Instant::now() < end && victim.is_alive() {
        std::thread::sleep(Duration::from_millis(20));
    }
    board.words()[at::STOP].store(1, Relaxed);
    let (results, dead) = match victim.join_timeout(LIMIT) {
        Ok(Some(counts)) => counts,
        Ok(None) => panic!("the victim hangs"),
        Err(error) => panic!("the victim did not live through it: {error}"),
    };
    let written = attacker.join_timeout(LIMIT).unwrap();
    let written = written.expect("the attacker hangs");
    println!("{results} results, words written over {written} times");
    assert_eq!(dead, 0, "workers died of what they were made to run");
    assert!(results > 0, "nothing was done");
}

#[test]
fn nobody_can_have_workers_run_a_function_on_what_it_does_not_take() {
    names_are_written_over(true);
}

#[test]
fn nobody_can_have_workers_run_what_is_no_function() {
    names_are_written_over(false);
}
