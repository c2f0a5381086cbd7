//! A queue that outlives its victims: what was sent, what came, and whether it still is a whole queue.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use multiproc::{Queue, QueueError, Receiver, RecvError, SendError, Sender};

use crate::item::Item;

/// Messages each sender may have in flight.
pub(crate) const CAPACITY: usize = 4;
/// Senders, and receivers, there may be at once.
const ENDS: usize = 5;
/// Longer than any wait that ends.
const LONG: Duration = Duration::from_secs(20);

/// The numbers of the survivors' messages start here.
const OURS: u64 = 1000;
/// And those of the victim's here.
pub(crate) const THEIRS: u64 = 2000;
/// And those of whoever comes after it.
const LATER: u64 = 3000;

/// The survivors' ends, and what has gone through them.
pub(crate) struct Line<M> {
    pub(crate) tx: Sender<M>,
    pub(crate) rx: Receiver<M>,
    sent: u64,
}

impl<M: Item> Line<M> {
    /// A queue for [`ENDS`] senders and receivers: the survivor, the victim, the ends that they were made of and
    /// have gone since, and more that they may make.
    pub(crate) fn new(in_place: bool) -> Line<M> {
        let mut builder = Queue::<M>::builder()
            .capacity(CAPACITY)
            .message_size(48)
            .message_limit(200)
            .senders(ENDS)
            .receivers(ENDS);
        if in_place {
            builder = builder.in_place(CAPACITY);
        }
        let (tx, rx) = builder.build().unwrap();
        Line { tx, rx, sent: 0 }
    }

    /// Sends so many of the survivors' messages.
    pub(crate) fn send(&mut self, count: usize) {
        for _ in 0..count {
            self.tx
                .send_timeout(M::of(OURS + self.sent), LONG)
                .expect("a survivor cannot send");
            self.sent += 1;
        }
    }

    /// Sends as many of the survivors' messages as find room.
    pub(crate) fn fill(&mut self) {
        while self.sent < CAPACITY as u64 + 3 {
            match self.tx.try_send(M::of(OURS + self.sent)) {
                Ok(()) => self.sent += 1,
                Err(SendError::Full(_)) => break,
                Err(other) => panic!("a survivor cannot send: {other}"),
            }
        }
    }

    /// Receives all there is.
    pub(crate) fn drain(&mut self) -> Vec<u64> {
        let mut numbers = Vec::new();
        loop {
            match self.rx.try_recv() {
                Ok(message) => numbers.push(message.number()),
                Err(RecvError::Empty) => return numbers,
                Err(other) => panic!("a survivor cannot receive: {other}"),
            }
        }
    }

    /// What came of the survivors' own sender must be all it sent, in order, but for `missing` at most.
    pub(crate) fn check_ours(&self, came: &[u64], missing: usize) {
        let ours: Vec<u64> = came
            .iter()
            .copied()
            .filter(|number| (OURS..THEIRS).contains(number))
            .collect();
        let sent: BTreeSet<u64> = (OURS..OURS + self.sent).collect();
        assert!(
            ours.is_sorted_by(|a, b| a < b),
            "repeated or out of order: {came:?}"
        );
        let lost = sent.len() - sent.iter().filter(|sent| ours.contains(sent)).count();
        assert!(
            lost <= missing && ours.iter().all(|number| sent.contains(number)),
            "{lost} missing, at most {missing} may be: {came:?}"
        );
    }

    /// What came of the victim must be its first messages, at least `least`, at most `most`.
    pub(crate) fn check_theirs(came: &[u64], least: usize, most: usize) {
        let theirs: Vec<u64> = came
            .iter()
            .copied()
            .filter(|number| *number >= THEIRS)
            .collect();
        let expected: Vec<u64> = (THEIRS..).take(theirs.len()).collect();
        assert_eq!(theirs, expected, "lost, repeated or out of order");
        assert!(
            (least..=most).contains(&theirs.len()),
            "of the victim's messages {} came, not {least} to {most}",
            theirs.len()
        );
    }

    /// As many more senders as there may be.
    fn more_senders(&self) -> Vec<Sender<M>> {
        let more = || match self.tx.try_clone() {
            Ok(sender) => Some(sender),
            Err(QueueError::TooManySenders { limit: 5 }) => None,
            Err(other) => panic!("a sender cannot come: {other}"),
        };
        std::iter::from_fn(more).collect()
    }

    /// Not one lane more can be taken than those of the survivor and of the victim leave.
    pub(crate) fn check_lanes(&self, victim: RangeInclusive<usize>) {
        let taken = ENDS - 1 - self.more_senders().len();
        assert!(victim.contains(&taken), "the victim has {taken} lanes");
    }

    /// As many more receivers as there may be.
    fn more_receivers(&self) -> Vec<Receiver<M>> {
        let more = || match self.rx.try_clone() {
            Ok(receiver) => Some(receiver),
            Err(QueueError::TooManyReceivers { limit: 5 }) => None,
            Err(other) => panic!("a receiver cannot come: {other}"),
        };
        std::iter::from_fn(more).collect()
    }

    /// Not one seat more can be taken than those of the survivor and of the victim leave.
    pub(crate) fn check_seats(&self, victim: RangeInclusive<usize>) {
        let taken = ENDS - 1 - self.more_receivers().len();
        assert!(victim.contains(&taken), "the victim has {taken} seats");
    }

    /// The victim, a sender, is dead, and the queue is empty: its lane serves the next as well as it ever did.
    pub(crate) fn check_lane(mut self) {
        let all = self.more_senders();
        assert_eq!(all.len(), ENDS - 1, "a lane is lost");
        for mut next in all {
            // Nothing of its room is lost, and nothing of it comes but what is sent.
            for count in 1..=CAPACITY {
                for n in (LATER..).take(count) {
                    next.try_send(M::of(n))
                        .expect("a part of the dead sender's room is lost");
                }
                if count == CAPACITY {
                    assert!(
                        matches!(next.try_send(M::of(0)), Err(SendError::Full(_))),
                        "more room than there is"
                    );
                }
                let came = self.drain();
                assert_eq!(came, (LATER..).take(count).collect::<Vec<_>>());
            }
            for n in 0..3 * CAPACITY as u64 {
                self.send(1);
                next.send_timeout(M::of(LATER + n), LONG)
                    .expect("the next sender cannot send");
                let mut came = [0, 0].map(|_: u64| {
                    let message = self.rx.recv_timeout(LONG).expect("nothing comes");
                    message.number()
                });
                came.sort_unstable();
                assert_eq!(
                    came,
                    [OURS + self.sent - 1, LATER + n],
                    "{n}th of three laps"
                );
            }
        }
        self.check_end();
    }

    /// The victim, a receiver, is dead, and the queue is empty: its seat serves the next.
    pub(crate) fn check_seat(mut self) {
        let mut next = self.more_receivers();
        assert_eq!(next.len(), ENDS - 1, "a seat is lost");
        for lap in 0..3 {
            let first = OURS + self.sent;
            self.send(CAPACITY);
            assert!(
                matches!(self.tx.try_send(M::of(0)), Err(SendError::Full(_))),
                "more room than there is in lap {lap}"
            );
            for n in 0..CAPACITY {
                let rx = match next.get_mut(n % ENDS) {
                    Some(rx) => rx,
                    None => &mut self.rx,
                };
                let message = rx.recv_timeout(LONG).expect("nothing comes");
                assert_eq!(message.number(), first + n as u64, "in lap {lap}");
            }
        }
        drop(next);
        self.check_end();
    }

    /// Nobody is left but the survivors: an end tells the other that it goes.
    fn check_end(self) {
        let Line {
            mut tx,
            mut rx,
            sent,
        } = self;
        if sent % 2 == 0 {
            drop(rx);
            assert!(
                matches!(tx.send_timeout(M::of(0), LONG), Err(SendError::Closed(_))),
                "no receiver is left, and the sender is not told"
            );
        } else {
            drop(tx);
            assert_eq!(
                rx.recv_timeout(LONG).map(|message| message.number()),
                Err(RecvError::Closed),
                "no sender is left, and the receiver is not told"
            );
        }
    }
}
