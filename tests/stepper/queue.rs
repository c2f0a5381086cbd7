//! Operations on a queue.

use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::time::Duration;

use multiproc::{Child, Receiver, RecvError, SendError, Sender};

use crate::item::Item;
use crate::line::{CAPACITY, Line, THEIRS};
use crate::run::Case;
use crate::stage::Stage;
use crate::trace::Victim;

/// What a sender does.
pub(crate) trait Sending: 'static {
    type Message: Item;
    const IN_PLACE: bool = false;
    /// Messages the victim sends before, and with the operation.
    const BEFORE: usize = 2;
    const WITH: usize = 1;
    const AT_MOST: usize = usize::MAX;
    /// After so many instructions somebody makes room.
    const MEANWHILE: usize = usize::MAX;
    /// Senders the victim may be at last; none if the operation ends it.
    const SENDERS: RangeInclusive<usize> = 1..=1;
    /// Whether another sender dies just before the operation, in the middle of publishing a batch: after so
    /// many changes of shared memory.
    const BROKEN: Option<usize> = None;

    fn act(stage: &Stage, tx: Sender<Self::Message>);
}

/// The `n`-th message of the victim.
fn nth<M: Item>(n: usize) -> M {
    M::of(THEIRS + n as u64)
}

/// A sender is the victim.
pub(crate) struct SenderDies<S: Sending> {
    line: Line<S::Message>,
    came: Vec<u64>,
    /// A sender in the middle of a batch.
    broken: Option<Victim<Child<()>>>,
    /// One that has the lane in front of its.
    in_front: Option<Sender<S::Message>>,
    _of: PhantomData<S>,
}

impl<S: Sending> SenderDies<S> {
    fn act(stage: Stage, mut tx: Sender<S::Message>) {
        for n in 0..S::BEFORE {
            tx.send(nth(n)).unwrap();
        }
        S::act(&stage, tx);
    }
}

impl<S: Sending> Case for SenderDies<S> {
    type Who = Child<()>;
    const AT_MOST: usize = S::AT_MOST;
    const MEANWHILE: usize = match S::BROKEN {
        Some(_) => 0,
        None => S::MEANWHILE,
    };

    fn set_up() -> (Self, Victim<Self::Who>) {
        let mut line = Line::new(S::IN_PLACE);
        line.send(2);
        let broken = S::BROKEN.map(|at| {
            let ends = line.tx.try_clone().unwrap();
            let mut broken = Victim::start(break_off::<S::Message>, ends);
            broken.changes(at);
            assert!(!broken.is_done(), "the batch is complete");
            broken
        });
        let in_front = broken.is_some().then(|| line.tx.try_clone().unwrap());
        let ends = line.tx.try_clone().unwrap();
        let case = SenderDies {
            line,
            came: Vec::new(),
            broken,
            in_front,
            _of: PhantomData,
        };
        (case, Victim::start(Self::act, ends))
    }

    fn meanwhile(&mut self) {
        match self.broken.take() {
            Some(broken) => broken.kill(),
            None => self.came = self.line.drain(),
        }
    }

    fn prove(mut self, done: bool) {
        self.in_front = None;
        let mut came = self.came;
        came.extend(self.line.drain());
        let least = if done { S::BEFORE + S::WITH } else { S::BEFORE };
        self.line.check_ours(&came, 0);
        Line::<S::Message>::check_theirs(&came, least, S::BEFORE + S::WITH);
        self.line.check_lane();
    }

    fn prove_stopped(mut self, resume: impl FnOnce()) {
        let mut came = Vec::new();
        for _ in 0..3 * CAPACITY {
            came.extend(self.line.drain());
            self.line.send(1);
        }
        // Not the lane of the stopped one.
        self.in_front = None;
        self.line.check_lanes(S::SENDERS);
        resume();
        came.extend(self.line.drain());
        self.line.check_ours(&came, 0);
        let all = S::BEFORE + S::WITH;
        Line::<S::Message>::check_theirs(&came, all, all);
        self.line.check_lane();
    }
}

/// Changes after which [`break_off`] has stored all messages, and two of their stamps.
const BATCH: usize = CAPACITY * 6 + 2;

/// Sends a batch, and will not live to complete it.
fn break_off<M: Item>(stage: Stage, mut tx: Sender<M>) {
    let batch: Vec<M> = (0..CAPACITY).map(|_| M::of(u64::MAX)).collect();
    stage.act(|| tx.send_many(batch)).unwrap();
}

/// What a receiver does.
pub(crate) trait Receiving: 'static {
    type Message: Item;
    const IN_PLACE: bool = false;
    /// Messages that are there.
    const THERE: usize = 3;
    /// Of which the operation may take so many with it into its grave.
    const TAKES: usize = 1;
    const AT_MOST: usize = usize::MAX;
    /// After so many instructions somebody sends a message.
    const MEANWHILE: usize = usize::MAX;
    /// Receivers the victim may be at last; none if the operation ends it.
    const RECEIVERS: RangeInclusive<usize> = 1..=1;
    /// Whether another receiver has died with a lease in its hands.
    const DIED: bool = false;

    /// The numbers of what it has received.
    fn act(stage: &Stage, rx: Receiver<Self::Message>) -> Vec<u64>;
}

/// A receiver is the victim.
pub(crate) struct ReceiverDies<R: Receiving> {
    line: Line<R::Message>,
    _of: PhantomData<R>,
}

impl<R: Receiving> ReceiverDies<R> {
    fn act(stage: Stage, rx: Receiver<R::Message>) -> Vec<u64> {
        R::act(&stage, rx)
    }
}

impl<R: Receiving> Case for ReceiverDies<R> {
    type Who = Child<Vec<u64>>;
    const AT_MOST: usize = R::AT_MOST;
    const MEANWHILE: usize = R::MEANWHILE;

    fn set_up() -> (Self, Victim<Self::Who>) {
        let mut line = Line::new(R::IN_PLACE);
        if R::DIED {
            line.send(1);
            let ends = line.rx.try_clone().unwrap();
            let mut died = Victim::start(hold::<R::Message>, ends);
            while died.steps(1_000) == 1_000 {}
            died.kill();
        }
        let ends = line.rx.try_clone().unwrap();
        line.send(R::THERE);
        let case = ReceiverDies {
            line,
            _of: PhantomData,
        };
        (case, Victim::start(Self::act, ends))
    }

    fn meanwhile(&mut self) {
        self.line.send(1);
    }

    fn prove(mut self, _done: bool) {
        // Room that was given too early would be written to.
        self.line.fill();
        let came = self.line.drain();
        self.line.check_ours(&came, R::TAKES);
        self.line.check_seat();
    }

    fn prove_stopped(mut self, resume: impl FnOnce() -> Vec<u64>) {
        let mut came = Vec::new();
        for _ in 0..3 * CAPACITY {
            came.extend(self.line.drain());
            // One that is held by the stopped receiver is not free.
            self.line.send(1);
        }
        // Not the seat of the stopped one.
        self.line.check_seats(R::RECEIVERS);
        let theirs = resume();
        came.extend(self.line.drain());
        // The one that was in the hands of the stopped receiver may come late.
        came.extend(theirs);
        came.sort_unstable();
        self.line.check_ours(&came, 0);
        self.line.check_seat();
    }
}

/// Leases a message, and will not live to acknowledge it.
fn hold<M: Item>(stage: Stage, mut rx: Receiver<M>) {
    let lease = stage.act(|| rx.try_lease()).unwrap();
    drop(lease);
}

/// Names operations: a sender's or a receiver's, with what differs from the usual and what it does.
macro_rules! operations {
    ($($name:ident: $kind:ident<$message:ty> { $($constant:ident = $value:expr),* } $act:expr;)*) => {$(
        pub(crate) struct $name;

        operations!(@$kind $name, $message, [$($constant = $value),*], $act);
    )*};
    (@Sending $name:ident, $message:ty, [$($constant:ident = $value:expr),*], $act:expr) => {
        impl Sending for $name {
            type Message = $message;
            $(operations!(@constant $constant = $value);)*

            fn act(stage: &Stage, tx: Sender<$message>) {
                let act: fn(&Stage, Sender<$message>) = $act;
                act(stage, tx);
            }
        }
    };
    (@Receiving $name:ident, $message:ty, [$($constant:ident = $value:expr),*], $act:expr) => {
        impl Receiving for $name {
            type Message = $message;
            $(operations!(@constant $constant = $value);)*

            fn act(stage: &Stage, rx: Receiver<$message>) -> Vec<u64> {
                let act: fn(&Stage, Receiver<$message>) -> Vec<u64> = $act;
                act(stage, rx)
            }
        }
    };
    (@constant IN_PLACE = $value:expr) => { const IN_PLACE: bool = $value; };
    (@constant SENDERS = $value:expr) => { const SENDERS: RangeInclusive<usize> = $value; };
    (@constant RECEIVERS = $value:expr) => { const RECEIVERS: RangeInclusive<usize> = $value; };
    (@constant DIED = $value:expr) => { const DIED: bool = $value; };
    (@constant BROKEN = $value:expr) => { const BROKEN: Option<usize> = Some($value); };
    (@constant $constant:ident = $value:expr) => { const $constant: usize = $value; };
}

/// Instructions of an operation that waits which are looked at: it is asleep long before.
const WAITS: usize = 8_000;

operations! {
    Send: Sending<u64> {} |stage, mut tx| {
        stage.act(|| tx.send(nth(2))).unwrap();
    };
    SendArray: Sending<[u64; 6]> {} |stage, mut tx| {
        stage.act(|| tx.send(nth(2))).unwrap();
    };
    SendText: Sending<String> {} |stage, mut tx| {
        let message = nth(2);
        stage.act(|| tx.send(message)).unwrap();
    };
    SendBlock: Sending<Vec<u64>> { IN_PLACE = true } |stage, mut tx| {
        let message = nth(2);
        stage.act(|| tx.send(message)).unwrap();
    };
    SendLong: Sending<Vec<u32>> {} |stage, mut tx| {
        let message = nth(2);
        stage.act(|| tx.send(message)).unwrap();
    };
    SendLongInPlace: Sending<Vec<u32>> { IN_PLACE = true } |stage, mut tx| {
        let message = nth(2);
        stage.act(|| tx.send(message)).unwrap();
    };
    TrySend: Sending<u64> {} |stage, mut tx| {
        stage.act(|| tx.try_send(nth(2))).unwrap();
    };
    TrySendFull: Sending<u64> { BEFORE = CAPACITY, WITH = 0 } |stage, mut tx| {
        let sent = stage.act(|| tx.try_send(nth(CAPACITY)));
        assert!(sent.is_ok() || matches!(sent, Err(SendError::Full(_))));
    };
    SendFull: Sending<u64> { BEFORE = CAPACITY, AT_MOST = WAITS } |stage, mut tx| {
        stage.act(|| tx.send(nth(CAPACITY))).unwrap();
    };
    SendWhenRoom: Sending<u64> { BEFORE = CAPACITY, MEANWHILE = WAITS } |stage, mut tx| {
        stage.act(|| tx.send(nth(CAPACITY))).unwrap();
    };
    SendMany: Sending<[u64; 6]> { BEFORE = 1, WITH = 3 } |stage, mut tx| {
        let messages: Vec<_> = (1..4).map(nth).collect();
        stage.act(|| tx.send_many(messages)).unwrap();
    };
    LoanAndCommit: Sending<Vec<u64>> { IN_PLACE = true } |stage, mut tx| {
        let message: Vec<u64> = nth(2);
        stage
            .act(|| {
                let mut loan = tx.loan()?;
                loan[..message.len()].copy_from_slice(&message);
                loan.truncate(message.len());
                loan.commit()
            })
            .unwrap();
    };
    DropSender: Sending<u64> { WITH = 0, SENDERS = 0..=1 } |stage, tx| {
        stage.act(|| drop(tx));
    };
    Attach: Sending<u64> { WITH = 0, SENDERS = 1..=2 } |stage, tx| {
        stage.act(|| tx.try_clone()).unwrap();
    };
    AttachAnew: Sending<u64> { WITH = 0, SENDERS = 2..=3 } |stage, tx| {
        // First the lane that has just been left; the next was never used.
        std::thread::sleep(Duration::from_millis(3));
        let _used = tx.try_clone().unwrap();
        stage.act(|| tx.try_clone()).unwrap();
    };
    AttachInPlace: Sending<Vec<u64>> { IN_PLACE = true, WITH = 0, SENDERS = 1..=2 } |stage, tx| {
        stage.act(|| tx.try_clone()).unwrap();
    };
    Adopt: Sending<[u64; 6]> { WITH = 0, SENDERS = 1..=2, BROKEN = BATCH } |stage, tx| {
        stage.act(|| tx.try_clone()).unwrap();
    };
    Recv: Receiving<u64> {} |stage, mut rx| {
        received(stage.act(|| rx.recv_timeout(Duration::from_secs(1))))
    };
    RecvArray: Receiving<[u64; 6]> {} |stage, mut rx| {
        received(stage.act(|| rx.recv_timeout(Duration::from_secs(1))))
    };
    RecvText: Receiving<String> {} |stage, mut rx| {
        received(stage.act(|| rx.try_recv()))
    };
    RecvBlock: Receiving<Vec<u64>> { IN_PLACE = true } |stage, mut rx| {
        received(stage.act(|| rx.try_recv()))
    };
    RecvLong: Receiving<Vec<u32>> {} |stage, mut rx| {
        received(stage.act(|| rx.try_recv()))
    };
    // So few that the last message which survivors send lies in the block of the first.
    RecvLongInPlace: Receiving<Vec<u32>> { IN_PLACE = true, THERE = 1 } |stage, mut rx| {
        received(stage.act(|| rx.try_recv()))
    };
    TryRecvEmpty: Receiving<u64> { THERE = 0 } |stage, mut rx| {
        received(stage.act(|| rx.try_recv()))
    };
    RecvEmpty: Receiving<u64> { THERE = 0, AT_MOST = WAITS } |stage, mut rx| {
        received(stage.act(|| rx.recv()))
    };
    RecvWhenSent: Receiving<u64> { THERE = 0, MEANWHILE = WAITS } |stage, mut rx| {
        received(stage.act(|| rx.recv()))
    };
    RecvMany: Receiving<[u64; 6]> { THERE = 4, TAKES = 3 } |stage, mut rx| {
        let messages = stage.act(|| rx.recv_many(3)).unwrap();
        messages.iter().map(Item::number).collect()
    };
    Lease: Receiving<Vec<u64>> { IN_PLACE = true, TAKES = 0 } |stage, mut rx| {
        let lease = stage.act(|| rx.try_lease());
        // Not acknowledged: it goes to another.
        drop(lease);
        Vec::new()
    };
    LeaseAndAck: Receiving<Vec<u64>> { IN_PLACE = true } |stage, mut rx| {
        let lease = stage.act(|| {
            let lease = rx.try_lease()?;
            let number = lease.to_vec().number();
            lease.ack();
            Ok(number)
        });
        match lease {
            Ok(number) => vec![number],
            Err(error) => received::<u64>(Err(error)),
        }
    };
    LeaseOfTheDead: Receiving<Vec<u64>> { IN_PLACE = true, TAKES = 0, DIED = true } |stage, mut rx| {
        drop(stage.act(|| rx.try_lease()));
        Vec::new()
    };
    DropLease: Receiving<Vec<u64>> { IN_PLACE = true, TAKES = 0 } |stage, mut rx| {
        let lease = rx.try_lease().unwrap();
        stage.act(|| drop(lease));
        Vec::new()
    };
    AttachReceiver: Receiving<u64> { TAKES = 0, RECEIVERS = 1..=2 } |stage, rx| {
        stage.act(|| rx.try_clone()).unwrap();
        Vec::new()
    };
    DropReceiver: Receiving<u64> { TAKES = 0, RECEIVERS = 0..=1 } |stage, rx| {
        stage.act(|| drop(rx));
        Vec::new()
    };
}

/// The number of what was received, if anything was.
fn received<M: Item>(result: Result<M, RecvError>) -> Vec<u64> {
    match result {
        Ok(message) => vec![message.number()],
        Err(RecvError::Empty | RecvError::TimedOut) => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}
