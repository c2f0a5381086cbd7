//! What goes wrong around queues, locks and segments: no space, no descriptors, forks, lost proofs of life.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use multiproc::{
    LoanError, Lock, LockError, Pipe, PipeEnd, PipeError, Process, Queue, QueueError, RecvError,
    Segment, SegmentError, SendError, Sender,
};
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use rustix::process::{Resource, setrlimit};

use crate::fork_advice;
use crate::help::{descriptors, isolated, tests, wait_until};
use crate::limits::limit;
use crate::strangers::{Stranger, fresh, path, pause, say, strangers};

tests![
    too_few_descriptors,
    a_folder_that_is_full,
    a_folder_as_small_as_in_containers,
    a_limit_of_memory,
    handles_by_the_million,
    new_handles_by_the_thousand,
    a_fork_may_use_nothing,
    evicted_from_a_name,
    evicted_from_the_tree,
    evicted_from_a_pipe,
];

strangers![
    in_a_full_folder,
    in_a_folder_of_64_mib,
    in_little_memory,
    take_the_name
];

const LONG: Duration = Duration::from_secs(30);

fn too_few_descriptors() {
    isolated(|| {
        let name = fresh("descriptors");
        let held = fresh("descriptors-held");
        let stranger = Stranger::ready("hold", &held);
        drop(Segment::new(64).unwrap());
        let before = descriptors();
        let (mut refused, mut done) = (0, 0);
        for room in 0..8 {
            // So many numbers are free below the limit.
            let mut free = (0..).filter(|n| before.iter().all(|(used, _)| used != n));
            let most = u64::from(free.nth(room).unwrap());
            let old = limit(Resource::Nofile, most);
            let queue = || Queue::<u64>::builder().capacity(4);
            let text = |error: SegmentError| match error {
                SegmentError::TooManyDescriptors { .. } => Err(error.to_string()),
                other => panic!("{other:?}"),
            };
            let queue_text = |error| match error {
                QueueError::Segment(error) => text(error),
                other => panic!("{other:?}"),
            };
            let pipe_text = |error| match error {
                PipeError::Segment(error) => text(error),
                other => panic!("{other:?}"),
            };
            let outcomes: [Result<(), String>; 10] = [
                Pipe::<u64, u64>::new().map(drop).or_else(pipe_text),
                Pipe::<u64, u64>::listen(&name).map(drop).or_else(pipe_text),
                Segment::new(64).map(drop).or_else(text),
                Segment::create(&name, 64).map(drop).or_else(text),
                queue().build().map(drop).or_else(queue_text),
                queue().create(&name).map(drop).or_else(queue_text),
                queue().open(&held).map(drop).or_else(queue_text),
                queue().open_or_create(&held).map(drop).or_else(queue_text),
                Lock::new(1_u8).map(drop).or_else(text),
                Lock::create(&name, 1_u8).map(drop).or_else(text),
            ];
            setrlimit(Resource::Nofile, old).unwrap();
            for outcome in outcomes {
                match outcome {
                    Ok(()) => done += 1,
                    Err(text) => {
                        refused += 1;
                        assert!(
                            text.contains(&format!("(RLIMIT_NOFILE) is {most}")),
                            "{text}"
                        );
                    }
                }
            }
            assert_eq!(descriptors(), before);
            assert!(!path(&name).exists());
        }
        assert!(refused > 0 && done > 0, "{refused} refused, {done} done");
        drop(Queue::<u64>::builder().create(&name).unwrap());
        stranger.finish();
    });
}

/// Mounts a file system of its own over the folder of names, for this process alone.
fn mount_small_folder(options: &CStr) -> Result<(), nix::Error> {
    let mount = |source: &CStr, target: &CStr, kind: &CStr, flags, data: &CStr| {
        // SAFETY: all five are valid for the call; what is mounted is seen by this process alone.
        let code = unsafe {
            libc::mount(
                source.as_ptr(),
                target.as_ptr(),
                kind.as_ptr(),
                flags,
                data.as_ptr().cast(),
            )
        };
        nix::Error::result(code).map(drop)
    };
    // SAFETY: this process has one thread.
    nix::Error::result(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(c"none", c"/", c"", libc::MS_REC | libc::MS_PRIVATE, c"")?;
    // Names go there first, where it is.
    if Path::new("/run/user").exists() {
        mount(c"tmpfs", c"/run/user", c"tmpfs", 0, c"")?;
    }
    mount(c"tmpfs", c"/dev/shm", c"tmpfs", 0, options)
}

fn needs_space(error: &SegmentError, at_least: u64) {
    match error {
        SegmentError::NoSpace { needed } => assert!(*needed >= at_least, "{error}"),
        other => panic!("{other:?}"),
    }
}

fn in_a_full_folder(name: &str) {
    if let Err(error) = mount_small_folder(c"size=64k,mode=1777") {
        return say(&format!(
            "SKIPPED: a full folder of names, for mounting is refused: {error}"
        ));
    }
    // The first that does not fit, and the first that nearly does.
    for bytes in [1 << 20, 64 << 10, (64 << 10) - 256] {
        for _ in 0..100 {
            match Segment::create(name, bytes) {
                Err(error) => needs_space(&error, bytes as u64),
                Ok(segment) => assert!(segment.len() < 64 << 10),
            }
            assert!(!path(name).exists());
        }
    }
    let large = Queue::<[u64; 32]>::builder().capacity(1024);
    match large.create(name) {
        Err(QueueError::Segment(error)) => needs_space(&error, 256 * 1024),
        other => panic!("{other:?}"),
    }
    assert!(!path(name).exists());
    let needs_space_for_a_pipe = |error| match error {
        PipeError::Segment(error) => needs_space(&error, 1),
        other => panic!("{other:?}"),
    };
    match Pipe::<u64, u64>::listen(name) {
        Ok(_listener) => needs_space_for_a_pipe(Pipe::<u64, u64>::connect(name).unwrap_err()),
        Err(error) => needs_space_for_a_pipe(error),
    }
    assert!(!path(name).exists() && !path(&format!("{name}.0")).exists());
    // What fits works, and a sender that does not fit any more is an error, not a crash.
    let (mut tx, mut rx) = Queue::<u64>::builder().capacity(512).create(name).unwrap();
    let mut senders = Vec::new();
    let error = loop {
        match tx.try_clone() {
            Ok(sender) => senders.push(sender),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, QueueError::Segment(SegmentError::NoSpace { .. })),
        "{error:?}"
    );
    for sender in senders.iter_mut().chain([&mut tx]) {
        (0..512).for_each(|n| sender.try_send(n).unwrap());
    }
    let sent = 512 * (senders.len() + 1);
    assert_eq!((0..sent).filter(|_| rx.try_recv().is_ok()).count(), sent);
    // Names have no room; what has no name does not need that folder.
    let error = Lock::create("other", [0_u8; 20_000]).unwrap_err();
    needs_space(&error, 20_000);
    let (mut tx, mut rx) = Queue::<Vec<u8>>::builder()
        .message_size(1 << 20)
        .capacity(4)
        .build()
        .unwrap();
    tx.send(vec![1; 1 << 20]).unwrap();
    assert_eq!(rx.recv().unwrap().len(), 1 << 20);
    drop((senders, tx, rx));
    say("done");
}

/// Fills it again and again, with what has names; what has none has all the room it needs meanwhile.
fn in_a_folder_of_64_mib(name: &str) {
    if let Err(error) = mount_small_folder(c"size=64m,mode=1777") {
        return say(&format!(
            "SKIPPED: a folder of 64 MiB, for mounting is refused: {error}"
        ));
    }
    for round in 0..3 {
        let mut segments = Vec::new();
        let error = (0..).find_map(|number| {
            let bytes = 1 << (12 + (number + round) % 12);
            let created = Segment::create(&format!("{name}-{number}"), bytes);
            created.map(|segment| segments.push(segment)).err()
        });
        needs_space(&error.unwrap(), 4096);
        assert!(segments.len() > 10);
        for segment in &segments {
            let words = segment.words();
            words[words.len() - 1].store(7, std::sync::atomic::Ordering::Relaxed);
        }
        let (mut tx, mut rx) = Queue::<Vec<u8>>::builder()
            .message_size(16 << 20)
            .in_place(6)
            .build()
            .unwrap();
        tx.send(vec![1; 16 << 20]).unwrap();
        assert_eq!(rx.recv().unwrap().len(), 16 << 20);
    }
    say("done");
}

/// Lets a stranger play its part, which says why if it is not possible here.
fn done_or_skipped(part: &str) {
    let mut stranger = Stranger::start(part, &fresh(part));
    let line = stranger.line();
    stranger.finish();
    match line.starts_with("SKIPPED") {
        true => println!("{line}"),
        false => assert_eq!(line, "done"),
    }
}

fn a_folder_that_is_full() {
    done_or_skipped("in_a_full_folder");
}

fn a_folder_as_small_as_in_containers() {
    done_or_skipped("in_a_folder_of_64_mib");
}

/// A group of processes that may have 48 MiB; removed when dropped.
pub(crate) struct Group(PathBuf);

impl Group {
    pub(crate) fn new(name: &str) -> Result<Group, String> {
        let (root, file) = match Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() {
            true => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            false => ("/sys/fs/cgroup", "memory.max"),
        };
        let group = Group(Path::new(root).join(name));
        let text = |error: std::io::Error| error.to_string();
        fs::create_dir(&group.0).map_err(text)?;
        fs::write(group.0.join(file), "50331648").map_err(text)?;
        Ok(group)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }

    /// Puts this process into the group of that path.
    pub(crate) fn enter(path: &str) -> Result<(), String> {
        let members = Path::new(path).join("cgroup.procs");
        fs::write(members, std::process::id().to_string()).map_err(|error| error.to_string())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let end = Instant::now() + Duration::from_secs(2);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn in_little_memory(name: &str) {
    let entered = Group::new(name).and_then(|group| Group::enter(group.path()).map(|()| group));
    let group = match entered {
        Ok(group) => group,
        Err(error) => {
            return say(&format!(
                "SKIPPED: a limit of memory, for there can be none here: {error}"
            ));
        }
    };
    for _ in 0..10 {
        needs_space(&Segment::new(64 << 20).unwrap_err(), 64 << 20);
        needs_space(&Segment::create(name, 64 << 20).unwrap_err(), 64 << 20);
        assert!(!path(name).exists());
        let queue = Queue::<Vec<u8>>::builder()
            .message_size(1 << 20)
            .in_place(64);
        match queue.build() {
            Err(QueueError::Segment(error)) => needs_space(&error, 64 << 20),
            other => panic!("{other:?}"),
        }
    }
    let segment = Segment::create(name, 8 << 20).unwrap();
    segment
        .words()
        .iter()
        .for_each(|word| word.store(7, std::sync::atomic::Ordering::Relaxed));
    drop(segment);
    if let Some(root) = group.path().rsplit_once('/') {
        Group::enter(root.0).unwrap();
    }
    drop(group);
    say("done");
}

fn a_limit_of_memory() {
    done_or_skipped("in_little_memory");
}

/// Many in a release build, fewer in a debug build.
const fn many(release: u64, debug: u64) -> u64 {
    if cfg!(debug_assertions) {
        debug
    } else {
        release
    }
}

type Cargo = (Sender<u64>, Lock<u64>);

/// Sends handles to the same few things, `count` times, and says how many descriptors that took.
fn carry(mut cargo: Vec<Cargo>, mut carrier: Sender<Cargo>, count: u64) -> (usize, usize) {
    let (mut least, mut most) = (usize::MAX, 0);
    let kinds = cargo.len() as u64;
    for n in 0..count {
        let (sender, lock) = &mut cargo[(n % kinds) as usize];
        carrier
            .send((sender.try_clone().unwrap(), lock.clone()))
            .unwrap();
        // Not with the first ones, when the processes between are still told who sends handles.
        if n % (count / 20) == count / 40 {
            let now = descriptors().len();
            (least, most) = (least.min(now), most.max(now));
        }
    }
    (least, most)
}

fn handles_by_the_million() {
    isolated(|| {
        limit(Resource::Nofile, 64);
        let count = many(1_000_000, 20_000);
        let queue = || Queue::<u64>::builder().capacity(4).senders(100);
        let mut queues: Vec<_> = (0..4).map(|_| queue().build().unwrap()).collect();
        let locks: Vec<_> = (0..4).map(|_| Lock::new(0_u64).unwrap()).collect();
        let handles =
            |(n, (tx, _)): (usize, &(Sender<u64>, _))| (tx.try_clone().unwrap(), locks[n].clone());
        let cargo: Vec<Cargo> = queues.iter().enumerate().map(handles).collect();
        let (carrier, mut carried) = Queue::<Cargo>::new(32).unwrap();
        let began = Instant::now();
        let child = Process::spawn(carry, (cargo, carrier, count)).unwrap();
        let (mut least, mut most) = (usize::MAX, 0);
        for n in 0..count {
            let (mut sender, lock) = carried.recv_timeout(LONG).unwrap();
            *lock.lock().unwrap() += 1;
            sender.send(n).unwrap();
            assert_eq!(queues[n as usize % 4].1.recv_timeout(LONG), Ok(n));
            if n % (count / 20) == count / 40 {
                let now = descriptors().len();
                (least, most) = (least.min(now), most.max(now));
            }
        }
        let took = began.elapsed();
        let theirs = child.join().unwrap();
        println!(
            "{count} messages with two handles each: {took:?}, {least} to {most} descriptors here, {theirs:?} there"
        );
        assert_eq!(least, most);
        assert_eq!(theirs.0, theirs.1);
        for lock in locks {
            assert_eq!(*lock.lock().unwrap(), count / 4);
        }
    });
}

/// Sends a new lock with each message, and lets go of it at once.
fn carry_new(mut carrier: Sender<Lock<u64>>, count: u64) -> usize {
    let mut most = 0;
    for n in 0..count {
        carrier.send(Lock::new(n).unwrap()).unwrap();
        if n % 64 == 0 {
            most = most.max(descriptors().len());
        }
    }
    // What is on its way must be kept until it is taken.
    wait_until(LONG, "all is taken", || carrier.is_empty());
    most
}

fn new_handles_by_the_thousand() {
    isolated(|| {
        limit(Resource::Nofile, 64);
        let count = many(100_000, 5_000);
        let (carrier, mut carried) = Queue::<Lock<u64>>::new(8).unwrap();
        let began = Instant::now();
        let child = Process::spawn(carry_new, (carrier, count)).unwrap();
        let here = descriptors().len();
        for n in 0..count {
            let lock = carried.recv_timeout(LONG).unwrap();
            assert_eq!(*lock.lock().unwrap(), n);
        }
        println!(
            "{count} messages with a new lock each: {:?}",
            began.elapsed()
        );
        // One more is the way to the inbox of the child, which sends handles.
        assert!(descriptors().len() <= here + 1);
        let most = child.join().unwrap();
        assert!(most < 64, "{most} descriptors");
    });
}

fn a_fork_may_use_nothing() {
    isolated(|| {
        if !fork_advice::is_followed() {
            return;
        }
        let name = fresh("forked");
        let segment = Segment::new(64).unwrap();
        let (mut tx, mut rx) = Queue::<u64>::new(4).unwrap();
        let (mut lender, mut leaser) = Queue::<u64>::builder().in_place(4).build().unwrap();
        let (mut named_tx, mut named_rx) = Queue::<u64>::builder().create(&name).unwrap();
        let (mut end, mut other_end) = Pipe::<u64, Vec<u8>>::new().unwrap();
        let lock = Lock::new(1_u64).unwrap();
        let held = Lock::new(2_u64).unwrap();
        let named_lock = Lock::create(&format!("{name}-lock"), 3_u64).unwrap();
        tx.send(1).unwrap();
        lender.send(2).unwrap();
        named_tx.send(3).unwrap();
        lender.send(4).unwrap();
        end.send(6).unwrap();
        other_end.send(vec![7; 7]).unwrap();
        let lease = leaser.lease().unwrap();
        let guard = held.lock().unwrap();
        // SAFETY: the copy uses only what is checked here, and exits without returning. This thread has the
        // allocator, and others that might have locked it only wait.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let forked = |error: SegmentError| matches!(error, SegmentError::Forked);
                let refused = |error| matches!(error, QueueError::Segment(SegmentError::Forked));
                let right = [
                    tx.send(9) == Err(SendError::Forked(9)),
                    tx.try_send(9) == Err(SendError::Forked(9)),
                    rx.recv() == Err(RecvError::Forked),
                    rx.try_recv() == Err(RecvError::Forked),
                    tx.try_clone().is_err_and(refused),
                    rx.try_clone().is_err_and(refused),
                    lender
                        .try_loan()
                        .is_err_and(|error| error == LoanError::Forked),
                    leaser
                        .try_lease()
                        .is_err_and(|error| error == RecvError::Forked),
                    named_tx.send(9) == Err(SendError::Forked(9)),
                    named_rx.try_recv() == Err(RecvError::Forked),
                    end.send(9) == Err(SendError::Forked(9)),
                    end.try_send(9) == Err(SendError::Forked(9)),
                    end.send_bytes(&[9]) == Err(SendError::Forked(())),
                    end.recv() == Err(RecvError::Forked),
                    end.poll(Duration::ZERO) == Err(RecvError::Forked),
                    end.recv_bytes_into(&mut [0; 9]) == Err(RecvError::Forked),
                    other_end.try_recv() == Err(RecvError::Forked),
                    other_end.recv_bytes() == Err(RecvError::Forked),
                    matches!(lock.lock(), Err(LockError::Forked)),
                    matches!(held.try_lock(), Err(LockError::Forked)),
                    matches!(named_lock.lock(), Err(LockError::Forked)),
                    Segment::new(64).is_err_and(forked),
                    Segment::open(&name).is_err_and(forked),
                    Segment::create("other", 64).is_err_and(forked),
                    Queue::<u64>::new(1).is_err_and(refused),
                    Queue::<u64>::builder()
                        .open_or_create(&name)
                        .is_err_and(refused),
                    Lock::new(1_u8).is_err_and(forked),
                    Lock::<u64>::open(&name).is_err_and(forked),
                ];
                let wrong = right.iter().position(|right| !right);
                drop((
                    tx, rx, lender, named_tx, named_rx, end, other_end, lock, named_lock, segment,
                ));
                lease.ack();
                drop(guard);
                drop(leaser);
                let code = wrong.map_or(0, |at| at as i32 + 1);
                // SAFETY: ends the copy, and nothing of the original.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            }
        }
        // All is as it was.
        assert_eq!(
            (rx.try_recv(), rx.try_recv()),
            (Ok(1), Err(RecvError::Empty))
        );
        assert_eq!(*lease, 2);
        lease.ack();
        assert_eq!(leaser.recv(), Ok(4));
        assert_eq!(named_rx.try_recv(), Ok(3));
        assert_eq!((other_end.recv(), end.recv()), (Ok(6), Ok(vec![7; 7])));
        assert!(matches!(held.try_lock(), Err(LockError::WouldBlock)));
        drop(guard);
        assert_eq!(*held.lock().unwrap(), 2);
        tx.send(5).unwrap();
        assert_eq!(rx.recv(), Ok(5));
        // Nobody takes this process for dead: another one finds what it has.
        let found = |name: String| {
            let opened = Queue::<u64>::builder().open(&name);
            (
                opened.is_ok(),
                *Lock::<u64>::open(&format!("{name}-lock"))
                    .unwrap()
                    .lock()
                    .unwrap(),
            )
        };
        let child = Process::spawn(found, (name.clone(),)).unwrap();
        assert_eq!(child.join().unwrap(), (true, 3));
        drop(tx);
        assert_eq!(rx.recv(), Err(RecvError::Closed));
    });
}

fn take_the_name(name: &str) {
    let ends = Queue::<u64>::builder().capacity(4).create(name);
    say(if ends.is_ok() { "ready" } else { "refused" });
    pause();
}

/// What a process that has lost its proof of life is told, wherever it has to wait or asks for more.
fn is_told(tx: &mut Sender<u64>, rx: &mut multiproc::Receiver<u64>, lock: &Lock<u64>) {
    assert_eq!(rx.recv(), Err(RecvError::Evicted));
    while tx.try_send(1).is_ok() {}
    assert_eq!(tx.send(2), Err(SendError::Evicted(2)));
    let guard = lock.try_lock().unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| matches!(lock.lock(), Err(LockError::Evicted)));
        assert!(other.join().unwrap());
    });
    drop(guard);
}

fn evicted_from_a_name() {
    isolated(|| {
        let name = fresh("evicted");
        let lock_name = format!("{name}-lock");
        let (mut tx, mut rx) = Queue::<u64>::builder().capacity(4).create(&name).unwrap();
        let lock = Lock::create(&lock_name, 1_u64).unwrap();
        let mut refused = Stranger::start("take_the_name", &name);
        refused.says("refused");
        refused.finish();
        assert_eq!(
            rx.recv_timeout(Duration::from_millis(50)),
            Err(RecvError::TimedOut)
        );
        // Closing any descriptor of a file drops the process's locks on it.
        drop(File::open(path(&name)).unwrap());
        drop(File::open(path(&lock_name)).unwrap());
        is_told(&mut tx, &mut rx, &lock);
        // Others see a clean death.
        Stranger::ready("take_the_name", &name).finish();
        // What it leaves is not taken from whoever has the name now.
        let keeper = Stranger::ready("take_the_name", &name);
        drop((tx, rx, lock));
        assert!(path(&name).exists() && !path(&lock_name).exists());
        keeper.finish();
        assert!(!path(&name).exists());
    });
}

/// Closes a descriptor of the file by whose locks the tree knows who lives.
fn lose_the_roster() {
    let all = descriptors();
    let (roster, _) = all
        .iter()
        .find(|(_, target)| target.contains("multiproc:roster"))
        .unwrap();
    // A copy of the descriptor does, as would the file opened anew, which only root can.
    // SAFETY: the number was just found open, and stays open for as long as this process lives.
    let roster = unsafe { BorrowedFd::borrow_raw(*roster as i32) };
    drop(roster.try_clone_to_owned().unwrap());
}

fn evicted_from_the_tree() {
    isolated(|| {
        let (mut tx, mut rx) = Queue::<u64>::new(4).unwrap();
        let lock = Lock::new(1_u64).unwrap();
        assert_eq!(
            rx.recv_timeout(Duration::from_millis(50)),
            Err(RecvError::TimedOut)
        );
        lose_the_roster();
        is_told(&mut tx, &mut rx, &lock);
    });
}

/// Receives one message and the end, and then nothing more.
fn closed_for_good(mut end: PipeEnd<u64, u64>, board: Segment) {
    let word = &board.words()[0];
    end.send(7).unwrap();
    assert_eq!(end.recv_timeout(LONG), Ok(1));
    assert_eq!(end.recv_timeout(LONG), Err(RecvError::Closed));
    word.store(1, Ordering::Relaxed);
    wait_until(LONG, "the other end writes", || {
        word.load(Ordering::Relaxed) == 2
    });
    assert_eq!(end.recv(), Err(RecvError::Closed));
    assert_eq!(end.try_recv(), Err(RecvError::Closed));
    assert_eq!(end.send(8), Err(SendError::Closed(8)));
}

fn evicted_from_a_pipe() {
    isolated(|| {
        let (mut here, there) = Pipe::<u64, u64>::builder().size(1).build().unwrap();
        let board = Segment::new(64).unwrap();
        let word = &board.words()[0];
        let child = Process::spawn(closed_for_good, (there, board.clone())).unwrap();
        assert_eq!(here.recv(), Ok(7));
        here.send(1).unwrap();
        lose_the_roster();
        wait_until(LONG, "it is said to be dead", || {
            word.load(Ordering::Relaxed) == 1
        });
        // Whatever it still sends is never received.
        let _ = here.try_send(2);
        word.store(2, Ordering::Relaxed);
        child.join().unwrap();
        assert_eq!(here.recv(), Err(RecvError::Evicted));
        while here.try_send(3).is_ok() {}
        assert_eq!(here.send(4), Err(SendError::Evicted(4)));
    });
}
