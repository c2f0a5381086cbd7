//! Ends of a queue on their way through another one.

use std::marker::PhantomData;
use std::time::Duration;

use multiproc::{Child, Process, Queue, Receiver, RecvError, Sender};

use crate::line::{Line, THEIRS};
use crate::run::Case;
use crate::stage::Stage;
use crate::trace::Victim;

/// Longer than any wait that ends.
const LONG: Duration = Duration::from_secs(20);
/// Ends that survivors send while the victim is stopped.
const OURS: usize = 3;

/// The queue that ends travel through.
type Way = (Sender<Sender<u64>>, Receiver<Sender<u64>>);

/// What the victim does with an end inside a message.
pub(crate) trait Travelling: 'static {
    /// Whether an end is on its way already, sent by a process that has ended since.
    const THERE: bool;

    /// Returns how many ends have come.
    fn act(stage: &Stage, way: Way, end: Sender<u64>) -> usize;
}

/// Who sends, or receives, an end is the victim.
pub(crate) struct TravellerDies<T: Travelling> {
    line: Line<u64>,
    way: Way,
    _of: PhantomData<T>,
}

fn send_end(mut way: Sender<Sender<u64>>, end: Sender<u64>) {
    way.send(end).unwrap();
}

impl<T: Travelling> TravellerDies<T> {
    fn act(stage: Stage, (way, end): (Way, Sender<u64>)) -> usize {
        T::act(&stage, way, end)
    }

    /// Takes the ends that have come, each of which must be one; how many.
    fn arrivals(&mut self) -> usize {
        let mut count = 0;
        loop {
            match self.way.1.try_recv() {
                Ok(mut end) => {
                    end.try_send(THEIRS).expect("what has come is no end");
                    assert_eq!(self.line.drain(), [THEIRS]);
                    count += 1;
                }
                Err(RecvError::Empty) => return count,
                Err(other) => panic!("an end cannot come: {other}"),
            }
        }
    }

    fn send(&mut self) {
        let end = self.line.tx.try_clone().expect("a lane is lost");
        let sent = self.way.0.send_timeout(end, LONG);
        sent.expect("a survivor cannot send an end");
    }

    /// The victim is gone: both queues are as they were without it.
    fn check(mut self) {
        for _ in 0..OURS {
            self.send();
            assert_eq!(self.arrivals(), 1);
        }
        let (tx, mut rx) = self.way;
        drop(tx);
        let told = rx.recv_timeout(LONG).map(drop);
        assert_eq!(told, Err(RecvError::Closed), "the way is closed");
        self.line.check_lane();
    }
}

impl<T: Travelling> Case for TravellerDies<T> {
    type Who = Child<usize>;

    fn set_up() -> (Self, Victim<Self::Who>) {
        let line = Line::new(false);
        let way = Queue::builder().capacity(4).build().unwrap();
        let clone = |way: &Way| (way.0.try_clone().unwrap(), way.1.try_clone().unwrap());
        if T::THERE {
            let ends = (way.0.try_clone().unwrap(), line.tx.try_clone().unwrap());
            Process::spawn(send_end, ends).unwrap().join().unwrap();
        }
        let ends = (clone(&way), line.tx.try_clone().unwrap());
        let case = TravellerDies {
            line,
            way,
            _of: PhantomData,
        };
        (case, Victim::start(Self::act, ends))
    }

    fn prove(mut self, done: bool) {
        let came = self.arrivals();
        assert!(came <= 1, "{came} ends of one");
        assert!(
            !done || came == usize::from(!T::THERE),
            "the operation had returned, and {came} ends come"
        );
        self.check();
    }

    fn prove_stopped(mut self, resume: impl FnOnce() -> usize) {
        let mut came = 0;
        for _ in 0..OURS {
            self.send();
            came += self.arrivals();
        }
        came += resume();
        came += self.arrivals();
        assert_eq!(came, OURS + 1, "an end is lost, or has come twice");
        self.check();
    }
}

macro_rules! operations {
    ($($name:ident { THERE = $there:expr } $act:expr;)*) => {$(
        pub(crate) struct $name;

        impl Travelling for $name {
            const THERE: bool = $there;

            fn act(stage: &Stage, way: Way, end: Sender<u64>) -> usize {
                let act: fn(&Stage, Way, Sender<u64>) -> usize = $act;
                act(stage, way, end)
            }
        }
    )*};
}

operations! {
    SendEnd { THERE = false } |stage, (mut tx, _rx), end| {
        assert!(stage.act(|| tx.send(end).is_ok()), "the end was not sent");
        0
    };
    RecvEnd { THERE = true } |stage, (_tx, mut rx), _end| {
        match stage.act(|| rx.try_recv()) {
            Ok(_) => 1,
            Err(RecvError::Empty) => 0,
            Err(error) => panic!("{error}"),
        }
    };
}
