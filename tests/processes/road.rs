//! Handles where the receiver may not open its sender's descriptors: the tree hands them on.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use multiproc::{
    Frozen, Lock, Pipe, PipeEnd, Pool, Process, Queue, Receiver, RecvError, Segment, Sender,
    StartMethod,
};
use nix::libc;

use crate::help::{isolated, tests};
use crate::privilege::{landlock, no_new_privileges};

tests![
    a_pool_whose_workers_gave_up_their_rights,
    a_pool_whose_workers_see_no_proc,
    a_pool_whose_workers_are_in_another_user_namespace,
    a_pool_of_a_process_that_cannot_be_traced,
    a_lock_between_siblings,
    an_array_between_cousins,
    a_pool_whose_workers_are_under_landlock,
    a_program_that_may_not_be_read,
    a_stopped_process_between_costs_a_call_its_time_alone,
    what_nobody_has_is_an_error_that_says_so,
    forged_handles_cost_little,
];

const LONG: Duration = Duration::from_secs(30);

/// What makes `proc` of other processes a closed door; false, said aloud, where that cannot be made.
fn closed(what: &str, done: Result<(), nix::Error>) -> bool {
    if let Err(error) = &done {
        eprintln!("{what} cannot be had here ({error}): the rest runs without");
    }
    done.is_ok()
}

/// As a daemon does when it is done with what needs rights.
fn become_somebody(number: u32) -> bool {
    let user = nix::unistd::Uid::from_raw(number);
    let group = nix::unistd::Gid::from_raw(number);
    let done = nix::unistd::setgroups(&[])
        .and_then(|()| nix::unistd::setresgid(group, group, group))
        .and_then(|()| nix::unistd::setresuid(user, user, user));
    closed("another user", done)
}

/// No `proc`, as in a root of one's own.
fn lose_proc() -> bool {
    let done = nix::unistd::chroot("/dev/shm").and_then(|()| nix::unistd::chdir("/"));
    closed("another root", done)
}

fn leave_user_namespace() -> bool {
    // SAFETY: it concerns this process alone.
    let done = unsafe { nix::libc::unshare(nix::libc::CLONE_NEWUSER) };
    let done = match done {
        0 => Ok(()),
        _ => Err(nix::Error::last()),
    };
    closed("another user namespace", done)
}

fn cannot_be_traced() -> bool {
    // SAFETY: it takes a number and concerns this process alone.
    let done = unsafe { nix::libc::prctl(nix::libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    assert_eq!(done, 0);
    true
}

/// All that a pool's workers send and are sent.
fn use_pool(pool: &Pool) {
    let doubled = pool.map(|x: u64| 2 * x, 0..1000).unwrap();
    assert!(doubled.iter().copied().eq((0..1000).map(|x| 2 * x)));
    let texts = pool
        .map(|x: u64| x.to_string().repeat(1000), 0..500)
        .unwrap();
    assert_eq!(texts[499].len(), 3000);
    // Objects there and back.
    let arrays: Vec<_> = (0..20u64)
        .map(|n| Frozen::from_slice(&[n; 50]).unwrap())
        .collect();
    let locked = |array: Frozen<u64>| Lock::new(array[49] + 1).unwrap();
    let back = pool.map(locked, arrays).unwrap();
    assert!(back.iter().map(|lock| *lock.lock().unwrap()).eq(1..21));
    let lock = Lock::new(0_u64).unwrap();
    let add = |lock: &Lock<u64>, n: u64| *lock.lock().unwrap() += n;
    pool.with(lock.clone()).map(add, 0..10).unwrap();
    assert_eq!(*lock.lock().unwrap(), 45);
}

fn a_pool_whose_workers_gave_up_their_rights() {
    isolated(|| {
        let build = Pool::builder().workers(2);
        let give_up = |number: u32| _ = become_somebody(number);
        use_pool(&build.initializer(give_up, (65534_u32,)).build().unwrap());
    });
}

fn a_pool_whose_workers_see_no_proc() {
    isolated(|| {
        let build = Pool::builder().workers(2);
        let lose = || _ = lose_proc();
        use_pool(&build.initializer(lose, ()).build().unwrap());
    });
}

fn a_pool_whose_workers_are_in_another_user_namespace() {
    isolated(|| {
        // Whoever has a second thread cannot leave.
        let build = Pool::builder().workers(2).start_method(StartMethod::Zygote);
        let leave = || _ = leave_user_namespace();
        use_pool(&build.initializer(leave, ()).build().unwrap());
    });
}

fn a_pool_of_a_process_that_cannot_be_traced() {
    isolated(|| {
        // Workers without the right to trace everything, of a parent that says no to all others.
        let build = Pool::builder().workers(2);
        let give_up = |number: u32| _ = become_somebody(number);
        let pool = build.initializer(give_up, (65533_u32,)).build().unwrap();
        cannot_be_traced();
        use_pool(&pool);
    });
}

fn a_lock_between_siblings() {
    isolated(|| {
        let (tx, rx) = Queue::<(Lock<u64>, Frozen<u64>)>::new(4).unwrap();
        let (done, mut is_done) = Queue::<()>::new(1).unwrap();
        let send = |mut tx: Sender<(Lock<u64>, Frozen<u64>)>, mut is_done: Receiver<()>| {
            become_somebody(65534);
            for n in 0..5 {
                let array = Frozen::from_slice(&[n; 10]).unwrap();
                tx.send((Lock::new(n).unwrap(), array)).unwrap();
            }
            is_done.recv_timeout(LONG).unwrap();
        };
        let receive = |mut rx: Receiver<(Lock<u64>, Frozen<u64>)>, mut done: Sender<()>| {
            become_somebody(65533);
            for n in 0..5 {
                let (lock, array) = rx.recv_timeout(LONG).unwrap();
                assert_eq!(*lock.lock().unwrap(), n);
                assert_eq!(*array, [n; 10]);
            }
            done.send(()).unwrap();
        };
        let sender = Process::spawn(send, (tx, is_done.try_clone().unwrap())).unwrap();
        let receiver = Process::spawn(receive, (rx, done)).unwrap();
        receiver.join().unwrap();
        sender.join().unwrap();
        assert_eq!(is_done.recv_timeout(LONG), Err(RecvError::Closed));
    });
}

type Way = (Sender<Frozen<u64>>, Receiver<()>);

fn send_below((mut tx, mut is_done): Way) {
    become_somebody(65534);
    tx.send(Frozen::from_slice(&[7; 10]).unwrap()).unwrap();
    is_done.recv_timeout(LONG).unwrap();
}

fn receive_below(mut rx: Receiver<Frozen<u64>>, mut done: Sender<()>) {
    become_somebody(65533);
    assert_eq!(*rx.recv_timeout(LONG).unwrap(), [7; 10]);
    done.send(()).unwrap();
}

fn an_array_between_cousins() {
    isolated(|| {
        let (tx, rx) = Queue::<Frozen<u64>>::new(4).unwrap();
        let (done, is_done) = Queue::<()>::new(1).unwrap();
        let send = |way: Way| Process::spawn(send_below, (way,)).unwrap().join().unwrap();
        let receive = |rx: Receiver<Frozen<u64>>, done: Sender<()>| {
            Process::spawn(receive_below, (rx, done))
                .unwrap()
                .join()
                .unwrap();
        };
        let sender = Process::spawn(send, ((tx, is_done),)).unwrap();
        let receiver = Process::spawn(receive, (rx, done)).unwrap();
        receiver.join().unwrap();
        sender.join().unwrap();
    });
}

fn be_restricted() -> bool {
    let done = no_new_privileges().and_then(|()| landlock());
    closed("Landlock", done)
}

fn a_pool_whose_workers_are_under_landlock() {
    isolated(|| {
        let build = Pool::builder().workers(2);
        let restrict = || _ = be_restricted();
        use_pool(&build.initializer(restrict, ()).build().unwrap());
    });
}

/// A program that its user may execute and not read: the kernel lets nobody but root look into it.
fn a_program_that_may_not_be_read() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("NOT CHECKED, for it takes root to make a program that one may not read");
    }
    let copy = std::env::temp_dir().join(format!("multiproc-unreadable-{}", std::process::id()));
    fs::copy("/proc/self/exe", &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o711)).unwrap();
    let run = Command::new(&copy)
        .env("MULTIPROC_TEST_SCENARIO", "unreadable")
        .current_dir("/")
        .uid(65534)
        .gid(65534)
        .output();
    fs::remove_file(&copy).unwrap();
    let output = run.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{error}");
    match &*said {
        "readable\n" => eprintln!("NOT CHECKED, for such a program can be looked into here"),
        said => assert_eq!(said, "used\n"),
    }
}

/// What the copy of this program does. False if it is not that.
pub(crate) fn scenario(name: &OsStr) -> bool {
    if name != "unreadable" {
        return false;
    }
    multiproc::init();
    // SAFETY: asks for a number only.
    if unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) } == 1 {
        println!("readable");
        return true;
    }
    use_pool(&Pool::new(2).unwrap());
    let (tx, rx) = Queue::<(Lock<u64>, Frozen<u64>)>::new(4).unwrap();
    let (done, is_done) = Queue::<()>::new(1).unwrap();
    let sender = Process::spawn(send_both, (tx, is_done)).unwrap();
    Process::spawn(receive_both, (rx, done))
        .unwrap()
        .join()
        .unwrap();
    sender.join().unwrap();
    println!("used");
    true
}

fn send_both(mut tx: Sender<(Lock<u64>, Frozen<u64>)>, mut is_done: Receiver<()>) {
    let array = Frozen::from_slice(&[5; 10]).unwrap();
    tx.send((Lock::new(4).unwrap(), array)).unwrap();
    is_done.recv_timeout(LONG).unwrap();
}

fn receive_both(mut rx: Receiver<(Lock<u64>, Frozen<u64>)>, mut done: Sender<()>) {
    let (lock, array) = rx.recv_timeout(LONG).unwrap();
    assert_eq!((*lock.lock().unwrap(), array[9]), (4, 5));
    done.send(()).unwrap();
}

/// Messages of each kind that are received while a process between is stopped.
const STOPPED: u64 = 6;

type BothWays = (Sender<Frozen<u64>>, PipeEnd<Frozen<u64>, ()>, Sender<()>);

fn send_both_ways((mut tx, mut there, mut sent): BothWays, mut is_done: Receiver<()>) {
    become_somebody(65534);
    for n in 0..=STOPPED {
        tx.send(Frozen::from_slice(&[n; 10]).unwrap()).unwrap();
        there.send(Frozen::from_slice(&[n; 10]).unwrap()).unwrap();
    }
    sent.send(()).unwrap();
    is_done.recv_timeout(LONG).unwrap();
}

fn receive_both_ways(
    mut rx: Receiver<Frozen<u64>>,
    mut here: PipeEnd<(), Frozen<u64>>,
    mut go: Receiver<()>,
    mut said: Sender<()>,
) {
    let is_other = become_somebody(65533);
    go.recv_timeout(LONG).unwrap();
    let began = Instant::now();
    for n in 0..STOPPED {
        let short = Duration::from_millis(20);
        let found = match n % 2 {
            0 => [rx.try_recv(), here.try_recv()],
            _ => [rx.recv_timeout(short), here.recv_timeout(short)],
        };
        for found in found {
            match found {
                Ok(_) if !is_other => {}
                Err(RecvError::Decode(error)) => {
                    let text = error.to_string();
                    assert!(text.contains("gave no answer in time"), "{text}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // Half of what they would take that wait for the stopped process as calls without a limit do.
    let took = began.elapsed();
    assert!(took < Duration::from_secs(STOPPED * 2), "{took:?}");
    said.send(()).unwrap();
    // It goes on, and so does everything.
    go.recv_timeout(LONG).unwrap();
    assert_eq!(*rx.recv_timeout(LONG).unwrap(), [STOPPED; 10]);
    assert_eq!(*here.recv_timeout(LONG).unwrap(), [STOPPED; 10]);
    said.send(()).unwrap();
}

fn a_stopped_process_between_costs_a_call_its_time_alone() {
    isolated(|| {
        let (tx, rx) = Queue::<Frozen<u64>>::new(16).unwrap();
        let (there, here) = Pipe::<Frozen<u64>, ()>::new().unwrap();
        let (sent, mut is_sent) = Queue::<()>::new(1).unwrap();
        let (mut done, is_done) = Queue::<()>::new(1).unwrap();
        let (mut go, went) = Queue::<()>::new(1).unwrap();
        let (said, mut says) = Queue::<()>::new(1).unwrap();
        let send = |ends: BothWays, is_done: Receiver<()>| {
            let below = Process::spawn(send_both_ways, (ends, is_done)).unwrap();
            below.join().unwrap();
        };
        let between = Process::spawn(send, ((tx, there, sent), is_done)).unwrap();
        is_sent.recv_timeout(LONG).unwrap();
        let receiver = Process::spawn(receive_both_ways, (rx, here, went, said)).unwrap();
        between.signal(libc::SIGSTOP).unwrap();
        go.send(()).unwrap();
        let answer = says.recv_timeout(LONG);
        between.signal(libc::SIGCONT).unwrap();
        if answer.is_ok() {
            go.send(()).unwrap();
            says.recv_timeout(LONG).unwrap();
        }
        receiver.join().unwrap();
        done.send(()).unwrap();
        between.join().unwrap();
    });
}

fn die() {
    std::process::abort();
}

fn what_nobody_has_is_an_error_that_says_so() {
    isolated(|| {
        let (tx, mut rx) = Queue::<Segment>::new(4).unwrap();
        let send_and_die = |mut tx: Sender<Segment>| {
            tx.send(Segment::new(64).unwrap()).unwrap();
            die();
        };
        let child = Process::spawn(send_and_die, (tx,)).unwrap();
        child.join().unwrap_err();
        match rx.recv_timeout(LONG) {
            Err(RecvError::Decode(error)) => {
                assert!(error.to_string().contains("is gone"), "{error}");
            }
            other => panic!("{other:?}"),
        }
    });
}

fn forged_handles_cost_little() {
    isolated(|| {
        let (mut a, mut b) = multiproc::Pipe::<Segment, Segment>::new().unwrap();
        a.send(Segment::new(64).unwrap()).unwrap();
        let mut forged = b.recv_bytes().unwrap();
        // In the middle of what is random.
        let middle = forged.len() / 3;
        forged[middle] ^= 1;
        let began = std::time::Instant::now();
        for _ in 0..100 {
            a.send_bytes(&forged).unwrap();
            assert!(matches!(b.recv(), Err(RecvError::Decode(_))));
        }
        // A search through all processes took a fifth of a second each.
        let took = began.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
    });
}
