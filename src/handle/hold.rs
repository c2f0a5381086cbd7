//! What this process holds for handles that it has sent.
//!
//! Whoever sends a handle through shared memory holds the object until the message's *carrier* is over, and
//! judges that from words that it can read anyway. To decode a handle changes nothing: it may happen never,
//! once or ten times, so a message that is handed out again has its handles still, and one that nobody
//! decodes holds nothing for longer than it lies there.
//!
//! | carrier | over when |
//! |---|---|
//! | a slot of a lane | the lane's head has passed it |
//! | bytes of a pipe | the reader says that it has decoded what lay there |
//! | a block | its state is free, or that of another message |
//! | a pool's result | the pool has wiped the word behind it |
//! | all of them | nobody who could read it is left |
//!
//! A receiver takes a message out of its slot a moment before it decodes it. So it first says, in the word of
//! its seat that is called its *hand*, that it has something in hand (odd), and afterwards that it has not
//! (even); a sender that sees a message taken waits for every hand that was closed then to open once. Edge Q:
//! the hand is closed before the release that takes the message, so who acquires that sees it closed.
//!
//! The list is private to the process. It is looked at when more is sent, when an end of a carrier is dropped,
//! and every [`PAUSE`] by a thread that lives as long as there is anything in the list.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering as Private};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ends::{End, inherit_ends};
use super::{Item, Passed, Travelling};
use crate::kin;
use crate::roster;
use crate::segment::Key;
use crate::sync::{AtomicU64, Ordering};
use crate::sys;

/// How long something may be held after its carrier is over.
const PAUSE: Duration = Duration::from_millis(100);

/// The two lowest bits of a block's state: see `queue/blocks.rs`.
const BLOCK_KIND: u64 = 3;
const BLOCK_FREE: u64 = 0;
const BLOCK_SENT: u64 = 1;

/// Where a message that names handles lies, and how its sender sees that it is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Carriage {
    /// What it lies in.
    pub(crate) segment: Travelling,
    /// Offset of the word that tells.
    pub(crate) at: u64,
    pub(crate) over: Over,
    /// Offset and number of the owner words of those who may read it; none if that is not asked.
    pub(crate) readers: (u64, u32),
    /// Offset of their hands, as many; 0 if they decode before they say that they have read.
    pub(crate) hands: u64,
}

/// What the word says when the message is over.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Over {
    /// This number, or more.
    Reached(u64),
    /// It is the state of a block, which is free or holds the message of another position.
    Block(u64),
    /// Anything but this.
    Wiped(u64),
}

impl Carriage {
    fn word(&self) -> Option<&AtomicU64> {
        self.segment.0.part(self.at).ok()
    }

    /// Whether the message has been read; also when its place cannot be seen, which a damaged segment may say.
    fn is_read(&self) -> bool {
        // Edge Q, sender's end.
        let seen = |word: Option<&AtomicU64>| word.map(|word| word.load(Ordering::Acquire));
        match self.over {
            Over::Reached(position) => seen(self.word()).is_none_or(|seen| seen >= position),
            Over::Block(position) => seen(self.word()).is_none_or(|seen| match seen & BLOCK_KIND {
                BLOCK_FREE => true,
                BLOCK_SENT => seen >> 2 != position,
                _ => false,
            }),
            // It may lie across words.
            Over::Wiped(value) => self.segment.0.bytes(self.at, 8).map_or(true, |bytes| {
                let mut word = [0; 8];
                bytes.copy_out(0, &mut word);
                u64::from_ne_bytes(word) != value
            }),
        }
    }

    fn reader(&self, number: u32) -> Option<&AtomicU64> {
        let at = self.readers.0.checked_add(8 * u64::from(number))?;
        self.segment.0.part(at).ok()
    }

    /// Whether nobody is left who could read it.
    fn is_abandoned(&self) -> bool {
        let life = self.segment.0.life();
        self.readers.1 > 0
            && !(0..self.readers.1).any(|number| {
                self.reader(number)
                    .is_some_and(|word| roster::is_held(word, life))
            })
    }

    fn hand(&self, number: u32) -> u64 {
        let at = self.hands.saturating_add(8 * u64::from(number));
        let word = self.segment.0.part::<AtomicU64>(at);
        word.map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// The hands that are closed, by the number of the reader.
    fn closed_hands(&self) -> Vec<(u32, u64)> {
        if self.hands == 0 {
            return Vec::new();
        }
        (0..self.readers.1)
            .map(|number| (number, self.hand(number)))
            .filter(|(_, hand)| hand % 2 == 1)
            .collect()
    }

    /// Whether a hand that was closed then is closed still, and its owner alive.
    fn is_closed_still(&self, (number, then): (u32, u64)) -> bool {
        let life = self.segment.0.life();
        self.hand(number) == then
            && self
                .reader(number)
                .is_some_and(|word| roster::is_held(word, life))
    }
}

/// What one message named.
struct Held {
    carriage: Carriage,
    /// Dropped when the message is over: that gives back what was reserved for a handle and not taken.
    items: Passed,
    /// The hands that were closed when the message was found read.
    closed: Option<Vec<(u32, u64)>>,
}

impl Held {
    fn is_over(&mut self) -> bool {
        if self.closed.is_none() && self.carriage.is_read() {
            self.closed = Some(self.carriage.closed_hands());
        }
        let Some(closed) = &mut self.closed else {
            return false;
        };
        closed.retain(|hand| self.carriage.is_closed_still(*hand));
        closed.is_empty()
    }
}

#[derive(Default)]
struct List {
    /// By what carries them, and by who reads there: the two directions of a pipe are two.
    carriers: HashMap<(Key, u64), VecDeque<Held>>,
    /// Whether the thread is there that looks.
    is_watched: bool,
}

static LIST: Mutex<Option<List>> = Mutex::new(None);
/// How many messages are in the list: for those who need not look.
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn list() -> MutexGuard<'static, Option<List>> {
    LIST.lock().unwrap_or_else(PoisonError::into_inner)
}

impl List {
    /// Takes out what is over.
    fn sift(&mut self) -> Vec<Held> {
        let mut over = Vec::new();
        self.carriers.retain(|_, held| {
            if held
                .front()
                .is_some_and(|first| first.carriage.is_abandoned())
            {
                over.extend(held.drain(..));
            }
            sift(held, &mut over);
            !held.is_empty()
        });
        over
    }
}

/// Takes out what is over, wherever it stands.
fn sift(held: &mut VecDeque<Held>, over: &mut Vec<Held>) {
    for _ in 0..held.len() {
        let Some(mut one) = held.pop_front() else {
            return;
        };
        match one.is_over() {
            true => over.push(one),
            false => held.push_back(one),
        }
    }
}

/// The number of held messages of one carrier above which all of them are looked at, not the first alone.
const MANY: usize = 64;

/// Holds what a message names until it is over.
pub(super) fn hold(carriage: Carriage, items: Passed) {
    let mut over = Vec::new();
    let mut list = list();
    let its = list.get_or_insert_default();
    let key = (carriage.segment.0.key(), carriage.readers.0);
    let held = its.carriers.entry(key).or_default();
    while held.front_mut().is_some_and(Held::is_over) {
        over.extend(held.pop_front());
    }
    // Each power of two: so that a look at all costs each message a few steps.
    if held.len() >= MANY && held.len().is_power_of_two() {
        sift(held, &mut over);
    }
    held.push_back(Held {
        carriage,
        items,
        closed: None,
    });
    COUNT.fetch_add(1, Private::Relaxed);
    let is_watched = std::mem::replace(&mut its.is_watched, true);
    drop(list);
    let_go(over);
    // Where there can be no thread, sending and dropping look.
    if !is_watched && watch().is_err() {
        if let Some(list) = &mut *self::list() {
            list.is_watched = false;
        }
    }
}

/// Not under the lock: an end that was not taken is let go of, which looks at the list.
fn let_go(over: Vec<Held>) {
    COUNT.fetch_sub(over.len(), Private::Relaxed);
    drop(over);
}

/// Lets go of what is over. For whoever has dropped an end of a carrier.
pub(crate) fn look() {
    if COUNT.load(Private::Relaxed) == 0 || kin::forked() {
        return;
    }
    let over = list().as_mut().map_or_else(Vec::new, List::sift);
    let_go(over);
}

fn watch() -> std::io::Result<()> {
    let watch = || {
        sys::block_signals();
        loop {
            thread::sleep(PAUSE);
            look();
            let mut list = list();
            match &mut *list {
                Some(its) if its.carriers.is_empty() => {
                    its.is_watched = false;
                    return;
                }
                _ => {}
            }
        }
    };
    thread::Builder::new()
        .name("multiproc-handles".into())
        .stack_size(128 * 1024)
        .spawn(watch)
        .map(drop)
}

/// What another process is to hold in place of this one.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Legacy {
    carriage: Carriage,
    objects: Vec<Travelling>,
    ends: Vec<End>,
}

impl Legacy {
    /// Makes another process answer for the ends, which has heard of them.
    pub(crate) fn leave_to(&self, parent: u32) {
        for end in &self.ends {
            end.leave_to(parent);
        }
    }
}

/// Takes out all that is held, for the parent of this process, which ends: what nobody can find by a name.
pub(crate) fn legacy() -> Vec<Legacy> {
    look();
    let carriers = match &mut *list() {
        Some(list) => std::mem::take(&mut list.carriers),
        None => return Vec::new(),
    };
    let held: Vec<_> = carriers.into_values().flatten().collect();
    let legacies = held.iter().map(|held| {
        let objects = held.items.items.iter().map(|item| &item.segment);
        let objects = objects.filter(|segment| !segment.is_named());
        Legacy {
            carriage: held.carriage.clone(),
            objects: objects.cloned().map(Travelling).collect(),
            ends: held.items.ends(),
        }
    });
    let legacies: Vec<_> = legacies
        .filter(|legacy| !legacy.objects.is_empty())
        .collect();
    // What is on its way is not given back: whoever receives it finds it free, and takes it.
    held.into_iter().for_each(|held| held.items.forget());
    legacies
}

/// Holds what a child has held that has ended.
pub(crate) fn inherit(legacies: Vec<Legacy>) {
    for legacy in legacies {
        let objects = legacy.objects.into_iter();
        let mut items = inherit_ends(legacy.ends);
        items.items.extend(objects.map(|Travelling(segment)| Item {
            segment,
            ticket: None,
        }));
        hold(legacy.carriage, items);
    }
}
