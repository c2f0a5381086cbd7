//! Pools whose workers are killed while they map, and that are made anew again and again.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;
use multiproc::{OnDeath, Pool, Segment, TaskError, WorkerExit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Random, Toll, Watch, give_way};

pub(crate) const TESTS: &[crate::Test] = &[("pool", || torture(&Toll::of(2_000)))];

const WORKERS: usize = 4;
/// Items of a map.
const ITEMS: u64 = 2_000;
/// Kills that a pool lives through, at most.
const EACH: u64 = 500;
/// So many may be killed before the pool must have gone on.
const PATIENCE: u32 = 20;

/// Counts that the item was begun.
fn square(begun: &Segment, item: u64) -> u64 {
    begun.words()[item as usize].fetch_add(1, Relaxed);
    for _ in 0..item % 512 {
        std::hint::spin_loop();
    }
    item * item
}

/// The same for an item and a result of no fixed size.
fn square_text(begun: &Segment, item: String) -> String {
    square(begun, item.parse().unwrap()).to_string()
}

#[derive(Default)]
struct Count {
    killed: AtomicU64,
    items: AtomicU64,
    died: AtomicU64,
}

pub(crate) fn torture(toll: &Toll) -> Result<(), Failed> {
    let count = Arc::new(Count::default());
    let watched = Arc::clone(&count);
    let watch = Watch::start(move || watched.items.load(Relaxed));
    let mut retries = 0_u8;
    while !toll.is_paid() {
        let on_death = match retries {
            0 => OnDeath::Fail,
            retries => OnDeath::Retry(retries),
        };
        let pool = Pool::builder()
            .workers(WORKERS)
            .on_worker_death(on_death)
            .initializer(give_way, ())
            .build()?;
        thread::scope(|scope| {
            let killer = scope.spawn(|| kill_workers(&pool, toll, &count));
            let mut round = 0;
            let mut outcome = Ok(());
            while !killer.is_finished() && outcome.is_ok() {
                outcome = one_round(&pool, round, retries, &count)
                    .and_then(|()| watch.check("an item", count.killed.load(Relaxed)));
                round += 1;
            }
            if outcome.is_err() {
                toll.give_up();
            }
            outcome
        })?;
        pool.join()?;
        retries = (retries + 1) % 3;
    }
    let Count {
        killed,
        items,
        died,
    } = &*count;
    let longest = watch.longest();
    eprintln!(
        "pool: {killed:?} kills, {items:?} items, of which {died:?} died, longest pause {longest:?}"
    );
    Ok(())
}

fn kill_workers(pool: &Pool, toll: &Toll, count: &Count) {
    let mut random = Random::new();
    let (mut seen, mut since) = (0, 0);
    for _ in 0..EACH {
        thread::sleep(Duration::from_micros(500 + random.below(2_500)));
        let items = count.items.load(Relaxed);
        (seen, since) = if items == seen {
            (seen, since + 1)
        } else {
            (items, 0)
        };
        // A pool all of whose workers die before they have begun anything gives up, rightly.
        if since > PATIENCE {
            continue;
        }
        let workers = pool.workers();
        let Some(worker) = workers.get(random.below(WORKERS as u64) as usize) else {
            continue;
        };
        if !toll.take_one() {
            return;
        }
        // It may have ended since; numbers are not used again before all others are.
        let _ = kill(Pid::from_raw(worker.pid() as i32), Signal::SIGKILL);
        count.killed.fetch_add(1, Relaxed);
    }
}

fn one_round(pool: &Pool, round: usize, retries: u8, count: &Count) -> Result<(), Failed> {
    let begun = Segment::new(ITEMS as usize * 8)?;
    let pool = pool.with(begun.clone()).chunk_size(1 + round % 70);
    let came = || _ = count.items.fetch_add(1, Relaxed);
    let results: Vec<Result<u64, TaskError>> = match round % 2 {
        0 => pool.imap(square, 0..ITEMS).inspect(|_| came()).collect(),
        _ => {
            let texts = (0..ITEMS).map(|item| item.to_string());
            pool.imap(square_text, texts)
                .inspect(|_| came())
                .map(|result| result.map(|text| text.parse().unwrap()))
                .collect()
        }
    };
    if results.len() as u64 != ITEMS {
        let last = results.last();
        return Err(format!(
            "pool: {} results of {ITEMS}, at last {last:?}",
            results.len()
        )
        .into());
    }
    for (item, result) in (0..ITEMS).zip(results) {
        let times = begun.words()[item as usize].load(Relaxed);
        let allowed = 1 + u64::from(retries);
        match result {
            Ok(value) if value == item * item && (1..=allowed).contains(&times) => {}
            Err(TaskError::WorkerDied {
                item: its,
                how: WorkerExit::Signalled(9),
                attempt,
                ..
            }) if its as u64 == item && u64::from(attempt) == allowed && times <= allowed => {
                count.died.fetch_add(1, Relaxed);
            }
            other => {
                return Err(format!("pool: item {item}, begun {times} times: {other:?}").into());
            }
        }
    }
    Ok(())
}
