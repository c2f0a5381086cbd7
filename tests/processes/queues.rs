//! Queues between processes: ends in arguments, results and messages, and the ends of those who hold them.

use std::thread;
use std::time::{Duration, Instant};

use multiproc::{Plain, Process, Queue, Receiver, RecvError, Segment, SendError, Sender};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::fork_advice;
use crate::help::{isolated, sleep_long, tests};

tests![
    ends_as_arguments_and_results,
    between_siblings_and_grandchildren,
    ends_inside_messages,
    an_end_outlives_its_sender,
    order_across_processes,
    exits_of_all_kinds_lose_nothing,
    closed_soon_after_the_last_sender_is_killed,
    closed_soon_after_the_last_receiver_is_killed,
    a_killed_lease_goes_to_another,
    large_messages,
    a_fork_may_not_touch_it,
    handles_without_descriptors,
];

/// Long enough for anything that happens at all.
const LONG: Duration = Duration::from_secs(30);

fn count_up(mut tx: Sender<u64>, from: u64, to: u64) {
    tx.send_many(from..to).unwrap();
}

fn sum(rx: Receiver<u64>) -> u64 {
    let mut rx = rx;
    rx.iter().sum()
}

fn ends_as_arguments_and_results() {
    let (tx, rx) = Queue::<u64>::new(8).unwrap();
    let sender = Process::spawn(count_up, (tx, 0, 1000)).unwrap();
    let receiver = Process::spawn(sum, (rx,)).unwrap();
    sender.join().unwrap();
    assert_eq!(receiver.join().unwrap(), 499_500);

    fn make() -> (Sender<String>, Receiver<String>) {
        let (mut tx, rx) = Queue::new(8).unwrap();
        tx.send("made there".to_string()).unwrap();
        (tx, rx)
    }
    let (mut tx, mut rx) = Process::spawn(make, ()).unwrap().join().unwrap();
    assert_eq!(rx.recv().as_deref(), Ok("made there"));
    tx.send("sent here".to_string()).unwrap();
    drop(tx);
    assert_eq!(rx.recv().as_deref(), Ok("sent here"));
    assert_eq!(rx.recv(), Err(RecvError::Closed));
}

fn between_siblings_and_grandchildren() {
    fn child(tx: Sender<u64>, depth: u64) {
        let mut tx = tx;
        tx.send(depth).unwrap();
        if depth > 0 {
            let next = Process::spawn(child, (tx, depth - 1)).unwrap();
            next.join().unwrap();
        }
    }
    let (tx, rx) = Queue::<u64>::new(2).unwrap();
    let receiver = Process::spawn(sum, (rx,)).unwrap();
    Process::spawn(child, (tx, 3)).unwrap().join().unwrap();
    assert_eq!(receiver.join().unwrap(), 6);
}

fn ends_inside_messages() {
    fn serve(mut requests: Receiver<(u64, Sender<u64>)>) {
        while let Ok((number, mut answer)) = requests.recv() {
            answer.send(number * number).unwrap();
        }
    }
    let (mut requests, served) = Queue::<(u64, Sender<u64>)>::new(4).unwrap();
    let servers: Vec<_> = (0..2)
        .map(|_| Process::spawn(serve, (served.try_clone().unwrap(),)).unwrap())
        .collect();
    drop(served);
    for number in 0..200 {
        let (answer, mut answers) = Queue::<u64>::new(1).unwrap();
        requests.send((number, answer)).unwrap();
        assert_eq!(answers.recv_timeout(LONG), Ok(number * number));
        // The server's sender was the last.
        assert_eq!(answers.recv_timeout(LONG), Err(RecvError::Closed));
    }
    drop(requests);
    servers
        .into_iter()
        .for_each(|server| server.join().unwrap());
}

fn an_end_outlives_its_sender() {
    // The child makes a sender of our queue travel to us, and ends before we take it.
    fn pass_on(mut to: Sender<Sender<u64>>, mut tx: Sender<u64>) {
        tx.send(1).unwrap();
        to.send(tx).unwrap();
        std::process::abort();
    }
    let (tx, mut rx) = Queue::<u64>::new(4).unwrap();
    let (to, mut from) = Queue::<Sender<u64>>::new(4).unwrap();
    let child = Process::spawn(pass_on, (to, tx)).unwrap();
    child.join().unwrap_err();
    // What was reserved for it went with its sender, so it takes another place.
    let mut tx = from.recv_timeout(LONG).unwrap();
    tx.send(2).unwrap();
    drop(tx);
    assert_eq!(rx.iter().collect::<Vec<_>>(), [1, 2]);
}

fn order_across_processes() {
    const EACH: u64 = 20_000;
    fn send(tx: Sender<(u64, u64)>, sender: u64) {
        let mut tx = tx;
        for n in 0..EACH {
            tx.send((sender, n)).unwrap();
        }
    }
    fn receive(rx: Receiver<(u64, u64)>) -> Vec<Vec<u64>> {
        let mut rx = rx;
        let mut seen = vec![Vec::new(); 2];
        while let Ok((sender, n)) = rx.recv() {
            seen[sender as usize].push(n);
        }
        seen
    }
    let (tx, rx) = Queue::new(16).unwrap();
    let senders: Vec<_> = (0..2)
        .map(|sender| Process::spawn(send, (tx.try_clone().unwrap(), sender)).unwrap())
        .collect();
    let receivers: Vec<_> = (0..2)
        .map(|_| Process::spawn(receive, (rx.try_clone().unwrap(),)).unwrap())
        .collect();
    drop((tx, rx));
    senders
        .into_iter()
        .for_each(|sender| sender.join().unwrap());
    let mut all = vec![Vec::new(); 2];
    for receiver in receivers {
        for (all, seen) in all.iter_mut().zip(receiver.join().unwrap()) {
            assert!(seen.is_sorted_by(|a, b| a < b), "out of order");
            all.extend(seen);
        }
    }
    for mut numbers in all {
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..EACH), "lost or repeated");
    }
}

/// How a process ends right after its last send.
fn send_and_end(mut tx: Sender<u64>, way: u64) {
    tx.send(way).unwrap();
    tx.send(way + 1).unwrap();
    match way % 5 {
        0 => drop(tx),
        1 => std::process::exit(0),
        2 => std::process::abort(),
        3 => {
            std::mem::forget(tx);
        }
        _ => {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}

fn exits_of_all_kinds_lose_nothing() {
    let (tx, mut rx) = Queue::<u64>::new(2).unwrap();
    for way in 0..40 {
        let child = Process::spawn(send_and_end, (tx.try_clone().unwrap(), way)).unwrap();
        assert_eq!(rx.recv_timeout(LONG), Ok(way));
        assert_eq!(rx.recv_timeout(LONG), Ok(way + 1));
        let _ = child.join();
    }
    // Without the parent's own end: closed, once all is received.
    let child = Process::spawn(send_and_end, (tx, 4)).unwrap();
    let _ = child.join();
    assert_eq!(rx.recv(), Ok(4));
    assert_eq!(rx.recv(), Ok(5));
    assert_eq!(rx.recv(), Err(RecvError::Closed));
}

fn hold<T: multiproc::Message>(_end: T, mut ready: Sender<()>) {
    ready.send(()).unwrap();
    sleep_long();
}

/// The worst of some times but one in a hundred.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

fn closed_soon_after_the_last_sender_is_killed() {
    let mut times = Vec::new();
    for _ in 0..20 {
        let (ready, mut is_ready) = Queue::<()>::new(1).unwrap();
        let (tx, rx) = Queue::<u64>::new(1).unwrap();
        let child = Process::spawn(hold::<Sender<u64>>, (tx, ready)).unwrap();
        is_ready.recv().unwrap();
        let waiting = thread::spawn(move || {
            let mut rx = rx;
            (rx.recv(), Instant::now())
        });
        thread::sleep(Duration::from_millis(5));
        let start = Instant::now();
        child.kill().unwrap();
        let (result, end) = waiting.join().unwrap();
        assert_eq!(result, Err(RecvError::Closed));
        times.push(end - start);
        child.join().unwrap_err();
    }
    println!("death to `Closed`: 99 of 100 within {:?}", p99(times));
}

fn closed_soon_after_the_last_receiver_is_killed() {
    let mut times = Vec::new();
    for _ in 0..20 {
        let (ready, mut is_ready) = Queue::<()>::new(1).unwrap();
        let (mut tx, rx) = Queue::<u64>::new(1).unwrap();
        let child = Process::spawn(hold::<Receiver<u64>>, (rx, ready)).unwrap();
        is_ready.recv().unwrap();
        tx.send(1).unwrap();
        let waiting = thread::spawn(move || (tx.send(2), Instant::now(), tx));
        thread::sleep(Duration::from_millis(5));
        let start = Instant::now();
        child.kill().unwrap();
        let (result, end, mut tx) = waiting.join().unwrap();
        assert_eq!(result, Err(SendError::Closed(2)));
        assert_eq!(tx.try_send(3), Err(SendError::Closed(3)));
        times.push(end - start);
        child.join().unwrap_err();
    }
    println!("death to `Closed`: 99 of 100 within {:?}", p99(times));
}

fn a_killed_lease_goes_to_another() {
    fn lease_and_wait(mut rx: Receiver<Plain<[u64; 100]>>, mut told: Sender<u64>) {
        let lease = rx.lease().unwrap();
        told.send(lease[99]).unwrap();
        sleep_long();
    }
    let builder = Queue::<Plain<[u64; 100]>>::builder();
    let (mut tx, mut rx) = builder.in_place(2).build().unwrap();
    let (told, mut hears) = Queue::<u64>::new(1).unwrap();
    for n in 0..10 {
        let mut loan = tx.loan().unwrap();
        loan[99] = n;
        loan.commit().unwrap();
        let arguments = (rx.try_clone().unwrap(), told.try_clone().unwrap());
        let child = Process::spawn(lease_and_wait, arguments).unwrap();
        assert_eq!(hears.recv_timeout(LONG), Ok(n));
        assert!(matches!(rx.try_lease(), Err(RecvError::Empty)));
        child.kill().unwrap();
        let lease = rx.lease_timeout(LONG).unwrap();
        assert_eq!((lease[99], lease.redelivered()), (n, true));
        lease.ack();
        child.join().unwrap_err();
    }
    assert_eq!(rx.stats().redelivered, 10);
}

fn large_messages() {
    fn echo(rx: Receiver<Vec<u8>>, tx: Sender<Vec<u8>>) {
        let (mut rx, mut tx) = (rx, tx);
        for value in rx.iter() {
            tx.send(value).unwrap();
        }
    }
    let queue = || {
        Queue::<Vec<u8>>::builder()
            .capacity(3)
            .message_size(1 << 20)
            .build()
    };
    let (mut to, there) = queue().unwrap();
    let (back, mut from) = queue().unwrap();
    let child = Process::spawn(echo, (there, back)).unwrap();
    for size in [0, 1, 4095, 4096, 65_537, (1 << 20) - 1, 1 << 20] {
        let value: Vec<u8> = (0..size).map(|n: u32| (n ^ (n >> 8)) as u8).collect();
        to.send(value.clone()).unwrap();
        assert!(from.recv_timeout(LONG).unwrap() == value);
    }
    drop(to);
    child.join().unwrap();
}

fn a_fork_may_not_touch_it() {
    isolated(|| {
        if !fork_advice::is_followed() {
            return;
        }
        let (mut tx, mut rx) = Queue::<u64>::new(4).unwrap();
        let (mut lend, mut lease) = Queue::<u64>::builder().in_place(2).build().unwrap();
        tx.send(1).unwrap();
        lend.send(2).unwrap();
        let held = lease.lease().unwrap();
        // SAFETY: the copy uses only what this test checks, and then exits at once.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let mut wrong = 0;
                wrong |= i32::from(tx.send(7) != Err(SendError::Forked(7)));
                wrong |= 2 * i32::from(rx.recv() != Err(RecvError::Forked));
                wrong |= 4 * i32::from(rx.try_recv() != Err(RecvError::Forked));
                wrong |= 8 * i32::from(tx.try_clone().is_ok() || rx.try_clone().is_ok());
                wrong |= 16 * i32::from(lend.loan().is_ok() || lease.lease().is_ok());
                // None of these gives anything back that is the parent's.
                drop((tx, rx, held, lend, lease));
                // SAFETY: it exits without running anything more.
                unsafe { nix::libc::_exit(wrong) }
            }
            ForkResult::Parent { child: copy } => {
                let status = waitpid(copy, None).unwrap();
                assert_eq!(status, WaitStatus::Exited(copy, 0));
                assert!(!tx.is_closed() && !rx.is_closed());
                assert_eq!(rx.recv(), Ok(1));
                assert_eq!(rx.try_recv(), Err(RecvError::Empty));
                assert!(matches!(lease.try_lease(), Err(RecvError::Empty)));
                held.ack();
                tx.send(3).unwrap();
                assert_eq!(rx.recv(), Ok(3));
            }
        }
    });
}

fn limit_descriptors() {
    let limit = Some(64);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit,
            maximum: limit,
        },
    )
    .unwrap();
}

fn handles_without_descriptors() {
    const MESSAGES: u64 = if cfg!(debug_assertions) {
        30_000
    } else {
        1_000_000
    };
    fn take(mut rx: Receiver<(Segment, u64)>) {
        limit_descriptors();
        for n in 0..MESSAGES {
            let (segment, number) = rx.recv().unwrap();
            assert_eq!((segment.len(), number), (4096, n));
        }
    }
    fn give(mut tx: Sender<(Segment, u64)>) {
        limit_descriptors();
        let segments: Vec<_> = (0..8).map(|_| Segment::new(4096).unwrap()).collect();
        for n in 0..MESSAGES {
            // One of a few, or one of its own that is gone from here at once.
            let segment = match n % 100 {
                0 => Segment::new(4096).unwrap(),
                _ => segments[n as usize % 8].clone(),
            };
            tx.send((segment, n)).unwrap();
        }
        // What it passes on it keeps until it is taken, so it must stay until then.
        while !tx.is_empty() {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let (tx, rx) = Queue::new(16).unwrap();
    let giver = Process::spawn(give, (tx,)).unwrap();
    let taker = Process::spawn(take, (rx,)).unwrap();
    taker.join().unwrap();
    giver.join().unwrap();
}
