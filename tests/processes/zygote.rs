//! What is particular to processes that a zygote makes.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{
    Child, Function, JoinError, Lock, Process, Queue, Segment, Sender, SpawnError, StartMethod,
    Stdio, active_children,
};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::help::{self, isolated, sleep_long, tests, wait_until};

tests![
    they_are_our_children,
    a_zygote_comes_with_the_second,
    spares_are_not_active,
    aborts_end_the_child_alone,
    the_library_knows_the_thread,
    mutexes_of_the_c_library,
    threads_and_their_locks,
    statuses_are_taken_by_anyone,
    randomness_is_their_own,
    participants_are_their_own,
    the_environment_of_the_moment,
    the_working_directory_of_the_moment,
    the_standard_streams_of_the_moment,
    other_surroundings_make_another_zygote,
    nothing_is_held_open,
    a_killed_zygote_is_replaced,
    an_interrupted_zygote_goes_on,
    a_stopped_zygote_keeps_nobody,
    both_kinds_of_processes_share,
    killed_spares_are_passed_over,
    a_zygote_killed_at_any_moment,
    nobody_outlives_the_parent,
    those_who_cut_their_ties,
    the_tree_is_killed_with_its_zygote,
    sixteen_threads_of_malloc,
    titles_and_arguments,
];

pub(crate) fn by_zygote<F: Function<(), Output: multiproc::Message>>(
    function: F,
) -> Child<F::Output> {
    Process::builder()
        .start_method(StartMethod::Zygote)
        .spawn(function, ())
        .unwrap()
}

/// The zygote of this process, and how many spares wait.
pub(crate) fn zygote() -> Option<(Pid, usize)> {
    let all: Vec<u32> = help::all_children()
        .into_iter()
        .filter(|pid| help::is_zygote(*pid))
        .collect();
    let named = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name == format!("zygote-{pid}\n"))
    };
    let zygotes: Vec<&u32> = all.iter().filter(|pid| named(pid)).collect();
    assert!(zygotes.len() <= 1, "{zygotes:?}");
    let zygote = zygotes.first()?;
    Some((Pid::from_raw(**zygote as i32), all.len() - 1))
}

/// Waits until the zygote has made its spares.
pub(crate) fn settled() -> Pid {
    wait_until(Duration::from_secs(20), "two spares wait", || {
        zygote().is_some_and(|(_, spares)| spares == 2)
    });
    zygote().unwrap().0
}

fn they_are_our_children() {
    isolated(|| {
        let parent = std::process::id();
        for _ in 0..5 {
            let seen = by_zygote(|| {
                let parent = rustix::process::getppid().map(|pid| pid.as_raw_pid());
                (std::process::id(), parent)
            });
            let pid = seen.pid();
            assert_eq!(seen.join().unwrap(), (pid, Some(parent as i32)));
        }
    });
}

fn a_zygote_comes_with_the_second() {
    isolated(|| {
        Process::spawn(|| (), ()).unwrap().join().unwrap();
        thread::sleep(Duration::from_millis(100));
        assert_eq!(zygote(), None);
        Process::spawn(|| (), ()).unwrap().join().unwrap();
        let zygote = settled();
        let before = help::all_children();
        let third = Process::spawn(sleep_long, ()).unwrap();
        assert!(before.contains(&third.pid()), "it was a spare");
        drop(third);
        assert_eq!(settled(), zygote);
    });
    isolated(|| {
        for _ in 0..5 {
            let executed = Process::builder().start_method(StartMethod::Exec);
            executed.spawn(|| (), ()).unwrap().join().unwrap();
        }
        thread::sleep(Duration::from_millis(100));
        assert_eq!(zygote(), None);
    });
}

fn spares_are_not_active() {
    isolated(|| {
        by_zygote(|| ()).join().unwrap();
        settled();
        assert_eq!(active_children(), []);
        let child = by_zygote(sleep_long);
        let active: Vec<u32> = active_children().iter().map(|one| one.pid()).collect();
        assert_eq!(active, [child.pid()]);
    });
}

fn aborts_end_the_child_alone() {
    isolated(|| {
        let zygote = {
            by_zygote(|| ()).join().unwrap();
            settled()
        };
        let quiet = || {
            Process::builder()
                .start_method(StartMethod::Zygote)
                .stderr(Stdio::Null)
        };
        for _ in 0..20 {
            let aborted = quiet().spawn(|| std::process::abort(), ()).unwrap();
            let error: JoinError = Child::<()>::join(aborted).unwrap_err();
            assert!(matches!(error, JoinError::Signalled(6)), "{error:?}");
            let raised = quiet()
                .spawn(|| raise(Signal::SIGUSR1).unwrap(), ())
                .unwrap();
            let error = raised.join().unwrap_err();
            assert!(matches!(error, JoinError::Signalled(10)), "{error:?}");
            // A panic while panicking aborts, as every panic does in a program built so.
            let twice = || {
                struct Again;
                impl Drop for Again {
                    fn drop(&mut self) {
                        panic!("again");
                    }
                }
                let _again = Again;
                panic!("once");
            };
            let error = Child::<()>::join(quiet().spawn(twice, ()).unwrap()).unwrap_err();
            assert!(matches!(error, JoinError::Signalled(6)), "{error:?}");
            let exits = quiet().spawn(|| std::process::exit(7), ()).unwrap();
            let error = Child::<()>::join(exits).unwrap_err();
            assert!(matches!(error, JoinError::Exited(7)), "{error:?}");
        }
        assert_eq!(settled(), zygote, "it has come to no harm");
    });
}

fn the_library_knows_the_thread() {
    // What `raise` and mutexes of the checking kinds use.
    fn number_in_library() -> i32 {
        let mut clock = 0;
        // SAFETY: the calling thread lives; the clock is written to a place of its type.
        unsafe { nix::libc::pthread_getcpuclockid(nix::libc::pthread_self(), &raw mut clock) };
        !(clock >> 3)
    }
    for _ in 0..10 {
        let child = by_zygote(|| {
            let here = (number_in_library(), rustix::thread::gettid().as_raw_pid());
            let there =
                thread::spawn(|| (number_in_library(), rustix::thread::gettid().as_raw_pid()));
            [here, there.join().unwrap()]
        });
        let pid = child.pid() as i32;
        let [here, there] = child.join().unwrap();
        assert_eq!(here, (pid, pid));
        assert_eq!(there.0, there.1);
    }
}

fn mutexes_of_the_c_library() {
    use nix::libc::{
        EBUSY, EDEADLK, EOWNERDEAD, EPERM, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_RECURSIVE,
        PTHREAD_MUTEX_ROBUST, c_int, pthread_mutex_consistent, pthread_mutex_init,
        pthread_mutex_lock, pthread_mutex_t, pthread_mutex_trylock, pthread_mutex_unlock,
        pthread_mutexattr_init, pthread_mutexattr_setrobust, pthread_mutexattr_settype,
        pthread_mutexattr_t,
    };
    struct Raw(std::cell::UnsafeCell<pthread_mutex_t>);
    // SAFETY: a mutex is for several threads.
    unsafe impl Send for Raw {}
    // SAFETY: as above.
    unsafe impl Sync for Raw {}
    fn mutex(kind: c_int, robust: bool) -> &'static Raw {
        // SAFETY: both are plain data, set up by the calls, and the mutex lives for ever where it is.
        unsafe {
            let raw: &'static Raw = Box::leak(Box::new(Raw(std::mem::zeroed())));
            let mut attributes: pthread_mutexattr_t = std::mem::zeroed();
            assert_eq!(pthread_mutexattr_init(&mut attributes), 0);
            assert_eq!(pthread_mutexattr_settype(&mut attributes, kind), 0);
            if robust {
                let set = pthread_mutexattr_setrobust(&mut attributes, PTHREAD_MUTEX_ROBUST);
                assert_eq!(set, 0);
            }
            assert_eq!(pthread_mutex_init(raw.0.get(), &attributes), 0);
            raw
        }
    }
    fn check() {
        // SAFETY: all of them are set up and live for ever.
        let lock = |raw: &Raw| unsafe { pthread_mutex_lock(raw.0.get()) };
        // SAFETY: the mutex lives, was initialised statically and is not moved while it is used.
        let try_lock = |raw: &Raw| unsafe { pthread_mutex_trylock(raw.0.get()) };
        // SAFETY: as above, and this thread has it locked.
        let unlock = |raw: &Raw| unsafe { pthread_mutex_unlock(raw.0.get()) };
        let checking = mutex(PTHREAD_MUTEX_ERRORCHECK, false);
        assert_eq!((lock(checking), lock(checking)), (0, EDEADLK));
        assert_eq!(
            thread::spawn(move || unlock(checking)).join().unwrap(),
            EPERM
        );
        assert_eq!(
            thread::spawn(move || try_lock(checking)).join().unwrap(),
            EBUSY
        );
        assert_eq!((unlock(checking), unlock(checking)), (0, EPERM));
        let recursive = mutex(PTHREAD_MUTEX_RECURSIVE, false);
        assert_eq!((lock(recursive), lock(recursive)), (0, 0));
        assert_eq!(
            thread::spawn(move || try_lock(recursive)).join().unwrap(),
            EBUSY
        );
        assert_eq!((unlock(recursive), unlock(recursive)), (0, 0));
        assert_eq!(
            thread::spawn(move || try_lock(recursive)).join().unwrap(),
            0
        );
        let robust = mutex(PTHREAD_MUTEX_ERRORCHECK, true);
        assert_eq!(thread::spawn(move || lock(robust)).join().unwrap(), 0);
        assert_eq!(lock(robust), EOWNERDEAD);
        // SAFETY: as above.
        assert_eq!(unsafe { pthread_mutex_consistent(robust.0.get()) }, 0);
        assert_eq!((lock(robust), unlock(robust)), (EDEADLK, 0));
        // The main thread's own list of robust mutexes is known to the kernel.
        assert_eq!((lock(robust), unlock(robust)), (0, 0));
    }
    by_zygote(check).join().unwrap();
    by_zygote(|| by_zygote(check).join().unwrap())
        .join()
        .unwrap();
}

fn threads_and_their_locks() {
    fn check() -> u64 {
        let count = Arc::new(Mutex::new(0_u64));
        let ready = Arc::new((Mutex::new(false), Condvar::new()));
        let barrier = Arc::new(Barrier::new(9));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let (count, ready, barrier) = (count.clone(), ready.clone(), barrier.clone());
                thread::spawn(move || {
                    barrier.wait();
                    let (is_ready, changed) = &*ready;
                    let guard = is_ready.lock().unwrap();
                    drop(changed.wait_while(guard, |is_ready| !*is_ready).unwrap());
                    for _ in 0..1000 {
                        *count.lock().unwrap() += 1;
                    }
                    thread::park_timeout(Duration::from_millis(1));
                })
            })
            .collect();
        barrier.wait();
        *ready.0.lock().unwrap() = true;
        ready.1.notify_all();
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(catch_unwind(|| std::panic::resume_unwind(Box::new(1))).is_err());
        *count.lock().unwrap()
    }
    for _ in 0..10 {
        assert_eq!(by_zygote(check).join().unwrap(), 8000);
    }
}

fn statuses_are_taken_by_anyone() {
    isolated(|| {
        // As with every other child, whoever asks the system first has the answer.
        let child = by_zygote(|| std::process::exit(3));
        let pid = Pid::from_raw(child.pid() as i32);
        let seen = waitpid(pid, None);
        let error = Child::<()>::join(child).unwrap_err();
        match seen {
            Ok(status) => {
                assert_eq!(status, WaitStatus::Exited(pid, 3));
                assert!(matches!(error, JoinError::Unknown), "{error:?}");
            }
            Err(_) => assert!(matches!(error, JoinError::Exited(3)), "{error:?}"),
        }
        // A living one is there to be waited for.
        let child = by_zygote(sleep_long);
        let pid = Pid::from_raw(child.pid() as i32);
        let status = waitpid(pid, Some(WaitPidFlag::WNOHANG)).unwrap();
        assert_eq!(status, WaitStatus::StillAlive);
    });
}

fn randomness_is_their_own() {
    let numbers: Vec<u64> = (0..8)
        .map(|_| by_zygote(|| RandomState::new().hash_one(1)).join().unwrap())
        .collect();
    let different: BTreeSet<u64> = numbers.iter().copied().collect();
    assert_eq!(different.len(), numbers.len(), "{numbers:?}");
}

fn participants_are_their_own() {
    // Two living children of one zygote exclude each other, and a dead one is seen to be dead.
    fn count(lock: Lock<u64>, die: bool) {
        for _ in 0..200 {
            let mut guard = lock.lock().unwrap();
            let before = *guard;
            thread::yield_now();
            *guard = before + 1;
        }
        if die {
            let _guard = lock.lock().unwrap();
            raise(Signal::SIGKILL).unwrap();
        }
    }
    let lock = Lock::new(0_u64).unwrap();
    let start = |die: bool| {
        Process::builder()
            .start_method(StartMethod::Zygote)
            .spawn(count, (lock.clone(), die))
            .unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| start(false)).collect();
    for child in children {
        child.join().unwrap();
    }
    assert_eq!(*lock.lock().unwrap(), 800);
    assert!(matches!(start(true).join(), Err(JoinError::Signalled(9))));
    match lock.lock_timeout(Duration::from_secs(10)) {
        Err(multiproc::LockError::Abandoned(_)) => drop(lock.recover().unwrap()),
        other => panic!("{other:?}"),
    }
}

fn the_environment_of_the_moment() {
    isolated(|| {
        by_zygote(|| ()).join().unwrap();
        settled();
        // SAFETY: the threads of this process do not look at the environment now.
        unsafe {
            std::env::set_var("MULTIPROC_TEST_LATER", "set");
            std::env::remove_var("PATH");
        }
        let look = || -> HashMap<String, String> { std::env::vars().collect() };
        for _ in 0..4 {
            assert_eq!(by_zygote(look).join().unwrap(), look());
        }
        let child = Process::builder()
            .env("MULTIPROC_TEST_OWN", "own")
            .env_remove("MULTIPROC_TEST_LATER")
            .spawn(look, ());
        let mut wanted = look();
        wanted.remove("MULTIPROC_TEST_LATER");
        wanted.insert("MULTIPROC_TEST_OWN".into(), "own".into());
        assert_eq!(child.unwrap().join().unwrap(), wanted);
    });
}

fn the_working_directory_of_the_moment() {
    isolated(|| {
        by_zygote(|| ()).join().unwrap();
        settled();
        let here = || std::env::current_dir().unwrap().display().to_string();
        for directory in ["/proc", "/", "/usr"] {
            std::env::set_current_dir(directory).unwrap();
            assert_eq!(by_zygote(here).join().unwrap(), directory);
        }
        let child = Process::builder().current_dir("lib").spawn(here, ());
        assert!(child.unwrap().join().unwrap().ends_with("lib"));
    });
}

fn the_standard_streams_of_the_moment() {
    use std::io::{Read, Write};
    isolated(|| {
        by_zygote(|| ()).join().unwrap();
        settled();
        let (mut read, write) = help::pipe();
        rustix::stdio::dup2_stdout(&write).unwrap();
        drop(write);
        by_zygote(|| print!("to the new place")).join().unwrap();
        // Nobody holds the pipe any more: neither the zygote nor a spare.
        rustix::stdio::dup2_stdout(std::fs::File::open("/dev/null").unwrap()).unwrap();
        let mut said = String::new();
        read.read_to_string(&mut said).unwrap();
        assert_eq!(said, "to the new place");
        std::io::stdout().flush().unwrap();
    });
}

fn other_surroundings_make_another_zygote() {
    use rustix::fs::Mode;
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    isolated(|| {
        by_zygote(|| ()).join().unwrap();
        let first = settled();
        rustix::process::umask(Mode::from_raw_mode(0o077));
        let umask = || {
            let old = rustix::process::umask(Mode::empty());
            old.as_raw_mode()
        };
        assert_eq!(by_zygote(umask).join().unwrap(), 0o077);
        let second = settled();
        assert_ne!(first, second);
        let maximum = getrlimit(Resource::Nofile).maximum;
        let current = Some(200);
        setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
        let files = || getrlimit(Resource::Nofile).current;
        // By itself: the first by execution, and a zygote with the second.
        for _ in 0..10 {
            assert_eq!(Process::spawn(files, ()).unwrap().join().unwrap(), current);
            thread::sleep(Duration::from_millis(5));
        }
        assert_ne!(settled(), second);
    });
}

fn nothing_is_held_open() {
    isolated(|| {
        let always = help::inheritable();
        let (read, write) = help::pipe();
        rustix::io::fcntl_setfd(&write, rustix::io::FdFlags::empty()).unwrap();
        by_zygote(|| ()).join().unwrap();
        settled();
        let inside = by_zygote(help::descriptors).join().unwrap();
        // Standard streams, control socket, lifeline, the two of the tree, and the way to its parent's inbox.
        assert!(inside.len() <= 8, "{inside:?}, {always}");
        drop(write);
        let (tell, told) = std::sync::mpsc::channel();
        thread::spawn(move || tell.send(std::io::read_to_string(read)));
        let ended = told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(ended.unwrap(), "");
    });
}

fn a_killed_zygote_is_replaced() {
    isolated(|| {
        by_zygote(|| ()).join().unwrap();
        for _ in 0..10 {
            let zygote = settled();
            let child = by_zygote(sleep_long);
            kill(zygote, Signal::SIGKILL).unwrap();
            // The next come from its spares, from another zygote, or by execution.
            for n in 0..6_u32 {
                let next = Process::spawn(|n: u32| n, (n,)).unwrap();
                assert_eq!(next.join().unwrap(), n);
            }
            assert!(child.is_alive(), "it has lost nothing with the zygote");
            child.kill().unwrap();
            assert!(matches!(child.join(), Err(JoinError::Signalled(9))));
            wait_until(Duration::from_secs(10), "it is reaped and replaced", || {
                kill(zygote, None).is_err() && settled() != zygote
            });
        }
    });
}

fn an_interrupted_zygote_goes_on() {
    isolated(|| {
        by_zygote(|| ()).join().unwrap();
        let zygote = settled();
        for _ in 0..10 {
            kill(zygote, Signal::SIGINT).unwrap();
            assert_eq!(by_zygote(|| 1).join().unwrap(), 1);
        }
        assert_eq!(settled(), zygote);
    });
}

/// One queue and one lock among executed processes, the zygote's, and those that either starts.
fn both_kinds_of_processes_share() {
    type Way = (bool, u32);
    fn start(way: Way, sender: Sender<Way>, lock: Lock<u32>) -> Child<()> {
        let method = match way.0 {
            true => StartMethod::Zygote,
            false => StartMethod::Exec,
        };
        let process = Process::builder().start_method(method);
        process.spawn(count, (way, sender, lock)).unwrap()
    }
    fn count(way: Way, mut sender: Sender<Way>, lock: Lock<u32>) {
        *lock.lock().unwrap() += 1;
        sender.send(way).unwrap();
        if way.1 > 0 {
            for other in [false, true] {
                let sender = sender.try_clone().unwrap();
                start((other, way.1 - 1), sender, lock.clone())
                    .join()
                    .unwrap();
            }
        }
    }
    let lock = Lock::new(0).unwrap();
    let (sender, mut receiver) = Queue::<Way>::new(100).unwrap();
    start((true, 2), sender.try_clone().unwrap(), lock.clone())
        .join()
        .unwrap();
    start((false, 2), sender, lock.clone()).join().unwrap();
    let mut seen: Vec<Way> = receiver.iter().collect();
    seen.sort();
    let both = |n| [(false, n), (true, n)];
    let mut wanted = [both(0).repeat(4), both(1).repeat(2), both(2).to_vec()].concat();
    wanted.sort();
    assert_eq!(seen, wanted);
    assert_eq!(*lock.lock().unwrap(), 14);
}

fn a_stopped_zygote_keeps_nobody() {
    isolated(|| {
        by_zygote(|| ()).join().unwrap();
        let zygote = settled();
        kill(zygote, Signal::SIGSTOP).unwrap();
        let begin = Instant::now();
        for n in 0..4_u32 {
            let next = Process::spawn(|n: u32| n, (n,)).unwrap();
            assert_eq!(next.join().unwrap(), n);
        }
        // It is given two seconds, and whoever waits for its child not the ten that a new zygote is given.
        assert!(begin.elapsed() < Duration::from_secs(9));
        wait_until(Duration::from_secs(10), "it is given up", || {
            kill(zygote, None).is_err()
        });
        // Another zygote may be on its way, and has no name to be known by until it is there.
        wait_until(Duration::from_secs(10), "nobody else is left", || {
            help::own_children().is_empty()
        });
    });
}

fn killed_spares_are_passed_over() {
    isolated(|| {
        by_zygote(|| ()).join().unwrap();
        for _ in 0..20 {
            let zygote = settled();
            for spare in help::all_children() {
                if spare != zygote.as_raw() as u32 {
                    let _ = kill(Pid::from_raw(spare as i32), Signal::SIGKILL);
                    // One that is killed after it was given its function is a child that was killed.
                    wait_until(Duration::from_secs(10), "it is dead", || {
                        help::stat(spare).is_none_or(|fields| fields[0] == "Z")
                    });
                }
            }
            assert_eq!(by_zygote(|| 1).join().unwrap(), 1);
        }
        settled();
        assert_eq!(help::own_children(), Vec::<u32>::new());
    });
}

fn a_zygote_killed_at_any_moment() {
    isolated(|| {
        static OVER: AtomicBool = AtomicBool::new(false);
        static KILLED: AtomicU32 = AtomicU32::new(0);
        by_zygote(|| ()).join().unwrap();
        settled();
        let before = help::descriptors();
        let counted = Segment::new(8).unwrap();
        let killer = thread::spawn(|| {
            let mut random = 0x2545_f491_4f6c_dd1d_u64;
            while !OVER.load(Ordering::Relaxed) {
                if let Some(zygote) = zygote_in_a_storm() {
                    if kill(zygote, Signal::SIGKILL).is_ok() {
                        KILLED.fetch_add(1, Ordering::Relaxed);
                    }
                }
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                thread::sleep(Duration::from_micros(random % 6000));
            }
        });
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let counted = counted.clone();
                thread::spawn(move || {
                    for _ in 0..250 {
                        let run = |counted: Segment| {
                            counted.words()[0].fetch_add(1, Ordering::Relaxed);
                        };
                        let child = Process::spawn(run, (counted.clone(),));
                        match child.unwrap().join_timeout(Duration::from_secs(60)) {
                            Ok(Some(())) => {}
                            other => panic!("{other:?}"),
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        OVER.store(true, Ordering::Relaxed);
        killer.join().unwrap();
        // Each has run once, whatever was tried in vain.
        assert_eq!(counted.words()[0].load(Ordering::Relaxed), 1000);
        assert!(KILLED.load(Ordering::Relaxed) > 20, "{KILLED:?}");
        drop(counted);
        // The one killed last is missed when it is reaped, and not before another is made in its place.
        thread::sleep(Duration::from_millis(100));
        wait_until(Duration::from_secs(20), "the dead are reaped", || {
            help::own_children().is_empty()
        });
        // The spares of zygotes that are gone keep what their children need.
        for _ in 0..3 {
            by_zygote(|| ()).join().unwrap();
            settled();
        }
        help::settles_to(&before);
    });
}

/// A zygote of this process; there may be more than one, the last about to be reaped.
fn zygote_in_a_storm() -> Option<Pid> {
    help::all_children().into_iter().find_map(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name == format!("zygote-{pid}\n")).then_some(Pid::from_raw(pid as i32))
    })
}

fn nobody_outlives_the_parent() {
    fn breed() {
        let threads: Vec<_> = (0..2)
            .map(|_| {
                thread::spawn(|| {
                    loop {
                        let kept = Process::spawn(sleep_long, ());
                        // Whether or not it gets so far.
                        let _ = Process::spawn(|| (), ()).map(|child| child.join());
                        drop(kept);
                    }
                })
            })
            .collect();
        for thread in threads {
            let _ = thread.join();
        }
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..200 {
        let mark = help::tree_mark();
        let parent = Process::builder()
            .env(help::TREE, &mark)
            .stderr(Stdio::Null)
            .spawn(breed, ())
            .unwrap();
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        thread::sleep(Duration::from_micros((random >> 33) % 40_000));
        parent.kill().unwrap();
        drop(parent);
        let what = format!("all are gone, round {round}");
        wait_until(Duration::from_secs(20), &what, || {
            help::marked(&mark).is_empty()
        });
    }
}

fn those_who_cut_their_ties() {
    fn cut() {
        rustix::process::set_parent_process_death_signal(None).unwrap();
        // SAFETY: it is the rudeness that is wanted; nothing that follows uses a descriptor.
        unsafe { nix::libc::syscall(nix::libc::SYS_close_range, 0, u32::MAX, 0) };
        SigSet::all().thread_block().unwrap();
        sleep_long();
    }
    fn stop() {
        rustix::process::set_parent_process_death_signal(None).unwrap();
        raise(Signal::SIGSTOP).unwrap();
    }
    fn parent() {
        by_zygote(cut).detach();
        by_zygote(stop).detach();
        sleep_long();
    }
    let mark = help::tree_mark();
    let parent = Process::builder()
        .env(help::TREE, &mark)
        .spawn(parent, ())
        .unwrap();
    wait_until(Duration::from_secs(20), "all live", || {
        help::family(&mark).len() == 3
    });
    thread::sleep(Duration::from_millis(200));
    parent.kill().unwrap();
    drop(parent);
    wait_until(Duration::from_secs(20), "all are gone", || {
        help::marked(&mark).is_empty()
    });
}

fn the_tree_is_killed_with_its_zygote() {
    fn family() {
        for _ in 0..3 {
            by_zygote(sleep_long).detach();
        }
        sleep_long();
    }
    let mark = help::tree_mark();
    let child = Process::builder()
        .env(help::TREE, &mark)
        .spawn(family, ())
        .unwrap();
    wait_until(Duration::from_secs(20), "the family lives", || {
        help::family(&mark).len() == 4
    });
    child.kill_tree().unwrap();
    assert!(matches!(child.join(), Err(JoinError::Signalled(9))));
    wait_until(Duration::from_secs(20), "all are gone", || {
        help::marked(&mark).is_empty()
    });
}

fn sixteen_threads_of_malloc() {
    isolated(|| {
        static OVER: AtomicBool = AtomicBool::new(false);
        let threads: Vec<_> = (0..16)
            .map(|_| {
                thread::spawn(|| {
                    let mut kept = Vec::new();
                    while !OVER.load(Ordering::Relaxed) {
                        kept.push(vec![1_u8; 1 + kept.len() * 37 % 5000]);
                        if kept.len() > 100 {
                            kept.clear();
                        }
                    }
                })
            })
            .collect();
        for n in 0..1000_u32 {
            let fill = |n: u32| vec![n; 1000].iter().sum::<u32>();
            let child = Process::spawn(fill, (n,)).unwrap();
            let filled = child.join_timeout(Duration::from_secs(60)).unwrap();
            assert_eq!(filled, Some(n * 1000));
        }
        OVER.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

fn titles_and_arguments() {
    let child = Process::builder()
        .start_method(StartMethod::Zygote)
        .name("shown as this")
        .env("MULTIPROC_TEST_SHOWN", "too")
        .spawn(sleep_long, ())
        .unwrap();
    let read = |what: &str| {
        let bytes = std::fs::read(format!("/proc/{}/{what}", child.pid())).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    wait_until(Duration::from_secs(5), "the name shows", || {
        read("cmdline").starts_with("shown as this\0")
    });
    assert_eq!(read("comm"), "shown as this\n");
    let environment = read("environ");
    assert!(
        environment
            .split('\0')
            .any(|one| one == "MULTIPROC_TEST_SHOWN=too"),
        "{environment}"
    );
    drop(child);
    let arguments = || std::env::args().collect::<Vec<_>>();
    // On musl the standard library has them from `main`, to which children never come.
    let given = match cfg!(target_env = "gnu") {
        true => arguments(),
        false => Vec::new(),
    };
    assert_eq!(by_zygote(arguments).join().unwrap(), given);
    // What cannot be is refused before anything is made.
    let nowhere = Process::builder()
        .start_method(StartMethod::Zygote)
        .current_dir("/no/such/place")
        .spawn(sleep_long, ());
    assert!(matches!(nowhere, Err(SpawnError::CurrentDir { .. })));
}
