//! Operations on a queue beside a model of it that is as simple as can be: a row of numbers for each lane.
//!
//! The fuzz target `queue_ops` plays the fuzzer's bytes, and there whole processes die too; a test plays
//! random bytes, and there their ends are dropped instead.

use std::any::Any;
use std::collections::VecDeque;
use std::time::Duration;

use multiproc::{Lease, Queue, QueueError, Receiver, RecvError, SendError, Sender};

/// Lanes, and seats.
const ENDS: usize = 4;
/// Operations of one game.
const OPERATIONS: usize = 200;

/// A message: its number, in as many words as it likes.
type Message = Vec<u64>;

fn message(number: u64) -> Message {
    vec![number; 1 + number as usize % 4]
}

fn number(message: &[u64]) -> u64 {
    let number = message[0];
    assert_eq!(message, self::message(number), "torn");
    number
}

/// An end, and the process that has it.
struct Held<E> {
    end: E,
    process: u32,
}

/// A message in the hands of a receiver, which its process and seat name.
struct Hand {
    lease: Lease<Message>,
    process: u32,
    seat: usize,
    number: u64,
}

struct Game {
    capacity: usize,
    in_place: bool,
    senders: Vec<Held<Sender<Message>>>,
    receivers: Vec<Held<Receiver<Message>>>,
    hands: Vec<Hand>,
    /// The model: what is in each lane, ...
    lanes: [VecDeque<u64>; ENDS],
    /// ... of each message that is not free yet, its lane, ...
    taken: Vec<(u64, usize)>,
    /// ... and what was given back, by those who live or died.
    returned: Vec<u64>,
    closed_for_senders: bool,
    next: u64,
    processes: u32,
    /// What the dead had: it stays as it is until the game is over.
    graves: Vec<Box<dyn Any>>,
}

/// Plays a game.
pub(crate) fn play(input: &[u8]) {
    let mut input = input.iter().copied();
    let Some(shape) = input.next() else { return };
    let capacity = [1, 2, 3, 8][usize::from(shape & 3)];
    let in_place = shape & 4 != 0;
    let mut builder = Queue::<Message>::builder()
        .capacity(capacity)
        .message_size(32)
        .senders(ENDS)
        .receivers(ENDS);
    if in_place {
        builder = builder.in_place(capacity);
    }
    let (tx, rx) = builder.build().unwrap();
    let mut game = Game {
        capacity,
        in_place,
        senders: vec![Held {
            end: tx,
            process: 0,
        }],
        receivers: vec![Held {
            end: rx,
            process: 0,
        }],
        hands: Vec::new(),
        lanes: Default::default(),
        taken: Vec::new(),
        returned: Vec::new(),
        closed_for_senders: false,
        next: 1,
        processes: 0,
        graves: Vec::new(),
    };
    #[cfg(fuzzing)]
    multiproc::door::begin();
    for _ in 0..OPERATIONS {
        let Some(operation) = input.next() else { break };
        let which = usize::from(operation >> 4);
        match operation & 15 {
            0..=2 => game.send(which),
            3 => game.send_many(which),
            4..=6 => game.receive(which),
            7 => game.lease(which),
            8 => game.ack(which),
            9 => game.give_back(which),
            10 => game.come(which, true),
            11 => game.come(which, false),
            12 => game.leave(which, true),
            13 => game.leave(which, false),
            14 => game.die(which),
            _ => game.look(which),
        }
    }
    game.finish();
}

/// The lane of a sender, or the seat of a receiver, which they show when they are printed.
fn place(end: &impl std::fmt::Debug) -> usize {
    let shown = format!("{end:?}");
    let digits: String = shown.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// The clone of an end, if there may be another.
fn clone<E>(cloned: Result<E, QueueError>) -> Option<E> {
    match cloned {
        Ok(end) => Some(end),
        Err(QueueError::TooManySenders { .. } | QueueError::TooManyReceivers { .. }) => None,
        Err(other) => panic!("{other}"),
    }
}

/// Another end that travels to another process, if there may be another. An end that travels moves.
#[cfg(fuzzing)]
fn arrive<E: End + multiproc::Message>(process: u32, end: &E) -> Option<E> {
    let going = clone(end.another())?;
    let (bytes, files) = multiproc::door::pack(&going).unwrap();
    let arrived = as_process(process, || multiproc::door::unpack(&bytes, files));
    Some(arrived.unwrap_or_else(|why| panic!("{why}")))
}

/// Where no processes are pretended, the first has them all.
#[cfg(not(fuzzing))]
fn arrive<E: End>(_process: u32, end: &E) -> Option<E> {
    clone(end.another())
}

/// What can be cloned.
trait End: Sized {
    fn another(&self) -> Result<Self, QueueError>;
}

impl End for Sender<Message> {
    fn another(&self) -> Result<Self, QueueError> {
        self.try_clone()
    }
}

impl End for Receiver<Message> {
    fn another(&self) -> Result<Self, QueueError> {
        self.try_clone()
    }
}

#[cfg(fuzzing)]
fn as_process<R>(process: u32, act: impl FnOnce() -> R) -> R {
    match process {
        0 => act(),
        process => multiproc::door::pretend(process, act),
    }
}

#[cfg(not(fuzzing))]
fn as_process<R>(_process: u32, act: impl FnOnce() -> R) -> R {
    act()
}

impl Game {
    /// Messages that lie in the lane, or in blocks of it.
    fn used(&self, lane: usize) -> usize {
        let in_blocks = self.taken.iter().filter(|(_, of)| *of == lane).count();
        self.lanes[lane].len() + in_blocks
    }

    fn send(&mut self, which: usize) {
        let count = self.senders.len();
        if count == 0 {
            return;
        }
        let lane = place(&self.senders[which % count].end);
        let full = self.used(lane) >= self.capacity;
        let Held { end, process } = &mut self.senders[which % count];
        let number = self.next;
        let process = *process;
        let sent = if self.in_place && number % 2 == 0 {
            as_process(process, || {
                let mut loan = match end.try_loan() {
                    Ok(loan) => loan,
                    Err(multiproc::LoanError::Full) => return Err(SendError::Full(Message::new())),
                    Err(multiproc::LoanError::Closed) => {
                        return Err(SendError::Closed(Message::new()));
                    }
                    Err(other) => panic!("{other}"),
                };
                if number % 3 == 0 {
                    // A loan that is dropped is as if it had never been.
                    drop(loan);
                    loan = end.try_loan().expect("there was one");
                }
                let words = message(number);
                loan[..words.len()].copy_from_slice(&words);
                loan.truncate(words.len());
                match loan.commit() {
                    Ok(()) => Ok(()),
                    Err(_) => Err(SendError::Closed(words)),
                }
            })
        } else {
            as_process(process, || end.try_send(message(number)))
        };
        match sent {
            Ok(()) => {
                assert!(!full, "sent into a full lane");
                assert!(!self.closed_for_senders, "sent to nobody");
                self.lanes[lane].push_back(number);
                self.next += 1;
            }
            Err(SendError::Full(_)) => assert!(full, "not full: {} in it", self.used(lane)),
            Err(SendError::Closed(_)) => self.closed_to_senders(),
            Err(other) => panic!("{other}"),
        }
    }

    fn send_many(&mut self, which: usize) {
        let count = self.senders.len();
        if count == 0 {
            return;
        }
        let lane = place(&self.senders[which % count].end);
        let room = self.capacity.saturating_sub(self.used(lane));
        let batch: Vec<u64> = (self.next..).take(room.min(3)).collect();
        let messages: Vec<Message> = batch.iter().copied().map(message).collect();
        let Held { end, process } = &mut self.senders[which % count];
        match as_process(*process, || end.send_many(messages)) {
            Ok(sent) => {
                assert_eq!(sent, batch.len());
                self.next += sent as u64;
                self.lanes[lane].extend(batch);
            }
            Err(SendError::Closed(_)) => self.closed_to_senders(),
            Err(other) => panic!("{other}"),
        }
    }

    fn closed_to_senders(&mut self) {
        assert!(self.receivers.is_empty(), "closed, but a receiver lives");
        self.closed_for_senders = true;
    }

    /// The model's part of a receive: the message was first in its lane, or had been given back.
    fn took(&mut self, number: u64, again: Option<bool>) -> usize {
        if let Some(at) = self
            .returned
            .iter()
            .position(|&returned| returned == number)
        {
            assert_ne!(again, Some(false), "redelivered, and not marked");
            self.returned.swap_remove(at);
            let (_, lane) = *self
                .taken
                .iter()
                .find(|(taken, _)| *taken == number)
                .unwrap();
            return lane;
        }
        assert_ne!(again, Some(true), "marked, and not redelivered");
        let lane = self
            .lanes
            .iter()
            .position(|lane| lane.front() == Some(&number));
        let lane = lane.unwrap_or_else(|| panic!("{number} was not next: {:?}", self.lanes));
        self.lanes[lane].pop_front();
        self.taken.push((number, lane));
        lane
    }

    /// Its block is the sender's again.
    fn done(&mut self, number: u64) {
        self.taken.retain(|(taken, _)| *taken != number);
    }

    fn nothing(&self, why: RecvError, process: u32, seat: usize) {
        let left = self.lanes.iter().all(VecDeque::is_empty) && self.returned.is_empty();
        assert!(
            left,
            "{why}, but there is {:?} {:?}",
            self.lanes, self.returned
        );
        match why {
            RecvError::Empty => {}
            RecvError::Closed => {
                assert!(self.senders.is_empty(), "closed, but a sender lives");
                // Where the processes are not even pretended, a seat names a receiver by itself.
                let mine = |hand: &Hand| {
                    hand.seat == seat && (hand.process == process || cfg!(not(fuzzing)))
                };
                let may_come_back = !self.hands.is_empty() && !self.hands.iter().any(mine);
                assert!(!may_come_back, "closed, but a message may come back");
            }
            other => panic!("{other}"),
        }
    }

    fn receive(&mut self, which: usize) {
        let count = self.receivers.len();
        if count == 0 {
            return;
        }
        let Held { end, process } = &mut self.receivers[which % count];
        let (process, seat) = (*process, place(end));
        match as_process(process, || end.try_recv()) {
            Ok(message) => {
                let number = number(&message);
                self.took(number, None);
                self.done(number);
            }
            Err(why) => self.nothing(why, process, seat),
        }
    }

    fn lease(&mut self, which: usize) {
        let count = self.receivers.len();
        if count == 0 || !self.in_place {
            return;
        }
        let Held { end, process } = &mut self.receivers[which % count];
        let (process, seat) = (*process, place(end));
        match as_process(process, || end.try_lease()) {
            Ok(lease) => {
                let number = number(lease.get());
                self.took(number, Some(lease.redelivered()));
                self.hands.push(Hand {
                    lease,
                    process,
                    seat,
                    number,
                });
            }
            Err(why) => self.nothing(why, process, seat),
        }
    }

    fn take_hand(&mut self, which: usize) -> Option<Hand> {
        let count = self.hands.len();
        (count > 0).then(|| self.hands.swap_remove(which % count))
    }

    fn ack(&mut self, which: usize) {
        if let Some(hand) = self.take_hand(which) {
            assert_eq!(number(hand.lease.get()), hand.number, "changed in my hands");
            as_process(hand.process, || hand.lease.ack());
            self.done(hand.number);
        }
    }

    fn give_back(&mut self, which: usize) {
        if let Some(hand) = self.take_hand(which) {
            as_process(hand.process, || drop(hand.lease));
            self.returned.push(hand.number);
        }
    }

    /// A new end, of the process that has the one it is made of, or of a new process.
    fn come(&mut self, which: usize, sender: bool) {
        let anew = which & 1 != 0;
        let process = self.processes + 1;
        if sender {
            let count = self.senders.len();
            let Some(from) = self.senders.get((which >> 1) % count.max(1)) else {
                return;
            };
            let come = match anew {
                true => arrive(process, &from.end).map(|end| Held { end, process }),
                false => clone(from.end.try_clone()).map(|end| Held {
                    end,
                    process: from.process,
                }),
            };
            assert_eq!(come.is_none(), count == ENDS, "senders of {ENDS}: {count}");
            self.senders.extend(come);
        } else {
            let count = self.receivers.len();
            let Some(from) = self.receivers.get((which >> 1) % count.max(1)) else {
                return;
            };
            let come = match anew {
                true => arrive(process, &from.end).map(|end| Held { end, process }),
                false => clone(from.end.try_clone()).map(|end| Held {
                    end,
                    process: from.process,
                }),
            };
            assert_eq!(
                come.is_none(),
                count == ENDS,
                "receivers of {ENDS}: {count}"
            );
            self.receivers.extend(come);
        }
        self.processes += u32::from(anew);
    }

    fn leave(&mut self, which: usize, sender: bool) {
        if sender && !self.senders.is_empty() {
            let Held { end, process } = self.senders.swap_remove(which % self.senders.len());
            as_process(process, || drop(end));
        }
        if !sender && !self.receivers.is_empty() {
            let Held { end, process } = self.receivers.swap_remove(which % self.receivers.len());
            as_process(process, || drop(end));
        }
    }

    /// A process dies, with all it has.
    fn die(&mut self, which: usize) {
        if self.processes == 0 {
            return;
        }
        let dead = 1 + which as u32 % self.processes;
        while let Some(at) = self.senders.iter().position(|held| held.process == dead) {
            let end = self.senders.swap_remove(at).end;
            self.bury(end);
        }
        while let Some(at) = self.receivers.iter().position(|held| held.process == dead) {
            let end = self.receivers.swap_remove(at).end;
            self.bury(end);
        }
        while let Some(at) = self.hands.iter().position(|hand| hand.process == dead) {
            let hand = self.hands.swap_remove(at);
            self.bury(hand.lease);
            self.returned.push(hand.number);
        }
        #[cfg(fuzzing)]
        multiproc::door::bury(dead);
    }

    /// Where no processes are pretended, what they had goes with them.
    fn bury(&mut self, end: impl Any) {
        match cfg!(fuzzing) {
            true => self.graves.push(Box::new(end)),
            false => drop(end),
        }
    }

    fn look(&mut self, which: usize) {
        let waiting: usize = self.lanes.iter().map(VecDeque::len).sum();
        if let Some(Held { end, process }) = self.receivers.get_mut(which % ENDS) {
            assert_eq!(end.len(), waiting);
            let stats = end.stats();
            assert_eq!(stats.sent, self.next - 1);
            assert_eq!(stats.received, self.next - 1 - waiting as u64);
            if as_process(*process, || end.is_closed()) {
                assert!(
                    self.senders.is_empty() && waiting == 0,
                    "closed, with {} senders and {waiting} messages, after {:?}",
                    self.senders.len(),
                    self.taken
                );
            }
        }
    }

    /// In the end all that was sent has come.
    fn finish(mut self) {
        while !self.hands.is_empty() {
            self.give_back(0);
        }
        self.senders.clear();
        if self.receivers.is_empty() {
            return;
        }
        let mut last = self.receivers.swap_remove(0);
        self.receivers.clear();
        loop {
            let received = as_process(last.process, || {
                last.end.recv_timeout(Duration::from_secs(20))
            });
            match received {
                Ok(message) => {
                    let number = number(&message);
                    self.took(number, None);
                    self.done(number);
                }
                Err(RecvError::Closed) => break,
                Err(other) => panic!("{other}, but no sender is left"),
            }
        }
        self.nothing(RecvError::Empty, 0, 0);
    }
}
