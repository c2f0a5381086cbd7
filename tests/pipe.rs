//! What `Pipe` promises, through the public door: threads stand for processes where death is not the matter.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{Pipe, PipeEnd, PipeError, Process, Queue, RecvError, SendError};
use serde::{Deserialize, Serialize, Serializer};

const SOON: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);

#[test]
fn both_directions_keep_their_order() {
    let (mut a, mut b) = Pipe::<u64, String>::new().unwrap();
    let other = thread::spawn(move || {
        for n in 0..50_000 {
            assert_eq!(b.recv_timeout(SOON), Ok(n));
            b.send_timeout(n.to_string(), SOON).unwrap();
        }
        assert_eq!(b.recv(), Err(RecvError::Closed));
    });
    for n in 0..50_000 {
        a.send_timeout(n, SOON).unwrap();
        assert_eq!(a.recv_timeout(SOON).unwrap(), n.to_string());
    }
    drop(a);
    other.join().unwrap();
}

#[test]
fn one_direction_runs_ahead_of_the_other() {
    let (mut a, mut b) = Pipe::<u64, ()>::builder().size(4096).build().unwrap();
    let other = thread::spawn(move || (0..300_000).for_each(|n| a.send_timeout(n, SOON).unwrap()));
    for n in 0..300_000 {
        assert_eq!(b.recv_timeout(SOON), Ok(n));
    }
    assert_eq!(b.recv(), Err(RecvError::Closed));
    other.join().unwrap();
}

/// Sizes around every boundary, through rings from the smallest on, at every offset that comes up.
#[test]
fn messages_of_all_sizes_come_whole() {
    for size in [1, 64, 1000, 4096, 1 << 16] {
        let (mut a, mut b) = Pipe::<Vec<u8>, ()>::builder().size(size).build().unwrap();
        let sizes: Vec<usize> = (0..200)
            .chain([
                255, 256, 257, 1023, 1024, 1025, 4095, 4096, 4097, 65_535, 65_536, 65_537,
            ])
            .chain([1 << 20, 3, 0, 100])
            .collect();
        let given = sizes.clone();
        let sender = thread::spawn(move || {
            for (n, &len) in given.iter().enumerate() {
                a.send_timeout(pattern(n, len), SOON).unwrap();
            }
        });
        for (n, &len) in sizes.iter().enumerate() {
            let got = b.recv_timeout(SOON).unwrap();
            assert!(
                got == pattern(n, len),
                "message {n} of {len} bytes, ring of {size}"
            );
        }
        assert_eq!(b.recv(), Err(RecvError::Closed));
        sender.join().unwrap();
    }
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at.wrapping_mul(31) ^ seed.wrapping_mul(7)) as u8)
        .collect()
}

#[test]
fn large_messages_stream_through_a_small_ring() {
    let (mut a, mut b) = Pipe::<Vec<u64>, ()>::builder()
        .size(1 << 20)
        .build()
        .unwrap();
    let sender = thread::spawn(move || a.send_timeout((0..8 << 20).collect(), SOON).unwrap());
    let got = b.recv_timeout(SOON).unwrap();
    assert!(got.len() == 8 << 20 && got.iter().enumerate().all(|(at, &n)| n == at as u64));
    sender.join().unwrap();
}

#[test]
fn bytes_are_kept_when_the_buffer_is_too_small() {
    let (mut a, mut b) = Pipe::<(), ()>::new().unwrap();
    a.send_bytes(b"twelve bytes").unwrap();
    a.send_bytes(b"").unwrap();
    let mut small = [0; 5];
    let refused = b.recv_bytes_into(&mut small).unwrap_err();
    assert_eq!(
        refused,
        RecvError::TooSmall {
            needed: 12,
            given: 5
        }
    );
    let mut large = [0; 20];
    assert_eq!(b.recv_bytes_into(&mut large), Ok(12));
    assert_eq!(&large[..12], b"twelve bytes");
    assert_eq!(b.recv_bytes().unwrap(), b"");
}

#[test]
fn waiting_ends_in_time() {
    let (mut a, mut b) = Pipe::<u64, u64>::builder().size(1).build().unwrap();
    let start = Instant::now();
    assert_eq!(b.recv_timeout(SHORT), Err(RecvError::TimedOut));
    assert!(!b.poll(SHORT).unwrap());
    assert!(start.elapsed() >= 2 * SHORT);
    assert_eq!(b.try_recv(), Err(RecvError::Empty));
    let full = (0..).find_map(|n| a.try_send(n).err()).unwrap();
    let SendError::Full(refused) = full else {
        panic!("{full}")
    };
    let late = a.send_timeout(refused, SHORT).unwrap_err();
    assert!(
        matches!(late, SendError::TimedOut(n) if n == refused),
        "{late}"
    );
    // What was refused was not sent in part: all before it comes, then nothing.
    for n in 0..refused {
        assert!(b.poll(SOON).unwrap());
        assert_eq!(b.try_recv(), Ok(n));
    }
    assert_eq!(b.try_recv(), Err(RecvError::Empty));
}

#[test]
fn what_never_fits_at_once_is_refused_by_those_who_do_not_wait() {
    let (mut a, mut b) = Pipe::<Vec<u8>, ()>::builder().size(1).build().unwrap();
    for size in [4096, 100_000] {
        match a.try_send(pattern(1, size)) {
            Err(SendError::TooLarge {
                value,
                needed,
                limit,
            }) => assert!(value == pattern(1, size) && needed >= size && limit < 4096),
            other => panic!("{other:?}"),
        }
    }
    a.try_send(pattern(2, 3_000)).unwrap();
    assert!(matches!(
        a.try_send(pattern(3, 3_000)),
        Err(SendError::Full(_))
    ));
    assert!(b.recv().unwrap() == pattern(2, 3_000));
    assert_eq!(b.try_recv(), Err(RecvError::Empty));
}

#[test]
fn a_dropped_end_closes_both_directions() {
    let (mut a, mut b) = Pipe::<String, String>::new().unwrap();
    a.send("last".into()).unwrap();
    drop(a);
    assert_eq!(b.recv().unwrap(), "last");
    assert_eq!(b.recv(), Err(RecvError::Closed));
    let refused = b.send("nobody".into()).unwrap_err();
    assert!(matches!(refused, SendError::Closed(value) if value == "nobody"));
}

#[test]
fn a_waiting_end_is_woken_by_a_drop() {
    let (a, mut b) = Pipe::<u64, u64>::new().unwrap();
    let dropper = thread::spawn(move || {
        thread::sleep(SHORT);
        drop(a);
    });
    let start = Instant::now();
    assert_eq!(b.recv_timeout(SOON), Err(RecvError::Closed));
    assert!(start.elapsed() < SOON / 2);
    dropper.join().unwrap();
}

#[test]
fn sizes_are_checked() {
    let refused = Pipe::<u64, u64>::builder().size(0).build().unwrap_err();
    assert!(
        matches!(refused, PipeError::Size { asked: 0, .. }),
        "{refused}"
    );
    let refused = Pipe::<u64, u64>::builder()
        .size(usize::MAX)
        .build()
        .unwrap_err();
    assert!(matches!(refused, PipeError::Size { .. }), "{refused}");
}

fn upper(mut end: PipeEnd<String, String>) -> usize {
    let mut count = 0;
    while let Ok(text) = end.recv_timeout(SOON) {
        end.send(text.to_uppercase()).unwrap();
        count += 1;
    }
    count
}

#[test]
fn an_end_travels_to_a_process() {
    let (mut mine, theirs) = Pipe::<String, String>::new().unwrap();
    // What was sent before the end travelled is there when it arrives.
    mine.send("early".into()).unwrap();
    let child = Process::spawn(upper, (theirs,)).unwrap();
    assert_eq!(mine.recv_timeout(SOON).unwrap(), "EARLY");
    mine.send("late".into()).unwrap();
    assert_eq!(mine.recv_timeout(SOON).unwrap(), "LATE");
    drop(mine);
    assert_eq!(child.join().unwrap(), 2);
}

fn send_and_die(mut end: PipeEnd<Vec<u8>, ()>, count: usize) {
    for n in 0..count {
        end.send(pattern(n, 100 + n)).unwrap();
    }
    std::process::abort();
}

#[test]
fn what_a_killed_end_had_sent_is_received() {
    for round in 0..20 {
        let (theirs, mut mine) = Pipe::<Vec<u8>, ()>::new().unwrap();
        let child = Process::spawn(send_and_die, (theirs, 50)).unwrap();
        for n in 0..50 {
            assert!(
                mine.recv_timeout(SOON).unwrap() == pattern(n, 100 + n),
                "round {round}"
            );
        }
        assert_eq!(mine.recv_timeout(SOON), Err(RecvError::Closed));
        assert!(child.join().is_err());
    }
}

fn flood(mut end: PipeEnd<Vec<u8>, ()>) {
    for n in 0.. {
        end.send(pattern(n, n % 3000)).unwrap();
    }
}

/// Killed at any moment under full load, also in the middle of a message: no torn one is ever received.
#[test]
fn a_killed_end_leaves_no_torn_message() {
    for round in 0..60 {
        let (theirs, mut mine) = Pipe::<Vec<u8>, ()>::builder().size(8192).build().unwrap();
        let child = Process::spawn(flood, (theirs,)).unwrap();
        let mut received = 0;
        let ended = loop {
            match mine.recv_timeout(SOON) {
                Ok(message) => {
                    assert!(
                        message == pattern(received, received % 3000),
                        "round {round}: torn"
                    );
                    received += 1;
                    if received == 200 + round * 37 {
                        child.kill().unwrap();
                    }
                }
                Err(ended) => break ended,
            }
        };
        assert_eq!(ended, RecvError::Closed);
        assert!(received >= 200 + round * 37);
    }
}

/// An end that is sent to its own process is the one that arrives, whatever becomes of the one that was sent.
#[test]
fn an_end_travels_within_a_process() {
    let (mut tx, mut rx) = Queue::<PipeEnd<u64, u64>>::new(1).unwrap();
    let other = thread::spawn(move || {
        for mut end in rx.iter() {
            let number = end.recv_timeout(SOON).unwrap();
            end.send(number + 1).unwrap();
            assert_eq!(end.recv_timeout(SOON), Err(RecvError::Closed));
        }
    });
    for number in 0..2_000 {
        let (mut here, there) = Pipe::<u64, u64>::builder().size(1).build().unwrap();
        tx.send_timeout(there, SOON).unwrap();
        here.send(number).unwrap();
        assert_eq!(here.recv_timeout(SOON), Ok(number + 1), "round {number}");
    }
    drop(tx);
    other.join().unwrap();
}

#[test]
fn an_end_that_is_not_sent_goes_on() {
    let (mut tx, mut rx) = Queue::<PipeEnd<u64, u64>>::new(1).unwrap();
    let mut pipes: Vec<_> = (0..2).map(|_| Pipe::<u64, u64>::new().unwrap()).collect();
    let (mut here, refused) = pipes.pop().unwrap();
    let (_other, first) = pipes.pop().unwrap();
    tx.send(first).unwrap();
    let mut refused = match tx.try_send(refused) {
        Err(SendError::Full(end)) => end,
        other => panic!("{other:?}"),
    };
    for number in 0..20 {
        refused.send(number).unwrap();
        assert_eq!(here.recv(), Ok(number));
        here.send(number).unwrap();
        assert_eq!(refused.recv(), Ok(number));
    }
    drop(rx.recv().unwrap());
    drop(refused);
    assert_eq!(here.recv(), Err(RecvError::Closed));
}

/// What has begun is taken back by whoever has the end next.
#[test]
fn an_end_travels_in_the_middle_of_a_message() {
    let pipe = Pipe::<Vec<u8>, Vec<u8>>::builder().size(1);
    let (mut here, mut there) = pipe.build().unwrap();
    let late = here.send_timeout(pattern(1, 100_000), SHORT).unwrap_err();
    assert!(matches!(late, SendError::TimedOut(_)), "{late}");
    let (mut tx, mut rx) = Queue::<PipeEnd<Vec<u8>, Vec<u8>>>::new(1).unwrap();
    tx.send(here).unwrap();
    let mut here = rx.recv().unwrap();
    there.send(pattern(2, 20)).unwrap();
    assert_eq!(here.recv_timeout(SOON), Ok(pattern(2, 20)));
    let receiver = thread::spawn(move || {
        assert_eq!(there.recv_timeout(SOON), Ok(pattern(3, 20)));
        assert_eq!(there.recv_timeout(SOON), Err(RecvError::Closed));
    });
    here.send_timeout(pattern(3, 20), SOON).unwrap();
    drop(here);
    receiver.join().unwrap();
}

#[test]
fn a_panic_while_writing_leaves_the_pipe_usable() {
    /// Fails behind so many bytes.
    #[derive(Deserialize)]
    struct Panics(Vec<u8>, bool);

    impl Serialize for Panics {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            struct Explodes(bool);

            impl Serialize for Explodes {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    assert!(!self.0, "while writing");
                    self.0.serialize(serializer)
                }
            }
            (&self.0, Explodes(self.1)).serialize(serializer)
        }
    }

    let pipe = Pipe::<Panics, Panics>::builder().size(1 << 16);
    let (mut here, mut there) = pipe.build().unwrap();
    for (round, length) in [0, 50, 60, 20_000, 40_000].into_iter().enumerate() {
        let bad = Panics(pattern(round, length), true);
        catch_unwind(AssertUnwindSafe(|| here.send(bad).is_ok())).unwrap_err();
        there.send(Panics(pattern(round, length), false)).unwrap();
        assert_eq!(here.recv_timeout(SOON).unwrap().0, pattern(round, length));
        here.send(Panics(pattern(round, 10), false)).unwrap();
        assert_eq!(there.recv_timeout(SOON).unwrap().0, pattern(round, 10));
        assert!(matches!(there.try_recv(), Err(RecvError::Empty)));
    }
}

/// Closed means the same for every end: from now on all calls say so.
#[test]
fn an_end_is_closed_when_nothing_is_left() {
    let (mut here, mut there) = Pipe::<u64, String>::new().unwrap();
    assert!(!here.is_closed() && !there.is_closed());
    here.send(1).unwrap();
    here.send(2).unwrap();
    drop(here);
    assert!(!there.is_closed(), "two messages are left");
    assert_eq!(there.recv(), Ok(1));
    assert!(!there.is_closed(), "a message is left");
    // Asking is no receiving.
    assert_eq!(there.recv(), Ok(2));
    assert!(there.is_closed());
    assert_eq!(there.recv(), Err(RecvError::Closed));
    let refused = there.send("late".to_owned());
    assert_eq!(refused, Err(SendError::Closed("late".to_owned())));
}
