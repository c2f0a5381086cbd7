//! Operations on an end of a pipe.

use std::marker::PhantomData;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use multiproc::{Child, Pipe, PipeEnd, RecvError, SendError};

use crate::item::Item;
use crate::run::Case;
use crate::stage::Stage;
use crate::trace::Victim;

/// Longer than any wait that ends.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(1);
/// Bytes of each direction: the least there may be.
const SIZE: usize = 4096;
/// The numbers of the survivor's messages start here.
const OURS: u64 = 1000;
/// And those of the victim's here.
const THEIRS: u64 = 2000;
/// Instructions of an operation that waits which are looked at.
const WAITS: usize = 4_000;

type End<M> = PipeEnd<M, M>;

/// What the victim does with its end.
pub(crate) trait Piping: 'static {
    type Message: Item;
    /// Messages the victim sends before, and with the operation.
    const BEFORE: usize = 0;
    const WITH: usize = 0;
    /// Messages the survivor has sent; one that streams is sent while the operation goes on.
    const THERE: usize = 0;
    /// Whether the survivor receives, or sends, while the operation goes on.
    const STREAMS: bool = false;
    const AT_MOST: usize = usize::MAX;
    /// Whether the operation ends the end.
    const ENDS: bool = false;

    /// The numbers of what it has received.
    fn act(stage: &Stage, end: End<Self::Message>) -> Vec<u64>;
}

fn nth<M: Item>(n: usize) -> M {
    M::of(THEIRS + n as u64)
}

/// One end of a pipe is the victim's.
pub(crate) struct EndDies<P: Piping> {
    survivor: Survivor<P::Message>,
    _of: PhantomData<P>,
}

enum Survivor<M> {
    Waits(Box<End<M>>),
    Works(JoinHandle<(End<M>, Vec<u64>)>),
}

impl<M: Item> Survivor<M> {
    /// Receives all the victim has sent, until it is told that the victim is gone.
    fn finish(self) -> Vec<u64> {
        let (mut end, mut came) = match self {
            Survivor::Waits(end) => (*end, Vec::new()),
            Survivor::Works(thread) => thread.join().unwrap(),
        };
        came.extend(receive_all(&mut end));
        assert!(end.is_closed(), "closed, and not closed");
        assert!(
            matches!(end.send_timeout(M::of(0), LONG), Err(SendError::Closed(_))),
            "nobody is there, and the survivor is not told"
        );
        came
    }
}

fn receive_all<M: Item>(end: &mut End<M>) -> Vec<u64> {
    let mut came = Vec::new();
    loop {
        match end.recv_timeout(LONG) {
            Ok(message) => came.push(message.number()),
            Err(RecvError::Closed) => return came,
            Err(other) => panic!("a survivor cannot receive: {other}"),
        }
    }
}

/// What came must be the victim's first messages, at least `least`.
fn check(came: &[u64], least: usize, most: usize) {
    let expected: Vec<u64> = (THEIRS..).take(came.len()).collect();
    assert_eq!(came, expected, "lost, repeated or out of order");
    assert!(
        (least..=most).contains(&came.len()),
        "of the victim's messages {} came, not {least} to {most}",
        came.len()
    );
}

impl<P: Piping> EndDies<P> {
    fn act(stage: Stage, mut end: End<P::Message>) -> Vec<u64> {
        for n in 0..P::BEFORE {
            end.send(nth(n)).unwrap();
        }
        P::act(&stage, end)
    }
}

impl<P: Piping> Case for EndDies<P> {
    type Who = Child<Vec<u64>>;
    const AT_MOST: usize = P::AT_MOST;

    fn set_up() -> (Self, Victim<Self::Who>) {
        let pipe = Pipe::<P::Message, P::Message>::builder().size(SIZE);
        let (mut here, there) = pipe.build().unwrap();
        let numbers = (OURS..).take(P::THERE);
        let survivor = if P::STREAMS {
            Survivor::Works(thread::spawn(move || {
                for number in numbers {
                    match here.send(P::Message::of(number)) {
                        Ok(()) | Err(SendError::Closed(_)) => {}
                        Err(other) => panic!("a survivor cannot send: {other}"),
                    }
                }
                let came = receive_all(&mut here);
                (here, came)
            }))
        } else {
            for number in numbers {
                here.send(P::Message::of(number)).unwrap();
            }
            Survivor::Waits(Box::new(here))
        };
        let case = EndDies {
            survivor,
            _of: PhantomData,
        };
        (case, Victim::start(Self::act, there))
    }

    fn prove(self, done: bool) {
        let came = self.survivor.finish();
        let most = P::BEFORE + P::WITH;
        let least = if done { most } else { P::BEFORE };
        check(&came, least, most);
    }

    fn prove_stopped(mut self, resume: impl FnOnce() -> Vec<u64>) {
        let mut came = Vec::new();
        if let Survivor::Waits(end) = &mut self.survivor {
            // One who is stopped is there.
            loop {
                match end.recv_timeout(SHORT) {
                    Ok(message) => came.push(message.number()),
                    Err(RecvError::TimedOut) => break,
                    Err(RecvError::Closed) if P::ENDS => break,
                    Err(other) => panic!("a survivor cannot receive: {other}"),
                }
            }
            assert!(
                P::ENDS || !end.is_closed(),
                "the stopped are taken for gone"
            );
        }
        let theirs = resume();
        came.extend(self.survivor.finish());
        check(&came, P::BEFORE + P::WITH, P::BEFORE + P::WITH);
        let expected: Vec<u64> = (OURS..).take(theirs.len()).collect();
        assert_eq!(theirs, expected, "lost, repeated or out of order");
    }
}

macro_rules! operations {
    ($($name:ident: $message:ty { $($constant:ident: $kind:ty = $value:expr),* } $act:expr;)*) => {$(
        pub(crate) struct $name;

        impl Piping for $name {
            type Message = $message;
            $(const $constant: $kind = $value;)*

            fn act(stage: &Stage, end: End<$message>) -> Vec<u64> {
                let act: fn(&Stage, End<$message>) -> Vec<u64> = $act;
                act(stage, end)
            }
        }
    )*};
}

operations! {
    PipeSend: u64 { BEFORE: usize = 2, WITH: usize = 1 } |stage, mut end| {
        stage.act(|| end.send(nth(2))).unwrap();
        Vec::new()
    };
    PipeSendText: String { BEFORE: usize = 2, WITH: usize = 1 } |stage, mut end| {
        let message = nth(2);
        stage.act(|| end.send(message)).unwrap();
        Vec::new()
    };
    PipeSendBytes: Vec<u8> { BEFORE: usize = 1, WITH: usize = 1, STREAMS: bool = true } |stage, mut end| {
        let message: Vec<u8> = nth(1);
        stage.act(|| end.send(message)).unwrap();
        Vec::new()
    };
    PipeSendFull: u64 { AT_MOST: usize = WAITS, BEFORE: usize = 3, WITH: usize = SIZE } |stage, mut end| {
        let mut n = 3;
        while end.try_send(nth(n)).is_ok() {
            n += 1;
        }
        stage.act(|| end.send(nth(n))).unwrap();
        Vec::new()
    };
    PipeTrySend: u64 { BEFORE: usize = 2, WITH: usize = 1 } |stage, mut end| {
        stage.act(|| end.try_send(nth(2))).unwrap();
        Vec::new()
    };
    PipeRecv: u64 { BEFORE: usize = 1, THERE: usize = 3 } |stage, mut end| {
        received(stage.act(|| end.recv()))
    };
    PipeRecvText: String { BEFORE: usize = 1, THERE: usize = 3 } |stage, mut end| {
        received(stage.act(|| end.try_recv()))
    };
    PipeRecvBytes: Vec<u8> { THERE: usize = 1, STREAMS: bool = true } |stage, mut end| {
        received(stage.act(|| end.recv()))
    };
    PipeTryRecvEmpty: u64 { BEFORE: usize = 1 } |stage, mut end| {
        received(stage.act(|| end.try_recv()))
    };
    PipeRecvEmpty: u64 { BEFORE: usize = 1, AT_MOST: usize = WAITS } |stage, mut end| {
        received(stage.act(|| end.recv()))
    };
    PipeDrop: u64 { BEFORE: usize = 2, ENDS: bool = true } |stage, end| {
        stage.act(|| drop(end));
        Vec::new()
    };
}

fn received<M: Item>(result: Result<M, RecvError>) -> Vec<u64> {
    match result {
        Ok(message) => vec![message.number()],
        Err(RecvError::Empty) => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}
