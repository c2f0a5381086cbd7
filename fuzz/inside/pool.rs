//! A pool and its workers in one process, for fuzzing: what either reads in their segment is what a fuzzer writes.
//!
//! There are no processes. In a game for the *pool*, workers are words that the fuzzer writes: rows, chunks, results,
//! reports, requests, and deaths. In a game for a *worker*, it serves cells whose words the fuzzer has changed, beside a
//! supervisor that answers.

use std::mem::offset_of;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::Ordering as Private;
use std::thread;

use super::feed::{Feed, Shares, single};
use super::items::{Closed, Items};
use super::job::Job;
use super::plan::Cut;
use super::recover::{Cause, Dead};
use super::settings::{OnDeath, Settings};
use super::shared::PoolShared;
use super::step::Step;
use super::supervisor;
use super::worker::WorkerState;
use crate::chunk::{Naming, Span};
use crate::error::WorkerExit;
use crate::layout::{PoolCell, PoolChunk, PoolPage, PoolRow};
use crate::message::Message;
use crate::process::Process;
use crate::sync::{AtomicU64, Ordering};

const SEATS: usize = 2;
/// The most items that a chunk of a game has: each may be a question and an answer of another thread's.
const ITEMS: u32 = 16;

/// Items and results of a fixed size.
struct Triple;

impl Step for Triple {
    type Context = ();
    type In = u64;
    type Out = u64;

    fn step((): &(), item: u64) -> u64 {
        item.wrapping_mul(3)
    }

    fn function() -> &'static str {
        "triple"
    }
}

/// Items and results that are records.
struct Exclaim;

impl Step for Exclaim {
    type Context = ();
    type In = String;
    type Out = String;

    fn step((): &(), item: String) -> String {
        item + "!"
    }

    fn function() -> &'static str {
        "exclaim"
    }
}

/// The fuzzer's bytes, one after another.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// What a word becomes: near what it was as often as anything.
    fn instead(&mut self, now: u64) -> Option<u64> {
        Some(match self.byte()? % 8 {
            0 => now.wrapping_add(u64::from(self.byte()?)),
            1 => now.wrapping_sub(u64::from(self.byte()?)),
            2 => u64::from(self.byte()?),
            3 => u64::MAX - u64::from(self.byte()?),
            4 => now ^ 1 << (self.byte()? % 64),
            5 => u64::from(self.byte()?) << 32 | u64::from(self.byte()?),
            6 => u64::from(self.byte()?) << 4 | 2,
            _ => {
                let (first, rest) = self.0.split_first_chunk()?;
                self.0 = rest;
                u64::from_le_bytes(*first)
            }
        })
    }
}

/// Jobs of a single chunk and of several, of numbers and of texts.
struct Game {
    shared: Arc<PoolShared>,
    numbers: [Arc<Job>; 2],
    texts: [Arc<Job>; 2],
}

fn submit<S: Step>(shared: &Arc<PoolShared>, item: &S::In, items: Vec<S::In>) -> [Arc<Job>; 2] {
    let shares = || Shares {
        cut: Cut::Every(NonZeroUsize::MIN.saturating_add(1)),
        per_job: items.len(),
        context: None,
        limit: None,
        fails_fast: true,
    };
    let one = single::<S>(shared, &shares(), item, None);
    let (shares, items) = (shares(), Items::<S::In>::source(items, Closed));
    let mut feed = Feed::new::<S>(shared, shares, items).expect("there is memory");
    let many = feed.next::<S>(None, false).ok().flatten();
    [one.ok(), many].map(|record| {
        let record = record.expect("it can be sent");
        let job = Arc::clone(&record.job);
        assert!(shared.submit(record).is_ok(), "the pool is open");
        job
    })
}

impl Game {
    fn new(retries: u8) -> Game {
        let shared = PoolShared::new(Settings {
            workers: SEATS,
            name: "PoolWorker".to_owned(),
            initializer: None,
            max_tasks: None,
            on_death: OnDeath::Retry(retries),
            task_timeout: None,
            kill_tree: false,
            queue_limit: None,
            memory_limit: None,
            ends_by_signals: false,
            process: Process::builder(),
        })
        .expect("there is memory for a pool");
        let text = String::from;
        let texts = vec![
            text(""),
            text("longer than a word"),
            "x".repeat(300),
            text("y"),
        ];
        Game {
            numbers: submit::<Triple>(&shared, &7, vec![1, 2, 3, 4, 5]),
            texts: submit::<Exclaim>(&shared, &text("a text"), texts),
            shared,
        }
    }

    fn jobs(&self) -> [&Arc<Job>; 4] {
        let ([number, numbers], [text, texts]) = (&self.numbers, &self.texts);
        [number, numbers, text, texts]
    }

    /// Where a job stands, and where its cell begins in the segment.
    fn cell(&self, which: u8) -> Option<(&PoolCell, usize)> {
        let number = self.jobs()[usize::from(which) % 4].cell()?;
        let [input, _] = self.shared.wire.inline(number);
        let start = input as usize - offset_of!(PoolCell, input);
        Some((self.shared.wire.cell(number)?, start))
    }

    /// A word that processes share: of the page, a row, a cell, a chunk; of items, results, or why there are none.
    fn change(&self, input: &mut Input<'_>) -> Option<()> {
        let (which, word) = (input.byte()?, usize::from(input.byte()?));
        let (cell, start) = self.cell(which)?;
        let index = usize::from(which >> 2) % 4;
        let chunk = &cell.chunks[index];
        let place = |word: &AtomicU64| usize::try_from(word.load(Ordering::Relaxed)).ok();
        let at = match which >> 4 {
            0 => word * 8,
            1 | 2 => size_of::<PoolPage>() + index % SEATS * size_of::<PoolRow>() + word % 32 * 8,
            3 => start + word % 80 * 8,
            4 | 5 => place(&chunk.output)?.checked_add(word)?,
            6 => place(&chunk.input)?.checked_add(word)?,
            7 => place(&chunk.failures)?.checked_add(word)?,
            _ => {
                start + offset_of!(PoolCell, chunks) + index * size_of::<PoolChunk>() + word % 8 * 8
            }
        };
        let (at, bytes) = (at & !7, &self.shared.wire.bytes);
        if at.checked_add(8).is_some_and(|end| end <= bytes.len()) {
            let mut now = [0; 8];
            bytes.copy_out(at, &mut now);
            let then = input.instead(u64::from_ne_bytes(now))?;
            bytes.copy_in(at, &then.to_ne_bytes());
        }
        Some(())
    }

    /// A worker has died, wherever its row says that it was.
    fn bury(&self, seat: u8) {
        let row = &self.shared.wire.rows[usize::from(seat) % SEATS];
        let dead = Dead {
            seat: u16::from(seat) % SEATS as u16,
            pid: 1,
            name: "PoolWorker-1".into(),
            how: WorkerExit::Exited(1),
            naming: Naming::from_word(row.item.load(Ordering::Relaxed)),
            cause: Cause::Itself,
        };
        let at = row.at.load(Ordering::Relaxed);
        let retries = self.shared.settings.on_death.retries();
        self.shared
            .with_board(|board, after| board.recover(&dead, at, retries, after));
    }

    fn play_pool(&self, input: &mut Input<'_>) -> Option<()> {
        loop {
            let operation = input.byte()?;
            match operation % 8 {
                0..=3 => self.change(input)?,
                4 => self.bury(operation >> 3),
                5 => {
                    let job = self.jobs()[usize::from(operation >> 3) % 4];
                    self.shared
                        .with_board(|board, after| board.cancel(job, after));
                }
                6 => {
                    self.shared.with_board(|board, after| board.audit(after));
                }
                _ => supervisor::look_once(&self.shared),
            }
        }
    }

    /// What a worker makes of it, beside a supervisor that answers.
    fn play_worker(&self, input: &mut Input<'_>) {
        thread::scope(|scope| {
            scope.spawn(|| supervisor::supervise(Arc::clone(&self.shared)));
            if let Ok(mut worker) = WorkerState::new(self.shared.wire.segment().clone(), 0, None) {
                let _ = self.serve(&mut worker, input);
            }
            self.shared.is_stopped.store(true, Private::Release);
            self.shared.call_supervisor();
        });
    }

    fn serve(&self, worker: &mut WorkerState, input: &mut Input<'_>) -> Option<()> {
        loop {
            match input.byte()? % 4 {
                0 | 1 => self.change(input)?,
                _ => {
                    let cells = (0..4).filter_map(|job| self.cell(job));
                    for chunk in cells.flat_map(|(cell, _)| &cell.chunks) {
                        // Any number of items ends some day; these end soon.
                        let span = Span::from_word(chunk.span.load(Ordering::Relaxed));
                        let count = span.count % ITEMS;
                        chunk
                            .span
                            .store(Span { count, ..span }.word(), Ordering::Relaxed);
                    }
                    worker.serve_one();
                }
            }
        }
    }

    /// Reads the results of what has ended.
    fn read(&self) {
        self.numbers.iter().for_each(|job| read::<u64>(job));
        self.texts.iter().for_each(|job| read::<String>(job));
    }
}

fn read<R: Message>(job: &Job) {
    if job.has_ended() {
        let mut results = Vec::new();
        if let Ok(false) = job.append_to::<R>(&mut results) {
            assert_eq!(results.len(), job.items as usize);
        }
        assert_eq!(job.each::<R>().len(), job.items as usize);
        if job.items == 1 {
            let _ = job.only::<R>();
        }
    }
}

/// Plays a game: the first byte says whose.
pub(crate) fn play(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else {
        return;
    };
    let mut input = Input(rest);
    let game = Game::new(kind >> 1 & 1);
    match kind % 2 {
        // It ends where the input does.
        0 => _ = game.play_pool(&mut input),
        _ => game.play_worker(&mut input),
    }
    supervisor::look_once(&game.shared);
    game.read();
}
