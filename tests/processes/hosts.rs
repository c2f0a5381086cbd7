//! Programs that close, open and limit what they like, with this crate inside.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::Duration;

use multiproc::{
    Frozen, JoinError, Lock, LockError, Pipe, Pool, Queue, QueueError, RecvError, Segment,
    SegmentError, SendError, SpawnError, TaskError,
};
use nix::libc;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use rustix::process::Resource;

use crate::help::{descriptors, isolated, sleep_long, spawn, tests};
use crate::limits::limit;
use crate::strangers::{Stranger, fresh, path, say, strangers};

tests![
    everything_from_3_on_is_closed,
    standard_descriptors_are_closed,
    descriptors_that_are_opened_again,
    an_array_that_somebody_maps_meanwhile,
    a_limit_of_file_size,
    cache_is_free_memory,
    destructors_of_threads_and_of_the_program,
    refused_system_calls_are_named,
    under_valgrind,
];

strangers![
    close_everything,
    destroy,
    without_memfd_create,
    without_pidfd_open,
    use_everything
];

const LONG: Duration = Duration::from_secs(60);

/// Runs what must end; fails if it does not within [`LONG`].
fn ends<R: Send + 'static>(what: &str, act: impl FnOnce() -> R + Send + 'static) -> R {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        // Nobody waits any more when it is too late.
        let _ = tell.send(act());
    });
    let result = told.recv_timeout(LONG);
    result.unwrap_or_else(|_| panic!("{what} does not end"))
}

fn everything_from_3_on_is_closed() {
    for opened in ["nothing", "files", "sockets"] {
        for _ in 0..3 {
            Stranger::start("close_everything", opened).finish();
        }
    }
}

/// What a program has opened, and what must be so at the end.
enum Own {
    File(File),
    Socket(OwnedFd, OwnedFd),
}

/// Uses everything, closes all descriptors from 3 on, opens others, and goes on.
fn close_everything(opened: &str) {
    let lock = Lock::new(1_u64).unwrap();
    let held = Lock::new(2_u64).unwrap();
    let name = fresh("closed");
    let named = Lock::create(&name, 3_u64).unwrap();
    let segment = Segment::new(64).unwrap();
    let frozen = Frozen::from_slice(&[7_u64]).unwrap();
    let (mut tx, mut rx) = Queue::<u64>::new(2).unwrap();
    let (mut a, mut b) = Pipe::<u64, u64>::new().unwrap();
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(|x: u64| x + 1, 0..4_u64).unwrap(), [1, 2, 3, 4]);
    let child = spawn(sleep_long, ()).unwrap();
    let other_child = spawn(sleep_long, ()).unwrap();
    let others: Vec<_> = pool.workers().iter().map(multiproc::Worker::pid).collect();
    let pids = [child.pid(), other_child.pid()];
    let guard = held.lock().unwrap();
    // What is made in advance has been made by then: nothing is in the middle of anything.
    std::thread::sleep(Duration::from_millis(300));

    // SAFETY: what this program has open from 3 on is this crate's.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    assert_eq!(closed, 0);
    let mut own = Vec::new();
    for n in 0..150 {
        match opened {
            "files" => {
                let mut file =
                    nix::sys::memfd::memfd_create(c"own", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
                        .map(File::from)
                        .unwrap();
                file.write_all(b"mine").unwrap();
                own.push(Own::File(file));
            }
            "sockets" if n < 75 => {
                let (here, there) = rustix::net::socketpair(
                    rustix::net::AddressFamily::UNIX,
                    rustix::net::SocketType::SEQPACKET,
                    rustix::net::SocketFlags::NONBLOCK,
                    None,
                )
                .unwrap();
                own.push(Own::Socket(here, there));
            }
            _ => {}
        }
    }
    let numbers = descriptors();

    assert!(matches!(
        Segment::new(8).unwrap_err(),
        SegmentError::Evicted
    ));
    assert!(matches!(
        Lock::new(1_u8).unwrap_err(),
        SegmentError::Evicted
    ));
    assert!(matches!(
        Frozen::from_slice(&[1_u8]).unwrap_err(),
        SegmentError::Evicted
    ));
    assert!(matches!(
        Segment::create(&fresh("more"), 8).unwrap_err(),
        SegmentError::Evicted
    ));
    let grown = tx.try_clone().map(drop);
    assert!(
        matches!(&grown, Err(QueueError::Segment(SegmentError::Evicted))),
        "{grown:?}"
    );
    assert!(matches!(spawn(sleep_long, ()), Err(SpawnError::Evicted)));
    assert!(child.kill().is_err() && child.kill_tree().is_err());
    assert!(matches!(child.join_timeout(LONG), Err(JoinError::Evicted)));
    assert!(matches!(
        ends("join", move || child.join()),
        Err(JoinError::Evicted)
    ));
    // What is in memory is still there.
    assert_eq!(*frozen, [7]);
    assert_eq!(segment.words().len(), 8);
    // No wait is without end.
    assert_eq!(ends("recv", move || rx.recv()), Err(RecvError::Evicted));
    tx.try_send(1).unwrap_or_default();
    tx.try_send(2).unwrap_or_default();
    let sent = ends("send", move || (tx.send(3), tx.send(4)));
    assert!(
        matches!(sent.0, Err(SendError::Evicted(_) | SendError::Closed(_))),
        "{sent:?}"
    );
    assert_eq!(ends("pipe", move || b.recv()), Err(RecvError::Evicted));
    a.try_send(1).unwrap_or_default();
    drop(a);
    let waits = lock.clone();
    ends("lock", move || {
        // Free, so that nothing is asked.
        let first = waits.lock().is_ok();
        (first, named.lock().is_ok())
    });
    let waits = held.clone();
    let refused = ends("held lock", move || {
        matches!(waits.lock(), Err(LockError::Evicted))
    });
    assert!(refused);
    drop(guard);
    let mapped = ends("map", move || {
        let mapped = pool.map(|x: u64| x, 0..4_u64);
        drop(pool);
        mapped
    });
    assert!(
        matches!(mapped, Err(TaskError::PoolBroken { .. })),
        "{mapped:?}"
    );
    ends("drop", move || {
        drop((other_child, lock, held, segment, frozen))
    });

    // Whoever is evicted leaves its name to those who can prove it dead.
    std::fs::remove_file(path(&name)).unwrap();
    // All that this program has opened is as it was.
    let now = descriptors();
    let is_other = |all: &[(u32, String)], one: &&(u32, String)| !all.contains(one);
    let changed: Vec<_> = numbers.iter().filter(|one| is_other(&now, one)).collect();
    assert_eq!(changed, Vec::<&(u32, String)>::new());
    for own in &mut own {
        match own {
            Own::File(file) => {
                let mut text = String::new();
                file.rewind().unwrap();
                file.read_to_string(&mut text).unwrap();
                assert_eq!(text, "mine");
                // SAFETY: only whether it has locks is asked.
                let mut lock: libc::flock = unsafe { std::mem::zeroed() };
                lock.l_type = libc::F_WRLCK as _;
                // SAFETY: as above.
                let asked =
                    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
                assert_eq!((asked, i32::from(lock.l_type)), (0, libc::F_UNLCK));
            }
            Own::Socket(here, there) => {
                for end in [here, there] {
                    let unread = rustix::io::read(end, &mut [0_u8; 64]);
                    assert_eq!(unread, Err(rustix::io::Errno::AGAIN));
                }
            }
        }
    }
    // Nobody else was signalled; they have ended since their lifelines are closed, or end with this process.
    for pid in others.into_iter().chain(pids) {
        // SAFETY: they are this process's own children, which nobody else reaps.
        unsafe { libc::kill(pid as i32, libc::SIGKILL) };
        // SAFETY: as above.
        unsafe { libc::waitpid(pid as i32, std::ptr::null_mut(), 0) };
    }
}

fn standard_descriptors_are_closed() {
    isolated(|| {
        fn answer(value: u64, segment: Segment, table: Frozen<u64>) -> (u64, Segment) {
            segment.words()[0].store(table[0], std::sync::atomic::Ordering::Relaxed);
            (value + 1, segment)
        }
        /// Those of this crate below 3.
        fn low() -> Vec<(u32, String)> {
            let mut all = descriptors();
            all.retain(|(number, target)| *number < 3 && target != "/dev/null");
            all
        }
        for number in 0..3 {
            // SAFETY: nothing of this process is in need of them.
            unsafe { libc::close(number) };
        }
        let segment = Segment::new(64).unwrap();
        let name = fresh("low");
        let named = Lock::create(&name, 3_u64).unwrap();
        let frozen = Frozen::build(4096, |items: &mut [u64]| items.fill(9)).unwrap();
        let (tx, mut rx) = Queue::<(Segment, Frozen<u64>)>::new(4).unwrap();
        let _other = tx.try_clone().unwrap();
        let pipe = Pipe::<u64, u64>::new().unwrap();
        let listener = Pipe::<u64, u64>::listen(&fresh("low-pipe")).unwrap();
        assert_eq!(low(), []);
        for _ in 0..3 {
            let child = spawn(answer, (1_u64, segment.clone(), frozen.clone())).unwrap();
            assert_eq!(low(), []);
            let (value, back) = child.join().unwrap();
            assert_eq!(value, 2);
            assert_eq!(
                back.words()[0].load(std::sync::atomic::Ordering::Relaxed),
                9
            );
            assert_eq!(low(), []);
        }
        let pool = Pool::new(2).unwrap();
        assert_eq!(pool.map(|x: u64| x + 1, 0..3_u64).unwrap(), [1, 2, 3]);
        // Handles that arrive.
        let sender = spawn(
            |mut tx: multiproc::Sender<(Segment, Frozen<u64>)>| {
                let own = (
                    Segment::new(8).unwrap(),
                    Frozen::from_slice(&[1_u64]).unwrap(),
                );
                tx.send(own).unwrap();
                sleep_long();
            },
            (tx.try_clone().unwrap(),),
        )
        .unwrap();
        let arrived = rx.recv_timeout(LONG).unwrap();
        assert_eq!(arrived.1[0], 1);
        assert_eq!(low(), []);
        sender.kill().unwrap();
        let _ = sender.join();
        drop((pool, named, pipe, listener, tx));
        assert_eq!(low(), []);
    });
}

/// Enters a lock when it is told to, and gives what came of it.
fn enter(lock: Lock<u64>, mut when: multiproc::PipeEnd<(), ()>) -> String {
    when.recv().unwrap();
    match lock.lock_timeout(Duration::from_millis(200)) {
        Ok(_) => "entered".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn descriptors_that_are_opened_again() {
    isolated(|| {
        let lock = Lock::new(1_u64).unwrap();
        let guard = lock.lock().unwrap();
        let (mut here, there) = Pipe::<(), ()>::new().unwrap();
        let child = spawn(enter, (lock.clone(), there)).unwrap();
        let roster = descriptors()
            .into_iter()
            .find(|(_, target)| target.contains("multiproc:roster"))
            .unwrap();
        if nix::unistd::geteuid().is_root() {
            // Root opens whatever it likes; another user does here what a program does that is not root.
            nix::unistd::setresgid(65_534.into(), 65_534.into(), 65_534.into()).unwrap();
            nix::unistd::setresuid(65_534.into(), 65_534.into(), 65_534.into()).unwrap();
            nix::sys::prctl::set_dumpable(true).unwrap();
        }
        for (number, _) in descriptors() {
            let path = format!("/proc/self/fd/{number}");
            // Refused where it may not be opened, as it should be with one of them.
            let opened = File::open(&path).is_ok();
            assert!(!opened || number != roster.0, "the roster can be opened");
            let _ = File::options().read(true).write(true).open(&path);
        }
        here.send(()).unwrap();
        let said = child.join().unwrap();
        assert_eq!(said, "the lock was held all the time allowed");
        drop(guard);
    });
}

fn an_array_that_somebody_maps_meanwhile() {
    isolated(|| {
        fn maps(what: &str) -> usize {
            let mut mapped = 0;
            for (number, target) in descriptors() {
                if !target.contains(what) {
                    continue;
                }
                let path = format!("/proc/self/fd/{number}");
                let Ok(file) = File::options().read(true).write(true).open(path) else {
                    continue;
                };
                // SAFETY: a new mapping, which nothing uses and which stays.
                let map = unsafe {
                    mmap(
                        std::ptr::null_mut(),
                        4096,
                        ProtFlags::READ | ProtFlags::WRITE,
                        MapFlags::SHARED,
                        &file,
                        0,
                    )
                };
                map.unwrap();
                mapped += 1;
            }
            mapped
        }
        for len in [100, 100_000, 2_000_000] {
            let mut mapped = 0;
            let frozen = Frozen::build(len, |items: &mut [u64]| {
                mapped = maps("multiproc:sealed");
                for (n, item) in items.iter_mut().enumerate() {
                    *item = n as u64;
                }
            })
            .unwrap();
            if nix::unistd::geteuid().is_root() {
                assert!(mapped > 0, "there was nothing to map");
            } else {
                assert_eq!(mapped, 0, "it can be opened for writing");
            }
            assert!(frozen.iter().copied().eq(0..len as u64));
            let sum = |items: Frozen<u64>| items.iter().sum::<u64>();
            let child = spawn(sum, (frozen,)).unwrap();
            assert_eq!(child.join().unwrap(), (len as u64 - 1) * len as u64 / 2);
        }
    });
}

fn a_limit_of_file_size() {
    const LIMIT: u64 = 1 << 20;
    isolated(|| {
        let (tx, _rx) = Queue::<[u64; 32]>::builder()
            .capacity(256)
            .senders(64)
            .build()
            .unwrap();
        let pool = Pool::new(1).unwrap();
        limit(Resource::Fsize, LIMIT);
        let is_named = |error: SegmentError| match &error {
            SegmentError::FileTooLarge { limit: LIMIT, .. } => {
                assert!(error.to_string().contains("RLIMIT_FSIZE"), "{error}");
            }
            other => panic!("{other:?}"),
        };
        let large = 4 << 20;
        let name = fresh("file-size");
        is_named(Segment::new(large).unwrap_err());
        is_named(Segment::create(&name, large).unwrap_err());
        is_named(Frozen::<u8>::build(large, |_| ()).unwrap_err());
        is_named(Frozen::from_slice(&vec![1_u8; large]).unwrap_err());
        is_named(Frozen::from_iter((0..large as u64).map(|n| n as u8)).unwrap_err());
        match Queue::<[u64; 32]>::new(100_000).unwrap_err() {
            QueueError::Segment(error) => is_named(error),
            other => panic!("{other:?}"),
        }
        let sizes = |bytes: Vec<u8>| bytes.len();
        let started = spawn(sizes, (vec![0_u8; large],)).map(|child| child.join());
        let text = match started {
            Err(error) => std::error::Error::source(&error).unwrap().to_string(),
            Ok(other) => panic!("{other:?}"),
        };
        assert!(text.contains("RLIMIT_FSIZE"), "{text}");
        // A result that is too large is an error of the child's, not a signal.
        let fills = |len: usize| vec![1_u8; len];
        match spawn(fills, (large,)).unwrap().join() {
            Err(JoinError::Signalled(signal)) => panic!("ended by signal {signal}"),
            Ok(bytes) => panic!("{} bytes", bytes.len()),
            Err(_) => {}
        }
        let sum = pool.apply(sizes, (vec![0_u8; 64 << 20],));
        assert!(sum.is_err() || sum.is_ok_and(|sum| sum == 64 << 20));
        // What fits still works.
        drop(Segment::new(1000).unwrap());
        drop(Segment::create(&name, 1000).unwrap());
        drop(tx.try_clone().unwrap());
        assert_eq!(
            spawn(sizes, (vec![0_u8; 100],)).unwrap().join().unwrap(),
            100
        );
    });
}

/// A control group of memory with that limit, if one can be made here.
fn control_group(bytes: u64) -> Result<std::path::PathBuf, String> {
    let name = format!("multiproc-test-{}", std::process::id());
    let tries = [
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ];
    let mut refused = String::new();
    for (root, file) in tries {
        let group = std::path::Path::new(root).join(&name);
        let made = std::fs::create_dir(&group)
            .and_then(|()| std::fs::write(group.join(file), bytes.to_string()));
        match made {
            Ok(()) => return Ok(group),
            Err(error) => {
                let _ = std::fs::remove_dir(&group);
                refused += &format!("{}: {error}; ", group.display());
            }
        }
    }
    Err(refused)
}

fn cache_is_free_memory() {
    const GROUP: u64 = 96 << 20;
    let group = match control_group(GROUP) {
        Ok(group) => group,
        Err(refused) => {
            eprintln!("not checked: cache in a control group, for none can be made: {refused}");
            return;
        }
    };
    let child = spawn(
        |group: std::path::PathBuf| {
            std::fs::write(group.join("cgroup.procs"), "0").unwrap();
            // The group's memory is full of what is read from a file.
            let path = std::env::temp_dir().join(format!("multiproc-cache-{}", std::process::id()));
            let mut file = File::create(&path).unwrap();
            let some = vec![1_u8; 1 << 20];
            for _ in 0..160 {
                file.write_all(&some).unwrap();
            }
            file.sync_all().unwrap();
            let _ = std::io::copy(&mut File::open(&path).unwrap(), &mut std::io::sink());
            let segment = Segment::new(40 << 20).map(|segment| segment.len());
            let frozen = Frozen::<u8>::build(20 << 20, |items| items.fill(1)).map(|items| items[5]);
            std::fs::remove_file(&path).unwrap();
            let of_text = |error: SegmentError| error.to_string();
            let impossible = Segment::new(200 << 20).map(|_| ()).map_err(of_text);
            (
                segment.map_err(of_text),
                frozen.map_err(of_text),
                impossible,
            )
        },
        (group.clone(),),
    )
    .unwrap();
    let said = child.join();
    let end = std::time::Instant::now() + LONG;
    while std::fs::remove_dir(&group).is_err() && std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (segment, frozen, impossible) = said.unwrap();
    assert_eq!(segment, Ok(40 << 20));
    assert_eq!(frozen, Ok(1));
    assert!(impossible.is_err_and(|error| error.contains("no space")));
}

fn destructors_of_threads_and_of_the_program() {
    let mut stranger = Stranger::start("destroy", "");
    let mut said = BTreeMap::<String, usize>::new();
    loop {
        let line = stranger.line();
        if line.is_empty() {
            break;
        }
        *said.entry(line).or_default() += 1;
    }
    stranger.finish();
    let expected = [("at exit".to_owned(), 1), ("thread".to_owned(), 1)];
    assert_eq!(said, BTreeMap::from(expected));
}

/// One of everything, used by whoever is destroyed.
struct Everything {
    pool: Pool,
    lock: Lock<u64>,
    segment: Segment,
    frozen: Frozen<u64>,
}

static EVERYTHING: OnceLock<Everything> = OnceLock::new();

impl Everything {
    fn get() -> &'static Everything {
        EVERYTHING.get_or_init(|| Everything {
            pool: Pool::new(2).unwrap(),
            lock: Lock::new(0).unwrap(),
            segment: Segment::new(64).unwrap(),
            frozen: Frozen::from_slice(&[1_u64, 2]).unwrap(),
        })
    }

    fn use_all(&self) {
        *self.lock.lock().unwrap() += 1;
        type Handles = (Segment, Frozen<u64>);
        let (mut tx, mut rx) = Queue::<Handles>::new(4).unwrap();
        tx.send((self.segment.clone(), self.frozen.clone()))
            .unwrap();
        assert_eq!(rx.recv().unwrap().1[1], 2);
        let (mut a, mut b) = Pipe::<Vec<Handles>, u64>::new().unwrap();
        a.send(vec![(self.segment.clone(), self.frozen.clone())])
            .unwrap();
        assert_eq!(b.recv().unwrap().len(), 1);
        let name = fresh("destroyed");
        assert_eq!(*Lock::create(&name, 5_u64).unwrap().lock().unwrap(), 5);
        assert_eq!(self.pool.apply(|x: u64| x + 1, (1,)).unwrap(), 2);
        assert_eq!(
            self.pool.map(|x: u64| x + 1, 0..100_u64).unwrap().len(),
            100
        );
        let frozen = self.frozen.clone();
        let with = self.pool.with(frozen);
        assert_eq!(
            with.map(|all: &Frozen<u64>, n: u64| all[1] + n, 0..2)
                .unwrap(),
            [2, 3]
        );
        assert_eq!(self.pool.imap(|x: u64| x, 0..9_u64).count(), 9);
        let task = self.pool.apply_async(|x: u64| x + 1, (1,));
        assert_eq!(task.get().unwrap(), 2);
        let child = spawn(|x: u64, _: Frozen<u64>| x + 1, (1, self.frozen.clone())).unwrap();
        assert_eq!(child.join().unwrap(), 2);
    }
}

struct Last;

impl Drop for Last {
    fn drop(&mut self) {
        Everything::get().use_all();
        say("thread");
    }
}

fn destroy(_: &str) {
    thread_local! {
        static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
    }
    extern "C" fn at_exit() {
        Everything::get().use_all();
        say("at exit");
    }
    Everything::get();
    let thread = std::thread::spawn(|| {
        // First, so that whatever of this crate has a destructor is destroyed before it.
        LAST.set(Some(Last));
        Everything::get().use_all();
    });
    thread.join().unwrap();
    LAST.set(None);
    Everything::get().use_all();
    // SAFETY: the function is there as long as the program.
    assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
}

fn refused_system_calls_are_named() {
    Stranger::start("without_memfd_create", "").finish();
    Stranger::start("without_pidfd_open", "").finish();
}

/// From now on this process may not make that system call.
fn forbid(call: libc::c_long) {
    let load = libc::sock_filter {
        code: (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let is_it = libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf: 1,
        k: call as u32,
    };
    let answer = |k| libc::sock_filter {
        code: (libc::BPF_RET | libc::BPF_K) as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let refuse = answer(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let mut program = [load, is_it, refuse, answer(libc::SECCOMP_RET_ALLOW)];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the filter is valid during the call, and the kernel copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let set = libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        );
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }
}

fn is_named(call: &str, text: String) {
    let is_named = text.contains(call) && text.contains("seccomp");
    assert!(is_named, "{text}");
}

fn without_memfd_create(_: &str) {
    forbid(libc::SYS_memfd_create);
    let call = "memfd_create";
    is_named(call, Segment::new(8).unwrap_err().to_string());
    is_named(call, Lock::new(1_u8).unwrap_err().to_string());
    is_named(call, Frozen::from_slice(&[1_u8]).unwrap_err().to_string());
    is_named(call, Queue::<u8>::new(1).unwrap_err().to_string());
    is_named(call, Pipe::<u8, u8>::new().unwrap_err().to_string());
    is_named(call, spawn(sleep_long, ()).unwrap_err().to_string());
    is_named(call, Pool::new(1).unwrap_err().to_string());
}

fn without_pidfd_open(_: &str) {
    forbid(libc::SYS_pidfd_open);
    drop(Segment::new(8).unwrap());
    is_named("pidfd_open", spawn(sleep_long, ()).unwrap_err().to_string());
    is_named("pidfd_open", Pool::new(1).unwrap_err().to_string());
}

/// A first use, of everything.
fn use_everything(_: &str) {
    let lock = Lock::new(1_u64).unwrap();
    assert_eq!(*lock.lock().unwrap(), 1);
    let frozen = Frozen::from_slice(&[3_u64]).unwrap();
    assert_eq!(frozen[0], 3);
    let (mut tx, mut rx) = Queue::<u64>::new(2).unwrap();
    tx.send(1).unwrap();
    assert_eq!(rx.recv(), Ok(1));
    assert_eq!(
        rx.recv_timeout(Duration::from_millis(5)),
        Err(RecvError::TimedOut)
    );
    let (mut a, mut b) = Pipe::<u64, u64>::new().unwrap();
    a.send(1).unwrap();
    assert_eq!(b.recv(), Ok(1));
    drop(Segment::create(&fresh("valgrind"), 8).unwrap());
    say("used");
}

fn under_valgrind() {
    if let Err(error) = Command::new("valgrind").arg("--version").output() {
        eprintln!("not checked: use under valgrind, which cannot be run: {error}");
        return;
    }
    let mut command = Command::new("valgrind");
    command.args(["-q", "--trace-children=no", "--tool=none"]);
    command.arg(std::env::current_exe().unwrap());
    let mut stranger = Stranger::start_by(&mut command, "use_everything", "");
    stranger.says("used");
    stranger.finish();
}
