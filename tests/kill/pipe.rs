//! Pairs of processes talk both ways through a pipe; one of each pair is killed and replaced all the time.
//!
//! Who survives must receive all that the other one had sent, whole, once and in order, and then the end of the stream.
//! With its next partner it goes on through a new pipe.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use libtest_mimic::Failed;
use multiproc::{
    Child, Message, Pipe, PipeEnd, Process, Queue, Receiver, RecvError, Segment, SendError, Sender,
};
use serde::{Deserialize, Serialize};

use crate::{LONG, Pace, Random, Toll, Watch, give_way};

pub(crate) const TESTS: &[crate::Test] = &[
    ("pipe_of_numbers", || torture::<u64>(&Toll::of(5_000))),
    ("pipe_of_streams", || torture::<Vec<u8>>(&Toll::of(5_000))),
];

const PAIRS: usize = 4;
/// Bytes of each direction: many messages are larger.
const SIZE: usize = 8 << 10;
/// How long a sender waits for room before it receives: the message is then taken back and sent again.
const PATIENCE: Duration = Duration::from_micros(300);
/// Messages that are received in one go.
const SWALLOW: usize = 64;
/// Killed processes of a pair that may be unburied.
const GRAVES: usize = 2;

/// What is sent: the same for the same pipe, side and number.
pub(crate) trait Talk: Message + PartialEq {
    fn nth(round: u64, side: usize, number: u64) -> Self;
}

fn mix(round: u64, side: usize, number: u64) -> u64 {
    // Steele, Lea and Flood's splitmix64.
    let mut word = (round << 33 ^ (side as u64) << 32 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

impl Talk for u64 {
    fn nth(round: u64, side: usize, number: u64) -> u64 {
        mix(round, side, number)
    }
}

impl Talk for Vec<u8> {
    fn nth(round: u64, side: usize, number: u64) -> Vec<u8> {
        let word = mix(round, side, number);
        let most = match word % 16 {
            0 => 8 * SIZE,
            1..=4 => 1_000,
            _ => 60,
        };
        let length = (word >> 8) as usize % most;
        (word..)
            .flat_map(|n| n.wrapping_mul(word | 1).to_ne_bytes())
            .take(length)
            .collect()
    }
}

/// What a pair writes down, in shared memory.
#[derive(Clone, Serialize, Deserialize)]
struct Board(Segment);

/// Words of the board.
mod at {
    pub(super) const STOP: usize = 0;
    pub(super) const TORN: usize = 1;
    pub(super) const REPEATED: usize = 2;
    pub(super) const LOST: usize = 3;
    pub(super) const SEATS: usize = 16;
}

/// Words of a seat.
mod seat {
    /// Sends that returned.
    pub(super) const SENT: usize = 0;
    /// Messages received, in all rounds.
    pub(super) const RECEIVED: usize = 1;
    /// The round that has begun here.
    pub(super) const BEGUN: usize = 2;
    /// The round whose end of stream was seen here.
    pub(super) const ENDED: usize = 3;
    pub(super) const WORDS: usize = 16;
}

impl Board {
    fn new() -> Board {
        Board(Segment::new((at::SEATS + 2 * seat::WORDS) * 8).unwrap())
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        &self.0.words()[at]
    }

    fn count(&self, at: usize) {
        self.word(at).fetch_add(1, Ordering::Relaxed);
    }

    fn seat(&self, side: usize) -> &[AtomicU64] {
        let first = at::SEATS + side * seat::WORDS;
        &self.0.words()[first..first + seat::WORDS]
    }

    fn is_stopped(&self) -> bool {
        self.word(at::STOP).load(Ordering::Relaxed) != 0
    }

    /// Waits until a seat's word says so; says what was waited for if the pair makes no progress meanwhile.
    fn wait(&self, side: usize, word: usize, round: u64) -> Result<(), String> {
        const TICK: Duration = Duration::from_micros(100);
        let progress =
            || [0, 1].map(|side| self.seat(side)[seat::RECEIVED].load(Ordering::Relaxed));
        let (mut last, mut since) = (progress(), Pace::now());
        while self.seat(side)[word].load(Ordering::Acquire) != round {
            if Pace::now().saturating_sub(since) > Watch::HUNG {
                let what = if word == seat::BEGUN {
                    "beginning"
                } else {
                    "end"
                };
                return Err(format!("hung: no {what} of round {round} at side {side}"));
            }
            thread::sleep(TICK);
            let (pace, now) = (Pace::now(), progress());
            if now != last {
                (last, since) = (now, pace);
            }
        }
        Ok(())
    }
}

/// Which pipe, and which end of it.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Turn {
    side: usize,
    round: u64,
}

type End<M> = PipeEnd<M, M>;
type Turns<M> = Receiver<(End<M>, Turn)>;

/// Talks through one pipe after the other.
fn member<M: Talk>(end: End<M>, turn: Turn, mut turns: Turns<M>, board: Board) {
    give_way();
    talk(end, turn, &board);
    for (end, turn) in turns.iter() {
        talk(end, turn, &board);
    }
}

/// Sends and receives until the other end is gone.
fn talk<M: Talk>(mut end: End<M>, turn: Turn, board: &Board) {
    let Turn { side, round } = turn;
    let (mine, theirs) = (board.seat(side), board.seat(1 - side));
    mine[seat::BEGUN].store(round, Ordering::Release);
    let (mut sent, mut received) = (0, 0);
    let mut refused = None;
    let mut open = true;
    while !board.is_stopped() {
        if open {
            let message = refused.take();
            let message = message.unwrap_or_else(|| M::nth(round, side, sent));
            match end.send_timeout(message, PATIENCE) {
                Ok(()) => {
                    sent += 1;
                    mine[seat::SENT].store(sent, Ordering::Relaxed);
                }
                Err(SendError::TimedOut(message)) => refused = Some(message),
                Err(SendError::Closed(_)) => open = false,
                Err(error) => panic!("{error}"),
            }
        }
        for _ in 0..SWALLOW {
            match if open { end.try_recv() } else { end.recv() } {
                Ok(message) => {
                    let is = |number| message == M::nth(round, 1 - side, number);
                    if !is(received) {
                        board.count(match () {
                            () if received > 0 && is(received - 1) => at::REPEATED,
                            () if is(received + 1) => at::LOST,
                            () => at::TORN,
                        });
                    }
                    received += 1;
                    mine[seat::RECEIVED].fetch_add(1, Ordering::Relaxed);
                }
                Err(RecvError::Empty) => break,
                Err(RecvError::Closed) => {
                    // The last send may have been killed after it had published.
                    let sent = theirs[seat::SENT].load(Ordering::Relaxed);
                    if !(sent..=sent + 1).contains(&received) {
                        board.count(at::LOST);
                    }
                    mine[seat::ENDED].store(round, Ordering::Release);
                    return;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// One of a pair, and what gives it the next pipe.
struct Member<M> {
    child: Child<()>,
    turns: Sender<(End<M>, Turn)>,
}

impl<M: Talk> Member<M> {
    fn start(end: End<M>, turn: Turn, board: &Board) -> Member<M> {
        let (turns, taken) = Queue::new(1).unwrap();
        let child = Process::spawn(member::<M>, (end, turn, taken, board.clone())).unwrap();
        Member { child, turns }
    }
}

/// Kills one of a pair, again and again, and says how often.
fn herd<M: Talk>(toll: &Toll, board: &Board) -> Result<u64, String> {
    let mut random = Random::new();
    let mut members = [None, None];
    let mut graves = VecDeque::new();
    let mut kills = 0;
    loop {
        let round = kills + 1;
        let (first, second) = Pipe::<M, M>::builder().size(SIZE).build().unwrap();
        for side in [0, 1] {
            board.seat(side)[seat::SENT].store(0, Ordering::Relaxed);
        }
        for (side, end) in [first, second].into_iter().enumerate() {
            let turn = Turn { side, round };
            match &mut members[side] {
                None => members[side] = Some(Member::start(end, turn, board)),
                Some(member) => {
                    member.turns.send((end, turn)).unwrap();
                    // An end that lies in a queue counts as there.
                    board.wait(side, seat::BEGUN, round)?;
                }
            }
        }
        if !toll.take_one() {
            break;
        }
        thread::sleep(Duration::from_micros(random.below(1_500)));
        let victim = random.below(2) as usize;
        let member = members[victim].take().unwrap();
        member.child.kill().unwrap();
        kills += 1;
        board.wait(1 - victim, seat::ENDED, round)?;
        // They are joined later, so that the next one need not wait for the end of the one before.
        graves.push_back(member.child);
        if graves.len() > GRAVES {
            bury(graves.pop_front());
        }
    }
    graves.into_iter().map(Some).for_each(bury);
    board.word(at::STOP).store(1, Ordering::Relaxed);
    for Member { child, turns } in members.into_iter().flatten() {
        drop(turns);
        match child.join_timeout(LONG) {
            Ok(Some(())) => {}
            other => return Err(format!("at the end: {other:?}")),
        }
    }
    Ok(kills)
}

/// Joins a killed process: its end is an error, as it must be.
fn bury(child: Option<Child<()>>) {
    child.map(|child| child.join().unwrap_err());
}

pub(crate) fn torture<M: Talk>(toll: &Toll) -> Result<(), Failed> {
    let boards = [(); PAIRS].map(|()| Board::new());
    let herded = thread::scope(|scope| {
        let herd =
            |board| scope.spawn(move || herd::<M>(toll, board).inspect_err(|_| toll.give_up()));
        let herds = boards.each_ref().map(herd);
        herds.map(|herd| herd.join().expect("a thread that kills"))
    });
    let sum = |at: usize| -> u64 {
        boards
            .iter()
            .map(|board| board.word(at).load(Ordering::Relaxed))
            .sum()
    };
    let [torn, repeated, lost] = [at::TORN, at::REPEATED, at::LOST].map(sum);
    let received = sum(at::SEATS + seat::RECEIVED) + sum(at::SEATS + seat::WORDS + seat::RECEIVED);
    let kills = herded.iter().flatten().sum::<u64>();
    let hung: Vec<String> = herded.into_iter().filter_map(Result::err).collect();
    let summary = format!(
        "pipe: {kills} kills, {received} messages, {torn} torn, {repeated} repeated, {lost} lost, hung: {hung:?}"
    );
    eprintln!("{summary}");
    match torn + repeated + lost == 0 && hung.is_empty() {
        true => Ok(()),
        false => Err(summary.into()),
    }
}
