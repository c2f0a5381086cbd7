//! Two processes at the ends of a pipe, one of which is killed; then two others, at another pipe.
//!
//! One sends messages of all sizes, from a word to several times the pipe's memory, and the other answers some. When
//! the one that sends dies, the other must get everything that was sent, whole and in order, and then be told; when
//! the other one dies, the one that sends must be told.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use libtest_mimic::Failed;
use multiproc::{Child, JoinError, Pipe, PipeEnd, Process, RecvError, Segment, SendError};

use crate::{LONG, Random, Toll, Watch, give_way};

pub(crate) const TESTS: &[crate::Test] = &[("pipe", || torture(&Toll::of(3_000)))];

const COUPLES: usize = 2;
/// Couples of which one is dead, that may be waiting to be looked at.
const WIDOWS: usize = 6;
/// Every so many messages one is answered.
const ANSWERED: u64 = 16;
/// Bytes of a pipe's memory.
const SIZE: usize = 16 << 10;

/// Words of the board. Beside the first ones, each couple has a row.
mod at {
    pub(super) const MOVED: usize = 0;
    pub(super) const ROWS: usize = 16;
    pub(super) const SENT: usize = 0;
    pub(super) const HEARD: usize = 1;
    pub(super) const FAULTS: usize = 2;
    pub(super) const ROW: usize = 16;
}

/// More than there are couples at any time, so that rows can be used again in turn.
const ROWS: u64 = 32;

fn word(board: &Segment, couple: u64, at: usize) -> &AtomicU64 {
    &board.words()[at::ROWS + (couple % ROWS) as usize * at::ROW + at]
}

/// The words of a message; one in 64 is longer than the pipe's memory.
fn message(number: u64) -> Vec<u64> {
    let mut word = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = match word >> 58 {
        0 => 3 * SIZE as u64 / 8,
        1..=8 => word >> 32 & 0x3ff,
        _ => word >> 32 & 0xf,
    };
    (0..words)
        .map(|_| {
            word = (word ^ (word >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word
        })
        .collect()
}

fn talk(mut end: PipeEnd<Vec<u64>, u64>, board: Segment, couple: u64) {
    give_way();
    for number in 0.. {
        match end.send(message(number)) {
            Ok(()) => word(&board, couple, at::SENT).store(number + 1, Ordering::Release),
            Err(SendError::Closed(_)) => return,
            Err(error) => panic!("{error}"),
        }
        if number % ANSWERED == 0 {
            match end.recv() {
                Ok(answer) if answer == number => {}
                Ok(_) => _ = word(&board, couple, at::FAULTS).fetch_add(1, Relaxed),
                Err(RecvError::Closed) => return,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

fn hear(mut end: PipeEnd<u64, Vec<u64>>, board: Segment, couple: u64) {
    give_way();
    for number in 0.. {
        match end.recv() {
            Ok(words) if words == message(number) => {}
            Ok(_) => _ = word(&board, couple, at::FAULTS).fetch_add(1, Relaxed),
            Err(RecvError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
        word(&board, couple, at::HEARD).store(number + 1, Ordering::Release);
        board.words()[at::MOVED].fetch_add(1, Relaxed);
        if number % ANSWERED == 0 {
            match end.send(number) {
                // There may be messages still, from one who is dead.
                Ok(()) | Err(SendError::Closed(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A couple, and which of the two was killed.
struct Couple {
    number: u64,
    talks: Child<()>,
    hears: Child<()>,
    killed: usize,
}

impl Couple {
    fn start(board: &Segment, number: u64) -> Couple {
        (0..at::ROW).for_each(|at| word(board, number, at).store(0, Relaxed));
        let (here, there) = Pipe::builder().size(SIZE).build().unwrap();
        Couple {
            number,
            talks: Process::spawn(talk, (here, board.clone(), number)).unwrap(),
            hears: Process::spawn(hear, (there, board.clone(), number)).unwrap(),
            killed: 2,
        }
    }

    fn kill(&mut self, one: usize) {
        [&self.talks, &self.hears][one].kill().unwrap();
        self.killed = one;
    }

    /// What became of the other one.
    fn check(self, board: &Segment) -> Result<(), Failed> {
        let ended = [&self.talks, &self.hears].map(|child| child.join_timeout(LONG));
        let as_it_should = |one: usize| match one == self.killed {
            // It may have seen the other's end, if it was killed at last.
            true => matches!(ended[one], Err(JoinError::Signalled(9))),
            false => matches!(ended[one], Ok(Some(()))),
        };
        if !as_it_should(0) || !as_it_should(1) {
            return Err(format!("pipe: {} was killed, and {ended:?}", self.killed).into());
        }
        let read = |at| word(board, self.number, at).load(Ordering::Acquire);
        let (sent, heard, faults) = (read(at::SENT), read(at::HEARD), read(at::FAULTS));
        // The one that is killed may have sent, or heard, one that it has not counted.
        let well = match self.killed {
            0 => heard == sent || heard == sent + 1,
            _ => heard <= sent + 1,
        };
        match well && faults == 0 {
            true => Ok(()),
            false => Err(format!(
                "pipe: {} was killed; {sent} sent, {heard} heard, {faults} torn or repeated",
                self.killed
            )
            .into()),
        }
    }
}

pub(crate) fn torture(toll: &Toll) -> Result<(), Failed> {
    let board = Segment::new((at::ROWS + ROWS as usize * at::ROW) * 8).unwrap();
    let mut random = Random::new();
    let mut kills = 0_u64;
    let mut couples: Vec<_> = (0..COUPLES as u64)
        .map(|number| Couple::start(&board, number))
        .collect();
    let mut widows = VecDeque::new();
    let watched = board.clone();
    let watch = Watch::start(move || watched.words()[at::MOVED].load(Relaxed));
    while toll.take_one() {
        std::thread::sleep(Duration::from_micros(random.below(1_500)));
        watch.check("a message", kills)?;
        let mut couple = couples.swap_remove(random.below(COUPLES as u64) as usize);
        couple.kill(random.below(2) as usize);
        kills += 1;
        widows.push_back(couple);
        if widows.len() > WIDOWS {
            widows
                .pop_front()
                .map_or(Ok(()), |couple| couple.check(&board))?;
        }
        couples.push(Couple::start(&board, COUPLES as u64 + kills));
    }
    let longest = watch.longest();
    for mut couple in couples {
        couple.kill(0);
        widows.push_back(couple);
    }
    widows
        .into_iter()
        .try_for_each(|couple| couple.check(&board))?;
    let moved = board.words()[at::MOVED].load(Relaxed);
    eprintln!("pipe: {kills} kills, {moved} messages, longest pause {longest:?}");
    Ok(())
}
