//! Operations on a queue.

use std::marker::PhantomData;
use std::time::Duration;

use multiproc::{Receiver, RecvError, SendError, Sender};

use crate::item::Item;
use crate::line::{CAPACITY, ENDS, Line, THEIRS};
use crate::run::Case;
use crate::stage::Stage;

/// What a sender does.
pub(crate) trait Sending: 'static {
    type Message: Item;
    const IN_PLACE: bool = false;
    /// Messages the victim sends before, and with the operation.
    const BEFORE: usize = 2;
    const WITH: usize = 1;
    const AT_MOST: usize = usize::MAX;
    /// Whether the operation ends the sender.
    const ENDS: bool = false;

    fn act(stage: &Stage, tx: Sender<Self::Message>);
}

/// The `n`-th message of the victim.
fn nth<M: Item>(n: usize) -> M {
    M::of(THEIRS + n as u64)
}

/// A sender is the victim.
pub(crate) struct SenderDies<S: Sending> {
    line: Line<S::Message>,
    _of: PhantomData<S>,
}

impl<S: Sending> Case for SenderDies<S> {
    type Ends = Sender<S::Message>;
    type Said = ();
    const AT_MOST: usize = S::AT_MOST;

    fn set_up() -> (Self, Self::Ends) {
        let mut line = Line::new(S::IN_PLACE);
        line.send(2);
        let ends = line.tx.try_clone().unwrap();
        let case = SenderDies {
            line,
            _of: PhantomData,
        };
        (case, ends)
    }

    fn act(stage: Stage, mut tx: Self::Ends) {
        for n in 0..S::BEFORE {
            tx.send(nth(n)).unwrap();
        }
        S::act(&stage, tx);
    }

    fn prove(mut self, done: bool) {
        let came = self.line.drain();
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
        if !S::ENDS {
            // Not the lane of the stopped one.
            drop(self.line.more_senders(ENDS - 2));
        }
        resume();
        came.extend(self.line.drain());
        self.line.check_ours(&came, 0);
        let all = S::BEFORE + S::WITH;
        Line::<S::Message>::check_theirs(&came, all, all);
        self.line.check_lane();
    }
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
    /// Whether the operation ends the receiver.
    const ENDS: bool = false;

    /// The numbers of what it has received.
    fn act(stage: &Stage, rx: Receiver<Self::Message>) -> Vec<u64>;
}

/// A receiver is the victim.
pub(crate) struct ReceiverDies<R: Receiving> {
    line: Line<R::Message>,
    _of: PhantomData<R>,
}

impl<R: Receiving> Case for ReceiverDies<R> {
    type Ends = Receiver<R::Message>;
    type Said = Vec<u64>;
    const AT_MOST: usize = R::AT_MOST;

    fn set_up() -> (Self, Self::Ends) {
        let mut line = Line::new(R::IN_PLACE);
        let ends = line.rx.try_clone().unwrap();
        line.send(R::THERE);
        let case = ReceiverDies {
            line,
            _of: PhantomData,
        };
        (case, ends)
    }

    fn act(stage: Stage, rx: Self::Ends) -> Vec<u64> {
        R::act(&stage, rx)
    }

    fn prove(mut self, _done: bool) {
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
        if !R::ENDS {
            // Not the seat of the stopped one.
            drop(self.line.more_receivers(ENDS - 2));
        }
        let theirs = resume();
        came.extend(self.line.drain());
        // The one that was in the hands of the stopped receiver may come late.
        came.extend(theirs);
        came.sort_unstable();
        self.line.check_ours(&came, 0);
        self.line.check_seat();
    }
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
    (@constant ENDS = $value:expr) => { const ENDS: bool = $value; };
    (@constant $constant:ident = $value:expr) => { const $constant: usize = $value; };
}

/// Instructions of an operation that waits which are looked at: it is asleep long before.
const WAITS: usize = 3_000;

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
    DropSender: Sending<u64> { WITH = 0, ENDS = true } |stage, tx| {
        stage.act(|| drop(tx));
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
    TryRecvEmpty: Receiving<u64> { THERE = 0 } |stage, mut rx| {
        received(stage.act(|| rx.try_recv()))
    };
    RecvEmpty: Receiving<u64> { THERE = 0, AT_MOST = WAITS } |stage, mut rx| {
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
    DropLease: Receiving<Vec<u64>> { IN_PLACE = true, TAKES = 0 } |stage, mut rx| {
        let lease = rx.try_lease().unwrap();
        stage.act(|| drop(lease));
        Vec::new()
    };
    DropReceiver: Receiving<u64> { TAKES = 0, ENDS = true } |stage, rx| {
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
