//! Ends of queues and pipes move: in arguments, in results, inside messages, and with what a pool keeps.

use std::cell::RefCell;
use std::thread;
use std::time::Duration;

use multiproc::{
    Child, Lock, Pipe, PipeEnd, Pool, Process, Queue, Receiver, RecvError, SendError, Sender,
};

use crate::help::{isolated, sleep_long, spawn, tests, wait_until};

tests![
    the_only_sender_moves,
    the_only_receiver_moves,
    an_end_that_was_not_sent_is_here_again,
    an_end_that_nobody_takes_is_let_go_of,
    a_pipes_end_in_a_result,
    a_sender_in_a_result,
    a_result_that_nobody_takes,
    an_end_whose_sender_has_ended,
    ends_in_the_arguments_of_an_initializer,
    receivers_in_the_arguments_of_an_initializer,
    ends_in_a_context,
    ends_in_items_of_a_pool,
];

const LONG: Duration = Duration::from_secs(30);

fn only() -> (Sender<u64>, Receiver<u64>) {
    let build = Queue::builder().senders(1).receivers(1).capacity(64);
    build.build().unwrap()
}

fn send_and_give_back(mut tx: Sender<u64>, number: u64) -> Sender<u64> {
    tx.send(number).unwrap();
    tx
}

fn the_only_sender_moves() {
    let (mut tx, mut rx) = only();
    tx.send(0).unwrap();
    for round in 1..6 {
        tx = spawn(send_and_give_back, (tx, round))
            .unwrap()
            .join()
            .unwrap();
    }
    // And through queues, to a sibling and back.
    let (mut there, come) = Queue::<Sender<u64>>::new(1).unwrap();
    let (back, mut coming) = Queue::<Sender<u64>>::new(1).unwrap();
    let sibling = |mut come: Receiver<Sender<u64>>, mut back: Sender<Sender<u64>>| {
        while let Ok(mut tx) = come.recv() {
            tx.send(7).unwrap();
            back.send(tx).unwrap();
        }
    };
    let child = spawn(sibling, (come, back)).unwrap();
    for _ in 0..5 {
        there.send(tx).unwrap();
        tx = coming.recv_timeout(LONG).unwrap();
    }
    drop(there);
    child.join().unwrap();
    drop(tx);
    // In the order in which they were sent, and Closed afterwards.
    let all: Vec<_> = rx.iter().collect();
    assert_eq!(all, [0, 1, 2, 3, 4, 5, 7, 7, 7, 7, 7]);
    assert_eq!(rx.recv(), Err(RecvError::Closed));
}

fn the_only_receiver_moves() {
    let (mut tx, mut rx) = only();
    let take = |mut rx: Receiver<u64>| (rx.recv_timeout(LONG).unwrap(), rx);
    for round in 0..5 {
        tx.send(round).unwrap();
        let (number, back) = spawn(take, (rx,)).unwrap().join().unwrap();
        assert_eq!(number, round);
        rx = back;
    }
    let (mut there, mut come) = Queue::<Receiver<u64>>::new(1).unwrap();
    there.send(rx).unwrap();
    tx.send(9).unwrap();
    let mut rx = come.recv().unwrap();
    assert_eq!(rx.recv(), Ok(9));
    drop(rx);
    assert_eq!(tx.send(1), Err(SendError::Closed(1)));
}

fn an_end_that_was_not_sent_is_here_again() {
    let (tx, mut rx) = only();
    let (mut there, come) = Queue::<Sender<u64>>::new(1).unwrap();
    let (other, _other) = only();
    there.send(other).unwrap();
    let mut tx = match there.try_send(tx) {
        Err(SendError::Full(tx)) => tx,
        other => panic!("{other:?}"),
    };
    tx.send(1).unwrap();
    drop(come);
    let mut tx = match there.send(tx) {
        Err(SendError::Closed(tx)) => tx,
        other => panic!("{other:?}"),
    };
    tx.send(2).unwrap();
    // Too large for its message, which is known when it is encoded.
    let (mut small, _come) = Queue::<(Sender<u64>, Vec<u16>)>::builder()
        .message_size(100)
        .build()
        .unwrap();
    let mut tx = match small.send((tx, vec![0; 100])) {
        Err(SendError::TooLarge { value, .. }) => value.0,
        other => panic!("{other:?}"),
    };
    tx.send(3).unwrap();
    let (mut small, _come) = Queue::<(Receiver<u64>, Vec<u16>)>::builder()
        .message_size(100)
        .build()
        .unwrap();
    rx = match small.send((rx, vec![0; 100])) {
        Err(SendError::TooLarge { value, .. }) => value.0,
        other => panic!("{other:?}"),
    };
    drop(tx);
    assert_eq!(rx.iter().collect::<Vec<_>>(), [1, 2, 3]);
}

fn an_end_that_nobody_takes_is_let_go_of() {
    let (tx, mut rx) = only();
    let (mut there, come) = Queue::<Sender<u64>>::new(1).unwrap();
    there.send(tx).unwrap();
    assert_eq!(rx.try_recv(), Err(RecvError::Empty));
    drop(come);
    assert_eq!(rx.recv_timeout(LONG), Err(RecvError::Closed));
    // The one who was to take it is killed.
    let (tx, mut rx) = only();
    let (mut there, come) = Queue::<Sender<u64>>::new(1).unwrap();
    let child = Process::spawn(|_: Receiver<Sender<u64>>| sleep_long(), (come,)).unwrap();
    there.send(tx).unwrap();
    child.kill().unwrap();
    child.join().unwrap_err();
    assert_eq!(rx.recv_timeout(LONG), Err(RecvError::Closed));
}

fn a_pipes_end_in_a_result() {
    for _ in 0..20 {
        let make = |mut there: PipeEnd<PipeEnd<u64, ()>, ()>| {
            let (a, b) = Pipe::<u64, ()>::new().unwrap();
            there.send(a).unwrap();
            there.recv().unwrap();
            b
        };
        let (here, mut there) = Pipe::new().unwrap();
        let child: Child<PipeEnd<(), u64>> = spawn(make, (here,)).unwrap();
        let mut a = there.recv_timeout(LONG).unwrap();
        // It waits for an answer, while the other end is on its way here in a result.
        let waiting = thread::spawn(move || {
            a.send(5).unwrap();
            a.recv_timeout(LONG)
        });
        there.send(()).unwrap();
        let mut b = child.join().unwrap();
        assert_eq!(b.recv_timeout(LONG), Ok(5));
        b.send(()).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(()));
    }
}

fn a_sender_in_a_result() {
    for _ in 0..20 {
        let (tx, mut rx) = only();
        let waiting = thread::spawn(move || rx.recv_timeout(LONG));
        let child = spawn(|tx: Sender<u64>| tx, (tx,)).unwrap();
        // The child has ended when its result is read.
        thread::sleep(Duration::from_millis(30));
        let mut tx = child.join().unwrap();
        tx.send(3).unwrap();
        assert_eq!(waiting.join().unwrap(), Ok(3));
    }
}

fn a_result_that_nobody_takes() {
    let (tx, mut rx) = only();
    let child = spawn(|tx: Sender<u64>| tx, (tx,)).unwrap();
    while child.is_alive() {
        thread::sleep(Duration::from_millis(1));
    }
    drop(child);
    assert_eq!(rx.recv_timeout(LONG), Err(RecvError::Closed));
}

fn an_end_whose_sender_has_ended() {
    for take in [true, false] {
        let (tx, mut rx) = only();
        let (there, mut come) = Queue::<Sender<u64>>::new(1).unwrap();
        let forward = |mut there: Sender<Sender<u64>>, tx: Sender<u64>| there.send(tx).unwrap();
        spawn(forward, (there, tx)).unwrap().join().unwrap();
        assert_eq!(rx.try_recv(), Err(RecvError::Empty));
        thread::sleep(Duration::from_millis(50));
        assert_eq!(rx.try_recv(), Err(RecvError::Empty));
        if take {
            let mut tx = come.recv_timeout(LONG).unwrap();
            tx.send(1).unwrap();
            assert_eq!(rx.recv_timeout(LONG), Ok(1));
        }
        drop(come);
        assert_eq!(rx.recv_timeout(LONG), Err(RecvError::Closed));
    }
}

thread_local! {
    static TX: RefCell<Option<Sender<u64>>> = const { RefCell::new(None) };
    static RX: RefCell<Option<Receiver<u64>>> = const { RefCell::new(None) };
}

fn tell(number: u64) {
    TX.with_borrow_mut(|tx| tx.as_mut().unwrap().send(number).unwrap());
}

fn die() {
    std::process::abort();
}

fn ends_in_the_arguments_of_an_initializer() {
    isolated(|| {
        let (tx, mut rx) = Queue::<u64>::new(64).unwrap();
        let seen = thread::spawn(move || rx.iter().collect::<Vec<_>>());
        let keep = |tx: Sender<u64>| TX.set(Some(tx));
        let build = Pool::builder().workers(1).initializer(keep, (tx,));
        let pool = build.build().unwrap();
        for number in 0..5 {
            pool.apply(tell, (number,)).unwrap();
            pool.apply(die, ()).unwrap_err();
            // Long enough for whoever waits to see that nobody else is there.
            thread::sleep(Duration::from_millis(30));
        }
        assert!(!seen.is_finished());
        drop(pool);
        assert_eq!(seen.join().unwrap(), [0, 1, 2, 3, 4]);
    });
}

fn receivers_in_the_arguments_of_an_initializer() {
    isolated(|| {
        let (mut tx, rx) = Queue::<u64>::new(64).unwrap();
        let keep = |rx: Receiver<u64>| RX.set(Some(rx));
        let build = Pool::builder().workers(1).initializer(keep, (rx,));
        let pool = build.build().unwrap();
        for number in 0..5 {
            tx.send(number).unwrap();
            let take =
                |(): ()| RX.with_borrow_mut(|rx| rx.as_mut().unwrap().recv_timeout(LONG).unwrap());
            assert_eq!(pool.apply(take, ((),)).unwrap(), number);
            pool.apply(die, ()).unwrap_err();
            assert!(!tx.is_closed());
        }
        drop(pool);
        wait_until(LONG, "the pool has let go of its receiver", || {
            tx.is_closed()
        });
    });
}

fn ends_in_a_context() {
    isolated(|| {
        let (tx, mut rx) = Queue::<u64>::new(64).unwrap();
        let lock = Lock::new(()).unwrap();
        let pool = Pool::new(2).unwrap();
        let tell = |context: &(Sender<u64>, Lock<()>), number: u64| {
            let _inside = context.1.lock().unwrap();
            context.0.try_clone().unwrap().send(number).unwrap();
        };
        let with = pool.with((tx, lock));
        // Twice: the value stays here.
        with.map(tell, 0..4).unwrap();
        with.map(tell, 4..8).unwrap();
        let mut all: Vec<_> = (0..8).map(|_| rx.recv_timeout(LONG).unwrap()).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(rx.try_recv(), Err(RecvError::Empty));
        drop(with);
        drop(pool);
        assert_eq!(rx.recv_timeout(LONG), Err(RecvError::Closed));
    });
}

fn ends_in_items_of_a_pool() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        let (mut tx, mut rx) = only();
        for number in 0..5 {
            tx = pool.apply(send_and_give_back, (tx, number)).unwrap();
            assert_eq!(rx.recv_timeout(LONG), Ok(number));
        }
        // Withdrawn before anybody takes it.
        let busy = |_: u64| thread::sleep(Duration::from_millis(200));
        let slow = [pool.apply_async(busy, (0,)), pool.apply_async(busy, (0,))];
        let task = pool.apply_async(send_and_give_back, (tx, 9));
        task.cancel();
        drop(task);
        let heard = rx.recv_timeout(LONG);
        assert!(matches!(heard, Err(RecvError::Closed) | Ok(9)), "{heard:?}");
        drop(slow);
    });
}
