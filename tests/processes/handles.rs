//! Segments travel in arguments, in results and inside messages, also from a process that has ended.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use multiproc::{
    Frozen, Lock, Message, Pipe, PipeEnd, Process, Queue, Receiver, RecvError, Segment, Sender,
};
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::help::{self, isolated, sleep_long, spawn, tests};

tests![
    in_arguments,
    in_results,
    many_at_once,
    from_one_that_has_ended,
    from_a_grandchild_when_both_have_ended,
    from_one_that_was_killed,
    lost_ones_do_not_pile_up,
    behind_which_is_something_else,
];

const LONG: Duration = Duration::from_secs(30);

fn in_arguments() {
    let segment = Segment::new(4096).unwrap();
    let child = spawn(|given: Segment| given.len(), (segment,)).unwrap();
    assert_eq!(child.join().unwrap(), 4096);
}

fn in_results() {
    let child = spawn(|| Segment::new(8192).unwrap(), ()).unwrap();
    assert_eq!(child.join().unwrap().len(), 8192);
}

fn many_at_once() {
    let segments: Vec<_> = (1..=40).map(|n| Segment::new(n * 8).unwrap()).collect();
    let reversed = |given: Vec<Segment>| given.into_iter().rev().collect::<Vec<_>>();
    let back = spawn(reversed, (segments,)).unwrap().join().unwrap();
    let sizes: Vec<_> = back.iter().map(Segment::len).collect();
    assert_eq!(sizes, (1..=40).rev().map(|n| n * 8).collect::<Vec<_>>());
}

type Things = (Segment, Lock<u64>, Frozen<u64>, Sender<u64>);

/// Makes one of each, sends them, and has no more to do.
fn leave(mut carrier: Sender<Things>, number: u64) {
    let segment = Segment::new(64).unwrap();
    segment.words()[0].store(number, Ordering::Relaxed);
    let lock = Lock::new(number).unwrap();
    let frozen = Frozen::from_slice(&[number; 1000]).unwrap();
    let (sender, _) = Queue::new(4).unwrap();
    carrier.send((segment, lock, frozen, sender)).unwrap();
}

fn is_whole(things: Things, number: u64) {
    let (segment, lock, frozen, _) = things;
    assert_eq!(segment.words()[0].load(Ordering::Relaxed), number);
    assert_eq!(*lock.lock().unwrap(), number);
    assert_eq!(*frozen, [number; 1000]);
}

fn from_one_that_has_ended() {
    isolated(|| {
        let (carrier, mut carried) = Queue::<Things>::new(4).unwrap();
        let mut before = Vec::new();
        for number in 0..50 {
            let child = Process::spawn(leave, (carrier.try_clone().unwrap(), number)).unwrap();
            child.join().unwrap();
            is_whole(carried.recv_timeout(LONG).unwrap(), number);
            if number == 5 {
                before = help::descriptors();
            }
        }
        assert!(help::descriptors().len() <= before.len() + 5);
        // At the very end, while its parent hears of it.
        let child = Process::spawn(leave, (carrier, 50)).unwrap();
        is_whole(carried.recv_timeout(LONG).unwrap(), 50);
        child.join().unwrap();
    });
}

fn from_a_grandchild_when_both_have_ended() {
    isolated(|| {
        let (carrier, mut carried) = Queue::<Things>::new(4).unwrap();
        let between = |carrier: Sender<Things>| {
            Process::spawn(leave, (carrier, 7)).unwrap().join().unwrap();
        };
        Process::spawn(between, (carrier,)).unwrap().join().unwrap();
        let sibling =
            |mut carried: Receiver<Things>| is_whole(carried.recv_timeout(LONG).unwrap(), 7);
        let found = Process::spawn(sibling, (carried.try_clone().unwrap(),));
        found.unwrap().join().unwrap();
        assert_eq!(carried.recv_timeout(LONG).err(), Some(RecvError::Closed));
    });
}

fn from_one_that_was_killed() {
    let (carrier, mut carried) = Queue::<Lock<u64>>::new(4).unwrap();
    let known = Lock::new(1_u64).unwrap();
    let send_and_wait = |mut carrier: Sender<Lock<u64>>, known: Lock<u64>, mut sent: Sender<()>| {
        carrier.send(known.clone()).unwrap();
        carrier.send(Lock::new(2_u64).unwrap()).unwrap();
        carrier.send(known).unwrap();
        sent.send(()).unwrap();
        sleep_long();
    };
    let (sent, mut is_sent) = Queue::<()>::new(1).unwrap();
    let child = Process::spawn(send_and_wait, (carrier, known.clone(), sent)).unwrap();
    is_sent.recv_timeout(LONG).unwrap();
    child.kill().unwrap();
    child.join().unwrap_err();
    let sibling = |mut carried: Receiver<Lock<u64>>| {
        // This process has it, so it is found; the next is lost with its only holder; the queue goes on.
        *carried.recv_timeout(LONG).unwrap().lock().unwrap() += 1;
        match carried.recv_timeout(LONG) {
            Err(RecvError::Decode(error)) => {
                assert!(error.to_string().contains("is gone"), "{error}")
            }
            other => panic!("{other:?}"),
        }
        *carried.recv_timeout(LONG).unwrap().lock().unwrap() += 1;
    };
    let child = Process::spawn(sibling, (carried.try_clone().unwrap(),)).unwrap();
    child.join().unwrap();
    assert_eq!(*known.lock().unwrap(), 3);
    assert_eq!(carried.recv_timeout(LONG).err(), Some(RecvError::Closed));
}

fn lost_ones_do_not_pile_up() {
    isolated(|| {
        let before = help::after_first_child().len();
        for _ in 0..30 {
            let (carrier, carried) = Queue::<Things>::new(4).unwrap();
            Process::spawn(leave, (carrier, 1)).unwrap().join().unwrap();
            drop(carried);
        }
        // The reaper, a thread of its own, takes up what each of them left.
        help::wait_until(LONG, "no more are held than may be lost", || {
            help::descriptors().len() <= before + 2 * 32
        });
    });
}

/// Kinds of descriptors that are no segment, or a damaged one.
const KINDS: u8 = 12;

/// One of that kind, in place of a segment of that name and those bytes.
fn something_else(kind: u8, name: &str, bytes: &[u8]) -> OwnedFd {
    let file = |path: &str| OwnedFd::from(File::open(path).unwrap());
    let memory = |bytes: &[u8], seals: SealFlags| {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = memfd_create(name, flags).unwrap();
        assert_eq!(rustix::io::write(&file, bytes).unwrap(), bytes.len());
        fcntl_add_seals(&file, seals).unwrap();
        file
    };
    let sealed = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    match kind {
        0 => pipe_with(PipeFlags::CLOEXEC).unwrap().0,
        1 => {
            let flags = SocketFlags::CLOEXEC;
            let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None);
            pair.unwrap().0
        }
        2 => file("/proc/self/exe"),
        3 => file("/"),
        4 => file("/dev/zero"),
        5 => epoll::create(epoll::CreateFlags::CLOEXEC).unwrap(),
        6 => eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
        7 => memory(bytes, SealFlags::empty()),
        8 => memory(&[], sealed),
        9 => memory(&bytes[..bytes.len() / 2], sealed),
        10 => memory(&vec![0; bytes.len()], sealed),
        _ => memory(&[bytes, &[0; 4096]].concat(), sealed),
    }
}

/// Sends one, and puts something else where its descriptors are.
fn send_with_something_else<T: Message>(
    make: fn() -> T,
    mut carrier: Sender<T>,
    kind: u8,
    mut sent: Sender<()>,
) {
    let before = help::descriptors();
    let thing = make();
    let mut new = help::descriptors();
    new.retain(|one| !before.contains(one));
    assert!(!new.is_empty());
    carrier.send(thing).unwrap();
    for (number, target) in new {
        let bytes = std::fs::read(format!("/proc/self/fd/{number}")).unwrap();
        let name = target
            .trim_start_matches("/memfd:")
            .trim_end_matches(" (deleted)");
        let other = something_else(kind, name, &bytes);
        // SAFETY: this process uses what it has sent no more.
        std::mem::forget(unsafe { nix::unistd::dup2_raw(other, number as i32) }.unwrap());
    }
    sent.send(()).unwrap();
    sleep_long();
}

/// Whoever opens what is behind a handle and finds something else says so, whatever it is, and keeps nothing of it.
fn behind_which_is_something_else() {
    macro_rules! refuses {
        ($scope:ident: $($kinds:expr => $type:ty = $make:expr;)*) => {$(
            $scope.spawn(|| {
                for kind in $kinds {
                    let (carrier, mut carried) = Queue::<$type>::new(1).unwrap();
                    let (sent, mut is_sent) = Queue::<()>::new(1).unwrap();
                    let send = |carrier, kind, sent| {
                        send_with_something_else(|| $make, carrier, kind, sent)
                    };
                    let child = spawn(send, (carrier, kind, sent)).unwrap();
                    is_sent.recv_timeout(LONG).unwrap();
                    let what = (kind, stringify!($type));
                    match carried.recv_timeout(LONG) {
                        Err(RecvError::Decode(_)) => {}
                        Err(other) => panic!("{what:?}: {other}"),
                        Ok(_) => panic!("{what:?} was taken"),
                    }
                    child.kill().unwrap();
                    child.join().unwrap_err();
                }
            });
        )*};
    }
    isolated(|| {
        let before = help::after_first_child();
        std::thread::scope(|scope| {
            refuses! { scope:
                0..KINDS => Segment = Segment::new(4096).unwrap();
                [0, 9] => Lock<u64> = Lock::new(1_u64).unwrap();
                [1, 10] => Frozen<u64> = Frozen::from_slice(&[1; 1000]).unwrap();
                [2, 7] => Sender<u64> = Queue::new(4).unwrap().0;
                [3, 8] => Receiver<u64> = Queue::new(4).unwrap().1;
                [5, 11] => PipeEnd<u64, u64> = Pipe::new().unwrap().0;
            }
        });
        help::settles_to(&before);
    });
}
