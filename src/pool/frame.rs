//! A pool and its worker in one process, for fuzzing: what either reads in their segment is what a fuzzer writes.
//!
//! There are no processes. In a game for the *pool*, it has two seats and four jobs, and reads notices, chunks and
//! results of the fuzzer's; in a game for a *worker*, it serves tickets of jobs whose words the fuzzer has changed,
//! while a pool beside it answers.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use super::arena::Place;
use super::control::{CELLS, Cell, NOTICE_LANE, Notice};
use super::engine::Engine;
use super::feed::{Feed, Shares, single};
use super::items::Items;
use super::job::{Span, Ticket};
use super::plan::Cut;
use super::settings::{OnDeath, Settings};
use super::station::Station;
use super::step::Step;
use super::work::Work;
use crate::layout::{NOTICE_STRIDE, SMALL, Single};
use crate::message::Message;
use crate::ring::Writer;
use crate::sync::Ordering;

const SEATS: usize = 2;
/// The most bytes that a worker of a game asks for, but for so many that no machine has them.
const BYTES: u64 = 1 << 16;
const TOO_MANY: u64 = 1 << 48;
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
}

/// The fuzzer's bytes, one after another.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// A word that is near another as often as it is anything.
    fn word(&mut self, near: u64) -> Option<u64> {
        Some(match self.byte()? % 8 {
            0 => near,
            1 => near.wrapping_add(u64::from(self.byte()?)),
            2 => near.wrapping_sub(u64::from(self.byte()?)),
            3 => u64::from(self.byte()?),
            4 => u64::MAX - u64::from(self.byte()?),
            5 => near ^ 1 << (self.byte()? % 64),
            6 => u64::from(self.byte()?) << 32 | u64::from(self.byte()?),
            _ => {
                let (first, rest) = self.0.split_first_chunk()?;
                self.0 = rest;
                u64::from_le_bytes(*first)
            }
        })
    }
}

/// Any number of items ends some day; these end soon.
fn few(span: u64) -> u64 {
    let span = Span::from_word(span);
    let count = span.count % ITEMS;
    Span { count, ..span }.word()
}

/// A pool without workers, and its jobs: one of a single chunk and one of several, of numbers and of texts.
struct Game {
    engine: Arc<Engine>,
    numbers: [Arc<Work>; 2],
    texts: [Arc<Work>; 2],
    /// The names of functions that the pool has written, cell by cell.
    names: Vec<[u64; 3]>,
}

fn submit<S: Step>(engine: &Arc<Engine>, item: &S::In, items: Vec<S::In>) -> [Arc<Work>; 2] {
    let shares = Shares {
        cut: Cut::Every(NonZeroUsize::MIN),
        per_job: items.len(),
    };
    let one = single::<S>(engine, None, item, None);
    let many = Feed::<S, _>::new(engine, shares, None, Items::<S::In>::source(items))
        .and_then(|mut feed| feed.next(None));
    [one, many.map(|parcel| parcel.expect("there are items"))].map(|parcel| {
        let parcel = parcel.expect("it can be sent");
        let work = Arc::clone(&parcel.work);
        engine.submit(parcel).expect("the pool is open");
        work
    })
}

impl Game {
    fn new() -> Game {
        let engine = Engine::new(Settings {
            workers: SEATS,
            name: "PoolWorker".to_owned(),
            initializer: None,
            _passed: Mutex::new(None),
            max_tasks: None,
            on_death: OnDeath::Fail,
            task_timeout: None,
            method: None,
            kill_tree: false,
        })
        .expect("there is memory for a pool");
        let text = String::from;
        let mut game = Game {
            numbers: submit::<Triple>(&engine, &7, vec![1, 2, 3]),
            texts: submit::<Exclaim>(
                &engine,
                &text("a text"),
                vec![text(""), text("longer than a word is"), "x".repeat(300)],
            ),
            engine,
            names: Vec::new(),
        };
        let names = game.cells().map(|cell| {
            let words = cell.job().task.each_ref();
            words.map(|word| word.load(Ordering::Relaxed))
        });
        game.names = names.collect();
        game
    }

    fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        (0..CELLS as u16).filter_map(|cell| self.engine.control.cell(cell))
    }

    /// Writes over the name of a function: the name of another, or what is near one, or anything.
    fn change_name(&self, input: &mut Input<'_>) -> Option<()> {
        let which = usize::from(input.byte()?);
        let ticket = self.works()[which % 4].ticket()?;
        let task = &self.engine.control.cell(ticket.cell)?.job().task;
        let others: Vec<_> = self.names.iter().filter(|name| name[0] != 0).collect();
        match input.byte()? % 4 {
            field @ 0..=2 => {
                let word = &task[usize::from(field)];
                word.store(input.word(word.load(Ordering::Relaxed))?, Ordering::Relaxed);
            }
            _ => {
                let other = others.get(usize::from(input.byte()?) % others.len().max(1))?;
                for (word, value) in task.iter().zip(**other) {
                    word.store(value, Ordering::Relaxed);
                }
            }
        }
        Some(())
    }

    /// Has no chunk more items than end soon. Names of functions stay what was written.
    fn shorten(&self) {
        for cell in self.cells() {
            if let Cell::Single(Single { chunk, .. }) = cell {
                let span = few(chunk.span.load(Ordering::Relaxed));
                chunk.span.store(span, Ordering::Relaxed);
            }
        }
    }

    fn works(&self) -> [&Arc<Work>; 4] {
        let [number, numbers] = &self.numbers;
        let [text, texts] = &self.texts;
        [number, numbers, text, texts]
    }

    /// The ticket of a job that has not ended yet, or one that nobody was given.
    fn ticket(&self, input: &mut Input<'_>) -> Option<u64> {
        let which = usize::from(input.byte()?);
        let work = self.works()[which % 4];
        let word = work.ticket().map_or(0, Ticket::word);
        match which >> 2 & 3 {
            0 => input.word(word),
            _ => Some(word),
        }
    }

    /// A chunk of a job.
    fn change_chunk(&self, input: &mut Input<'_>) -> Option<()> {
        let which = usize::from(input.byte()?);
        let ticket = self.works()[which % 4].ticket()?;
        let chunks = self.engine.control.cell(ticket.cell)?.chunks();
        let chunk = &chunks[(which >> 2) % 4 % chunks.len()];
        let words = [
            &chunk.state,
            &chunk.span,
            &chunk.input,
            &chunk.input_len,
            &chunk.output,
            &chunk.room,
            &chunk.used,
        ];
        let field = usize::from(input.byte()?) % words.len();
        let mut value = input.word(words[field].load(Ordering::Relaxed))?;
        if field == 1 {
            value = few(value);
        }
        words[field].store(value, Ordering::Relaxed);
        Some(())
    }

    /// Bytes of the arena or of a cell: items, results, or why there are none.
    fn change_bytes(&self, input: &mut Input<'_>) -> Option<()> {
        let which = usize::from(input.byte()?);
        let ticket = self.works()[which % 4].ticket()?;
        let chunks = self.engine.control.cell(ticket.cell)?.chunks();
        let chunk = &chunks[(which >> 2) % 4 % chunks.len()];
        let place = match which >> 4 & 1 {
            0 => &chunk.input,
            _ => &chunk.output,
        };
        let place = Place::from_word(place.load(Ordering::Relaxed));
        // Behind what a cell holds come words of its own.
        let (bytes, most) = match place.extent {
            0 => (self.engine.control.inline().clone(), SMALL),
            _ => (self.engine.bytes(place)?, 256),
        };
        let at = usize::try_from(place.offset).ok()?;
        let at = at.checked_add(usize::from(input.byte()?) % most)? & !7;
        let mut now = [0; 8];
        if at.checked_add(8).is_some_and(|end| end <= bytes.len()) {
            bytes.copy_out(at, &mut now);
            let then = input.word(u64::from_ne_bytes(now))?;
            bytes.copy_in(at, &then.to_ne_bytes());
        }
        Some(())
    }

    /// Says something as a worker would, or what none would say.
    fn say(&self, seat: usize, input: &mut Input<'_>) -> Option<()> {
        let kind = input.byte()?;
        let ticket = self.ticket(input)?;
        let mut words = [ticket | u64::from(kind & 0xf) << 57, 0, 0];
        for word in &mut words[1..] {
            *word = input.word(0)?;
        }
        let row = &self.engine.control.seats[seat];
        let mut writer = Writer::attach(NOTICE_LANE, &row.lane, &row.notices);
        if writer.room(&row.lane) > 0 {
            for (to, word) in writer.payload(&row.notices, 0).iter().zip(words) {
                to.store(word, Ordering::Relaxed);
            }
            writer.publish(&row.notices, 1);
        }
        Some(())
    }

    /// The words by which a worker's lane is read.
    fn change_lane(&self, seat: usize, input: &mut Input<'_>) -> Option<()> {
        let row = &self.engine.control.seats[seat];
        let which = usize::from(input.byte()?);
        let words = [&row.lane.head, &row.lane.freed, &row.now, &row.item];
        let word = match which & 1 {
            0 => words[which >> 1 & 3],
            _ => &row.notices[which >> 1],
        };
        word.store(input.word(word.load(Ordering::Relaxed))?, Ordering::Relaxed);
        Some(())
    }

    /// Has the workers ask for no memory that would be missed.
    fn ask_for_little(&self) {
        for seat in &self.engine.control.seats {
            for slot in seat.notices.chunks_exact(NOTICE_STRIDE) {
                let words = [&slot[1], &slot[2], &slot[3]].map(|word| word.load(Ordering::Relaxed));
                if let Some(Notice::Room { bytes, .. }) = Notice::from_words(words) {
                    if bytes < TOO_MANY {
                        slot[2].store(bytes % BYTES, Ordering::Relaxed);
                    }
                }
            }
        }
    }

    /// Reads what the workers have said, and the results of what has ended.
    fn listen(&self) {
        self.ask_for_little();
        // Once: it is done when it is asked first.
        self.engine.wait(|| false, |_| false, Some(Instant::now()));
        for work in &self.numbers {
            read::<u64>(work, &self.engine);
        }
        for work in &self.texts {
            read::<String>(work, &self.engine);
        }
    }

    /// What the pool makes of it.
    fn play_pool(&self, input: &mut Input<'_>) -> Option<()> {
        loop {
            let operation = input.byte()?;
            let seat = usize::from(operation >> 4) % SEATS;
            match operation % 8 {
                0..=2 => self.say(seat, input)?,
                3 => self.change_chunk(input)?,
                4 => self.change_bytes(input)?,
                5 => self.change_lane(seat, input)?,
                6 => _ = self.engine.cancel(self.works()[seat]),
                _ => self.listen(),
            }
        }
    }

    /// What a worker makes of it, beside a pool that answers.
    fn play_worker(&self, input: &mut Input<'_>) {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let is_over = || over.load(Ordering::Acquire);
                self.engine.wait(is_over, |_| !is_over(), None);
            });
            let segment = self.engine.control.segment().clone();
            if let Ok(mut station) = Station::new(segment, 0, None) {
                let _ = self.serve(&mut station, input);
            }
            over.store(true, Ordering::Release);
            self.engine.control.page.results.notify_all();
        });
    }

    fn serve(&self, station: &mut Station, input: &mut Input<'_>) -> Option<()> {
        loop {
            match input.byte()? % 8 {
                0 | 4 => self.change_chunk(input)?,
                1 => self.change_bytes(input)?,
                5 => self.change_name(input)?,
                _ => {
                    let ticket = Ticket::from_word(self.ticket(input)?);
                    if let Some(ticket) = ticket {
                        self.shorten();
                        station.serve(ticket);
                    }
                }
            }
        }
    }
}

fn read<R: Message>(work: &Work, engine: &Engine) {
    if work.has_ended() {
        let mut results = Vec::new();
        if work.append_to::<R>(engine, &mut results).is_ok() {
            assert_eq!(results.len(), work.items as usize);
        }
        assert_eq!(work.each::<R>(engine).len(), work.items as usize);
    }
}

/// Plays a game: the first byte says whose.
pub(crate) fn play(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else {
        return;
    };
    let mut input = Input(rest);
    let game = Game::new();
    match kind % 2 {
        0 => {
            // It ends where the input does.
            let _ = game.play_pool(&mut input);
            game.listen();
        }
        _ => game.play_worker(&mut input),
    }
}
