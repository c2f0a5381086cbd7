//! Names: unrelated programs that talk, and everything that can stand at a name.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use multiproc::{
    Listener, Lock, LockError, Pipe, PipeEnd, PipeError, Process, Queue, QueueError, Receiver,
    RecvError, Segment, SegmentError, SendError, Sender,
};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::help::{self, tests, wait_until};
use crate::strangers::{Stranger, fresh, path, pause, say, strangers};

tests![
    programs_talk_through_a_queue,
    programs_add_behind_a_lock,
    large_messages_are_leased_and_read,
    a_queue_waits_for_company_and_opens_again,
    ends_travel,
    a_program_killed_inside_a_lock,
    programs_connect_by_a_name,
    nobody_to_connect_to,
    killed_while_connecting,
    a_dead_makers_name_is_free_at_once,
    a_name_appears_when_all_is_there,
    a_storm_on_one_name,
    another_shape_is_refused,
    a_damaged_header_is_refused,
    what_is_not_ours_is_refused,
];

strangers![
    appear,
    converse,
    call_in_vain,
    listen,
    answer,
    add,
    give_back,
    send_three,
    die_inside,
    hold,
    makers,
    storm,
];

const LONG: Duration = Duration::from_secs(30);

/// Waits until a name is gone: a parent keeps what it gave a child until it knows that the child has ended.
fn gone(name: &str) {
    let two = Duration::from_secs(2);
    wait_until(two, "the name is gone", || !path(name).exists());
}

/// Answers each number with its square until nobody asks.
fn answer(name: &str) {
    let (_, mut questions) = Queue::<u64>::builder().open(name).unwrap();
    let (mut answers, _) = Queue::<String>::builder()
        .open(&format!("{name}-answers"))
        .unwrap();
    say("ready");
    for number in questions.iter() {
        answers.send((number * number).to_string()).unwrap();
    }
}

fn programs_talk_through_a_queue() {
    let name = fresh("talk");
    let answers_name = format!("{name}-answers");
    let (mut questions, _) = Queue::<u64>::builder().capacity(16).create(&name).unwrap();
    let (_, mut answers) = Queue::<String>::builder().create(&answers_name).unwrap();
    let stranger = Stranger::ready("answer", &name);
    for number in 0..10_000_u64 {
        questions.send(number).unwrap();
        let answer = answers.recv_timeout(LONG).unwrap();
        assert_eq!(answer, (number * number).to_string());
    }
    drop(questions);
    assert_eq!(answers.recv_timeout(LONG), Err(RecvError::Closed));
    stranger.finish();
    drop(answers);
    gone(&name);
    gone(&answers_name);
}

const TIMES: u64 = 5_000;

fn add(name: &str) {
    let pair = Lock::<[u64; 2]>::open(name).unwrap();
    for _ in 0..TIMES {
        let mut pair = pair.lock().unwrap();
        pair[0] += 1;
        pair[1] += 1;
    }
}

fn programs_add_behind_a_lock() {
    let name = fresh("add");
    let pair = Lock::create(&name, [0_u64; 2]).unwrap();
    let strangers: Vec<_> = (0..4).map(|_| Stranger::start("add", &name)).collect();
    strangers.into_iter().for_each(Stranger::finish);
    assert_eq!(*pair.lock().unwrap(), [4 * TIMES; 2]);
    let same = Lock::open_or_create(&name, [1_u64, 2]).unwrap();
    assert_eq!(*same.lock().unwrap(), [4 * TIMES; 2]);
    drop((pair, same));
    gone(&name);
}

/// Leases the first message and dies with it.
fn give_back(name: &str) {
    let (_, mut rx) = Queue::<Vec<u8>>::builder().open(name).unwrap();
    let lease = rx.lease().unwrap();
    assert_eq!(lease.get().len(), 1 << 20);
    say("ready");
    pause();
}

fn large_messages_are_leased_and_read() {
    let name = fresh("large");
    let queue = Queue::<Vec<u8>>::builder()
        .message_size(1 << 20)
        .in_place(4);
    let (mut tx, mut rx) = queue.create(&name).unwrap();
    let mut loan = tx.loan().unwrap();
    assert!(loan.iter().all(|byte| *byte == 0));
    loan.iter_mut()
        .zip(0_u8..=255)
        .for_each(|(byte, n)| *byte = n);
    loan.commit().unwrap();
    Stranger::ready("give_back", &name).kill();
    let lease = rx.lease_timeout(LONG).unwrap();
    assert!(lease.redelivered());
    let first: Vec<u8> = lease.iter().take(256).copied().collect();
    assert_eq!(first, (0..=255).collect::<Vec<u8>>());
    lease.ack();
    for length in [0, 1, 4095, 1 << 20] {
        let sent = vec![7; length];
        tx.send(sent.clone()).unwrap();
        assert!(rx.recv_timeout(LONG).unwrap() == sent);
    }
    drop((tx, rx));
    gone(&name);
}

/// Sends three numbers and leaves.
fn send_three(name: &str) {
    let (mut tx, _) = Queue::<u64>::builder().open(name).unwrap();
    for number in 1..=3 {
        tx.send(number).unwrap();
    }
}

fn a_queue_waits_for_company_and_opens_again() {
    let name = fresh("company");
    let (tx, mut rx) = Queue::<u64>::builder().create(&name).unwrap();
    drop(tx);
    // Nobody has come yet, so it is not over.
    assert_eq!(rx.try_recv(), Err(RecvError::Empty));
    let short = Duration::from_millis(50);
    assert_eq!(rx.recv_timeout(short), Err(RecvError::TimedOut));
    assert!(!rx.is_closed());
    for _ in 0..3 {
        let stranger = Stranger::start("send_three", &name);
        // The queue of the round before is closed until the stranger comes.
        wait_until(LONG, "the first number arrives", || rx.try_recv() == Ok(1));
        assert_eq!(rx.recv(), Ok(2));
        assert_eq!(rx.recv(), Ok(3));
        assert_eq!(rx.recv_timeout(LONG), Err(RecvError::Closed));
        assert!(rx.is_closed());
        stranger.finish();
    }
    // The other side, the same.
    let (mut tx, other) = Queue::<u64>::builder().open(&name).unwrap();
    drop((rx, other));
    assert_eq!(tx.send(1), Err(SendError::Closed(1)));
    let (_, mut rx) = Queue::<u64>::builder().open(&name).unwrap();
    tx.send(2).unwrap();
    assert_eq!(rx.recv(), Ok(2));
    drop((tx, rx));
    gone(&name);
}

fn ends_travel() {
    let name = fresh("travel");
    let (tx, mut rx) = Queue::<u64>::builder().create(&name).unwrap();
    let twice = |mut tx: Sender<u64>, carrier: (Sender<Sender<u64>>, u64)| {
        tx.send(carrier.1).unwrap();
        // And on, inside a message.
        let (mut carrier, _) = carrier;
        carrier.send(tx).unwrap();
    };
    let (carrier, mut carried) = Queue::<Sender<u64>>::new(4).unwrap();
    let child = Process::spawn(twice, (tx, (carrier, 1))).unwrap();
    let mut again = carried.recv_timeout(LONG).unwrap();
    again.send(2).unwrap();
    child.join().unwrap();
    drop(again);
    assert_eq!(rx.recv(), Ok(1));
    assert_eq!(rx.recv(), Ok(2));
    assert_eq!(rx.recv(), Err(RecvError::Closed));

    let count = |mut rx: Receiver<u64>| rx.iter().count();
    let (tx, other) = Queue::<u64>::builder().open(&name).unwrap();
    let child = Process::spawn(count, (rx,)).unwrap();
    drop(other);
    Stranger::start("send_three", &name).finish();
    drop(tx);
    assert_eq!(child.join().unwrap(), 3);
    gone(&name);
}

fn die_inside(name: &str) {
    let pair = Lock::<[u64; 2]>::open(name).unwrap();
    let mut pair = pair.lock().unwrap();
    pair[0] = 9;
    say("ready");
    pause();
}

fn a_program_killed_inside_a_lock() {
    let name = fresh("inside");
    let pair = Lock::create(&name, [1_u64, 1]).unwrap();
    for _ in 0..20 {
        let stranger = Stranger::ready("die_inside", &name);
        assert!(matches!(pair.try_lock(), Err(LockError::WouldBlock)));
        stranger.kill();
        let died = Instant::now();
        match pair.lock_timeout(LONG) {
            // What it did inside was never written back.
            Err(LockError::Abandoned(_)) => assert_eq!(*pair.recover().unwrap(), [1, 1]),
            other => panic!("{other:?}"),
        }
        assert!(died.elapsed() < LONG / 2, "{:?}", died.elapsed());
    }
    drop(pair);
    gone(&name);
}

type Line = Pipe<String, Vec<u8>>;

/// Connects and sends back so many bytes as it is told, until nobody asks.
fn converse(name: &str) {
    let mut end = Line::connect(name).unwrap();
    while let Ok(text) = end.recv() {
        end.send(vec![1; text.parse().unwrap()]).unwrap();
    }
}

fn programs_connect_by_a_name() {
    let name = fresh("connect");
    let mut listener = Line::listen(&name).unwrap();
    let strangers: Vec<_> = (0..5).map(|_| Stranger::start("converse", &name)).collect();
    let accept = |_| listener.accept_timeout(LONG).unwrap();
    let mut ends: Vec<PipeEnd<String, Vec<u8>>> = (0..5).map(accept).collect();
    for size in [0_usize, 1, 300, 5_000_000] {
        for end in &mut ends {
            end.send(size.to_string()).unwrap();
        }
        for end in &mut ends {
            assert_eq!(end.recv_timeout(LONG).unwrap().len(), size);
        }
    }
    // They have no name any more, nor the listener, and yet they go on.
    drop(listener);
    gone(&name);
    (0..5).for_each(|number| gone(&format!("{name}.{number}")));
    let mut last = ends.pop().unwrap();
    last.send("7".into()).unwrap();
    assert_eq!(last.recv(), Ok(vec![1; 7]));
    // What has no name any more stays at home.
    let (mut carrier, _other) = Queue::<PipeEnd<String, Vec<u8>>>::new(1).unwrap();
    let mut last = match carrier.send(last) {
        Err(SendError::Encode { value, error }) => {
            assert!(error.to_string().contains("stays"), "{error}");
            value
        }
        other => panic!("{other:?}"),
    };
    last.send("8".into()).unwrap();
    assert_eq!(last.recv(), Ok(vec![1; 8]));
    strangers.into_iter().for_each(Stranger::kill);
    for mut end in ends.into_iter().chain([last]) {
        assert_eq!(end.recv_timeout(LONG), Err(RecvError::Closed));
    }
}

fn nobody_to_connect_to() {
    let name = fresh("nobody");
    let not_found = |error: PipeError| match error {
        PipeError::Segment(error) => matches!(error, SegmentError::NotFound { .. }),
        _ => false,
    };
    assert!(Line::connect(&name).is_err_and(not_found));
    let mut listener = Line::listen(&name).unwrap();
    assert!(matches!(
        Line::listen(&name),
        Err(PipeError::Segment(SegmentError::AlreadyExists { .. }))
    ));
    match Pipe::<u64, Vec<u8>>::connect(&name) {
        Err(PipeError::Segment(error @ SegmentError::WrongShape { .. })) => {
            let text = error.to_string();
            let (found, wanted) = text.split_once(", not ").unwrap();
            assert!(found.contains("String") && wanted.contains("u64"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    let short = Duration::from_millis(30);
    let nobody = |listener: &mut Listener<_, _>| {
        matches!(listener.accept_timeout(short), Err(PipeError::TimedOut))
    };
    assert!(nobody(&mut listener));
    for _ in 0..10 {
        let one = Duration::from_millis(1);
        let call = Line::builder().size(1).connect_timeout(&name, one);
        assert!(matches!(call, Err(PipeError::TimedOut)), "{call:?}");
        gone(&format!("{name}.0"));
    }
    // All of them have given up.
    assert!(nobody(&mut listener));
    drop(listener);
    gone(&name);
    assert!(Line::connect(&name).is_err_and(not_found));
}

/// Calls a listener that does not answer.
fn call_in_vain(name: &str) {
    say("ready");
    let error = Line::connect(name).unwrap_err();
    assert!(matches!(error, PipeError::Closed), "{error}");
    say("closed");
}

/// Listens, and never accepts.
fn listen(name: &str) {
    let _listener = Line::listen(name).unwrap();
    say("ready");
    pause();
}

fn killed_while_connecting() {
    let name = fresh("killed");
    // The listener, while somebody waits; and while nobody does.
    let listener = Stranger::ready("listen", &name);
    let mut caller = Stranger::ready("call_in_vain", &name);
    let waits = || path(&format!("{name}.0")).exists();
    wait_until(LONG, "it has called", waits);
    listener.kill();
    caller.says("closed");
    caller.finish();
    Stranger::ready("listen", &name).kill();
    // Callers, before they are accepted.
    let mut listener = Line::listen(&name).unwrap();
    for _ in 0..3 {
        let caller = Stranger::ready("call_in_vain", &name);
        wait_until(LONG, "it has called", waits);
        std::thread::sleep(Duration::from_millis(50));
        caller.kill();
    }
    let short = Duration::from_millis(50);
    assert!(matches!(
        listener.accept_timeout(short),
        Err(PipeError::TimedOut)
    ));
    gone(&format!("{name}.0"));
    // And after that: nothing has a name any more.
    let caller = Stranger::start("converse", &name);
    let end = listener.accept_timeout(LONG).unwrap();
    caller.kill();
    assert!(!waits());
    drop((end, listener));
    gone(&name);
}

/// A process that ends when it is killed, or `body` returns; for programs with one thread, which have not
/// used the crate: each such process is a stranger to the others.
fn apart(body: impl FnOnce() -> Result<(), String>) -> Pid {
    // SAFETY: this process has one thread, and the copy exits without returning.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let code = match body() {
                Ok(()) => 0,
                Err(error) => {
                    eprintln!("{error}");
                    1
                }
            };
            // SAFETY: ends the copy, and nothing of the original.
            unsafe { libc::_exit(code) }
        }
    }
}

fn end(process: Pid) -> Result<(), WaitStatus> {
    kill(process, Signal::SIGKILL).unwrap();
    match waitpid(process, None).unwrap() {
        WaitStatus::Signaled(_, Signal::SIGKILL, _) => Ok(()),
        other => Err(other),
    }
}

fn tell(mut pipe: &File) -> Result<(), String> {
    pipe.write_all(b".").map_err(|error| error.to_string())
}

fn told(mut pipe: &File) -> bool {
    pipe.read_exact(&mut [0]).is_ok()
}

/// Makes the same names a thousand times, each maker killed when it has.
fn makers(name: &str) {
    let (told_end, tell_end) = help::pipe();
    for round in 0..1_000 {
        let maker = apart(|| {
            let queue = Queue::<u64>::builder().create(name);
            let (mut tx, mut rx) = queue.map_err(|error| format!("round {round}: {error}"))?;
            let lock = Lock::create(&format!("{name}-lock"), round);
            let lock = lock.map_err(|error| format!("round {round}: {error}"))?;
            tx.send(round).map_err(|error| error.to_string())?;
            if rx.recv() != Ok(round) || lock.lock().is_ok_and(|found| *found != round) {
                return Err(format!(
                    "round {round}: something of the last maker is there"
                ));
            }
            tell(&tell_end)?;
            loop {
                nix::unistd::pause();
            }
        });
        if !told(&told_end) {
            panic!("round {round}: the maker is gone");
        }
        end(maker).unwrap();
    }
    for name in [name, &format!("{name}-lock")] {
        assert!(matches!(
            Segment::open(name),
            Err(SegmentError::NotFound { .. })
        ));
        gone(name);
    }
}

fn a_dead_makers_name_is_free_at_once() {
    Stranger::start("makers", &fresh("makers")).finish();
}

/// One makes and leaves names all the time, others open what they find there: nothing, or all of it.
fn appear(name: &str) {
    let (progress_end, tell_end) = help::pipe();
    let (queue, lock) = (format!("{name}-queue"), format!("{name}-lock"));
    let whole = [7_u64; 64];
    let mut workers = vec![apart(|| {
        loop {
            let ends = Queue::<u64>::builder().capacity(7).create(&queue);
            let lock = Lock::create(&lock, whole);
            // Who has found it may have it still.
            let of_queue = match &ends {
                Ok(_) | Err(QueueError::Segment(SegmentError::AlreadyExists { .. })) => Ok(()),
                Err(error) => Err(format!("making: {error:?}")),
            };
            let of_lock = match &lock {
                Ok(_) | Err(SegmentError::AlreadyExists { .. }) => Ok(()),
                Err(error) => Err(format!("making: {error:?}")),
            };
            of_queue.and(of_lock)?;
        }
    })];
    let find = || loop {
        match Queue::<u64>::builder().capacity(7).open(&queue) {
            Ok(_) => tell(&tell_end)?,
            Err(QueueError::Segment(SegmentError::NotFound { .. })) => {}
            Err(error) => return Err(format!("opening: {error:?}")),
        }
        match Lock::<[u64; 64]>::open(&lock) {
            Ok(lock) => match lock.try_lock() {
                Ok(found) if *found == whole => tell(&tell_end)?,
                Err(LockError::WouldBlock) => {}
                other => return Err(format!("found: {other:?}")),
            },
            Err(SegmentError::NotFound { .. }) => {}
            Err(error) => return Err(format!("opening: {error:?}")),
        }
        // Meanwhile nobody has it, and it is made anew.
        std::thread::sleep(Duration::from_micros(200));
    };
    workers.extend((0..3).map(|_| apart(find)));
    std::thread::sleep(Duration::from_secs(3));
    let ends: Vec<_> = workers.into_iter().map(end).collect();
    assert!(ends.iter().all(Result::is_ok), "{ends:?}");
    drop(tell_end);
    let found = std::io::BufReader::new(progress_end).bytes().count();
    assert!(found > 20, "found only {found} times");
    for name in [queue, lock] {
        drop(Segment::create(&name, 64).unwrap());
        gone(&name);
    }
}

fn a_name_appears_when_all_is_there() {
    Stranger::start("appear", &fresh("appear")).finish();
}

const WORKERS: usize = 24;

/// Whether this process has mapped what stands at the name, and not a twin that was removed.
fn is_current(name: &str) -> Result<(), String> {
    let found = fs::metadata(path(name)).map_err(|error| format!("{name}: {error}"))?;
    let maps = fs::read_to_string("/proc/self/maps").map_err(|error| error.to_string())?;
    match maps.contains(&format!(" {} ", found.ino())) {
        true => Ok(()),
        false => Err(format!("{name} leads elsewhere:\n{maps}")),
    }
}

/// Opens or makes, uses and leaves two names for ever.
fn come_and_go(name: &str, progress: &File) -> Result<(), String> {
    let (queue, lock) = (format!("{name}-queue"), format!("{name}-lock"));
    let mut n = u64::from(std::process::id());
    loop {
        let ends = Queue::<[u64; 3]>::builder()
            .capacity(8)
            .senders(64)
            .open_or_create(&queue);
        let (mut tx, mut rx) = ends.map_err(|error| format!("the queue: {error:?}"))?;
        let pair = Lock::open_or_create(&lock, [0_u64; 2]);
        let pair = pair.map_err(|error| format!("the lock: {error:?}"))?;
        is_current(&queue)?;
        is_current(&lock)?;
        for _ in 0..10 {
            n = n
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            match tx.try_send([n, !n, n.rotate_left(17)]) {
                Ok(()) | Err(SendError::Full(_)) => {}
                Err(error) => return Err(format!("sending: {error:?}")),
            }
            match rx.try_recv() {
                Ok([a, b, c]) if b == !a && c == a.rotate_left(17) => {}
                Err(RecvError::Empty) => {}
                other => return Err(format!("receiving: {other:?}")),
            }
            match pair.lock_timeout(LONG) {
                Ok(mut pair) if pair[0] == pair[1] => *pair = [n, n],
                Err(LockError::Abandoned(_)) => match pair.recover() {
                    Ok(mut pair) => *pair = [n, n],
                    // Another was quicker, and died too.
                    Err(error) => return Err(format!("recovering: {error:?}")),
                },
                other => return Err(format!("locking: {other:?}")),
            }
        }
        is_current(&queue)?;
        is_current(&lock)?;
        tell(progress)?;
    }
}

/// Many processes that come and go, one killed every few milliseconds.
fn storm(name: &str) {
    let (progress_end, tell_end) = help::pipe();
    let start = || {
        apart(|| {
            // Below whoever kills them.
            // SAFETY: changes nothing but this process's own priority.
            unsafe { libc::nice(5) };
            come_and_go(name, &tell_end)
        })
    };
    let mut workers: Vec<Pid> = (0..WORKERS).map(|_| start()).collect();
    let (mut n, mut kills) = (1_u64, 0);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        n = n
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        std::thread::sleep(Duration::from_micros((n >> 40) % 3_000));
        let victim = (n >> 33) as usize % WORKERS;
        end(workers[victim]).unwrap();
        kills += 1;
        workers[victim] = start();
    }
    workers.into_iter().for_each(|worker| end(worker).unwrap());
    drop(tell_end);
    let rounds = std::io::BufReader::new(progress_end).bytes().count();
    eprintln!("{kills} killed, {rounds} rounds");
    assert!(
        rounds > kills,
        "they hardly get on: {rounds} rounds, {kills} killed"
    );
    // The last one was killed; whoever asks next finds nothing, and leaves nothing.
    for name in [format!("{name}-queue"), format!("{name}-lock")] {
        assert!(matches!(
            Segment::open(&name),
            Err(SegmentError::NotFound { .. })
        ));
        drop(Segment::create(&name, 64).unwrap());
        gone(&name);
    }
    assert!(matches!(
        waitpid(None, Some(WaitPidFlag::WNOHANG)),
        Err(nix::Error::ECHILD)
    ));
}

fn a_storm_on_one_name() {
    Stranger::start("storm", &fresh("storm")).finish();
}

fn refused<T>(result: Result<T, impl Into<QueueError>>) -> SegmentError {
    match result.map_err(Into::into) {
        Err(QueueError::Segment(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it is not refused"),
    }
}

fn another_shape_is_refused() {
    let name = fresh("shape");
    let queue = || Queue::<u64>::builder();
    let (mut tx, mut rx) = queue().capacity(16).senders(3).create(&name).unwrap();
    let says_both = |error: SegmentError, found: &str, wanted: &str| {
        assert!(
            matches!(error, SegmentError::WrongShape { .. }),
            "{error:?}"
        );
        let text = error.to_string();
        let (first, second) = text.split_once(", not ").unwrap();
        assert!(first.contains(found) && second.contains(wanted), "{text}");
    };
    for _ in 0..50 {
        says_both(refused(Queue::<u32>::builder().open(&name)), "u64", "u32");
        says_both(
            refused(Queue::<String>::builder().open_or_create(&name)),
            "u64",
            "String",
        );
        says_both(
            refused(Lock::<u64>::open(&name)),
            "queue of u64",
            "lock of 8 bytes",
        );
        says_both(refused(Segment::open(&name)), "queue", "segment");
        says_both(
            refused(queue().capacity(32).open(&name)),
            "capacity 16",
            "capacity 32",
        );
        says_both(
            refused(queue().senders(4).open(&name)),
            "3 senders",
            "4 senders",
        );
        says_both(
            refused(queue().receivers(1).open(&name)),
            "256 receivers",
            "1 receivers",
        );
        says_both(
            refused(queue().message_size(16).open(&name)),
            "message size 8",
            "message size 16",
        );
        says_both(
            refused(queue().in_place(2).open_or_create(&name)),
            "256 receivers",
            "2 blocks",
        );
        assert!(matches!(
            queue().capacity(0).open(&name),
            Err(QueueError::Capacity { .. })
        ));
        assert!(matches!(
            refused(queue().create(&name)),
            SegmentError::AlreadyExists { .. }
        ));
    }
    // None of them has left anything: there is room for two more.
    let more = [
        queue().open(&name),
        queue().capacity(16).senders(3).open(&name),
    ];
    assert!(more.iter().all(Result::is_ok), "{more:?}");
    assert!(matches!(
        queue().open(&name),
        Err(QueueError::TooManySenders { limit: 3 })
    ));
    tx.send(5).unwrap();
    assert_eq!(rx.recv(), Ok(5));

    let lock_name = format!("{name}-lock");
    let lock = Lock::create(&lock_name, 1_u64).unwrap();
    says_both(
        refused(Lock::<u32>::open(&lock_name)),
        "lock of 8 bytes",
        "lock of 4 bytes",
    );
    says_both(
        refused(queue().open(&lock_name)),
        "lock of 8 bytes",
        "queue of u64",
    );
    assert_eq!(*lock.lock().unwrap(), 1);
    drop((tx, rx, more, lock));
    gone(&name);
    gone(&lock_name);
}

/// Makes a queue and has it until it may go.
fn hold(name: &str) {
    let ends = Queue::<u64>::builder().capacity(4).create(name).unwrap();
    say("ready");
    pause();
    drop(ends);
}

fn a_damaged_header_is_refused() {
    let name = fresh("damaged");
    let stranger = Stranger::ready("hold", &name);
    // This process is not attached, so that opening and closing the file means nothing.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path(&name))
        .unwrap();
    let length = file.metadata().unwrap().len();
    let mut whole = [0; 320];
    file.read_exact_at(&mut whole, 0).unwrap();
    let open = || Queue::<u64>::builder().open(&name);
    let expect = |at: usize, error: &SegmentError| {
        let right = match at {
            0..8 => matches!(error, SegmentError::NotASegment),
            8..16 => matches!(error, SegmentError::WrongVersion { .. }),
            16..24 => matches!(error, SegmentError::Truncated { .. }),
            40..216 => matches!(error, SegmentError::WrongShape { .. }),
            _ => matches!(error, SegmentError::Corrupt(_)),
        };
        assert!(right, "byte {at}: {error:?}");
    };
    // Magic, version, word size, length, shape; the queue's numbers.
    let fields = [0..24, 40..60, 256..280].into_iter().flatten();
    let mut versions = String::new();
    for at in fields {
        for value in 0..=255_u8 {
            if value == whole[at] {
                continue;
            }
            file.write_all_at(&[value], at as u64).unwrap();
            match open() {
                Err(QueueError::Segment(error)) => {
                    expect(at, &error);
                    if at == 8 {
                        versions = error.to_string();
                    }
                }
                // Some numbers of lanes, seats and so on fit as well, and are then what the queue has.
                Ok(_)
                | Err(QueueError::TooManySenders { .. } | QueueError::TooManyReceivers { .. })
                    if at >= 256 => {}
                other => panic!("byte {at} is {value}: {other:?}"),
            }
        }
        // Whatever it says, it is in use.
        let created = Queue::<u64>::builder().create(&name);
        assert!(matches!(
            refused(created),
            SegmentError::AlreadyExists { .. }
        ));
        let error = Queue::<u64>::builder().open_or_create(&name).err();
        assert!(at >= 256 || error.is_some(), "byte {at}");
        file.write_all_at(&whole[at..=at], at as u64).unwrap();
    }
    let wanted = u32::from_ne_bytes(whole[8..12].try_into().unwrap());
    assert!(
        versions.contains("version 255.") && versions.contains(&format!("needs {wanted}.")),
        "{versions}"
    );
    for cut in [length - 1, 256, 255, 0] {
        file.set_len(cut).unwrap();
        assert!(
            matches!(refused(open()), SegmentError::Truncated { .. }),
            "{cut} bytes"
        );
    }
    file.set_len(length).unwrap();
    file.write_all_at(&whole, 0).unwrap();
    drop(open().unwrap());
    stranger.finish();
    gone(&name);
}

/// Every way to a name.
fn every_way(name: &str) -> Vec<SegmentError> {
    let queue = || Queue::<u64>::builder();
    vec![
        refused(Segment::open(name)),
        refused(Segment::create(name, 64)),
        refused(queue().open(name)),
        refused(queue().create(name)),
        refused(queue().open_or_create(name)),
        refused(Lock::<u64>::open(name)),
        refused(Lock::create(name, 1_u64)),
        refused(Lock::open_or_create(name, 1_u64)),
    ]
}

fn what_is_not_ours_is_refused() {
    let name = fresh("planted");
    let planted = path(&name);
    let target = std::env::temp_dir().join(&name);
    fs::write(&target, b"precious").unwrap();
    let modified = || fs::metadata(&target).unwrap().modified().unwrap();
    let before = modified();
    let check = |what: &str| {
        for error in every_way(&name) {
            assert!(
                matches!(error, SegmentError::Foreign { .. }),
                "{what}: {error:?}"
            );
        }
    };
    let file = |mode: u32| {
        fs::write(&planted, b"x").unwrap();
        fs::set_permissions(&planted, Permissions::from_mode(mode)).unwrap();
    };
    symlink(&target, &planted).unwrap();
    check("symbolic link");
    fs::remove_file(&planted).unwrap();
    symlink("/nowhere/at/all", &planted).unwrap();
    check("symbolic link to nothing");
    fs::remove_file(&planted).unwrap();
    fs::create_dir(&planted).unwrap();
    check("directory");
    fs::remove_dir(&planted).unwrap();
    nix::unistd::mkfifo(&planted, nix::sys::stat::Mode::S_IRWXU).unwrap();
    check("FIFO");
    fs::remove_file(&planted).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(&planted).unwrap();
    check("socket");
    drop(socket);
    fs::remove_file(&planted).unwrap();
    for mode in [0o666, 0o640, 0o601] {
        file(mode);
        check("open to others");
    }
    file(0o600);
    let second = planted.with_extension("second");
    fs::hard_link(&planted, &second).unwrap();
    check("linked twice");
    fs::remove_file(&second).unwrap();
    if nix::unistd::geteuid().is_root() {
        chown(&planted, Some(65_534), None).unwrap();
        check("of another user");
        chown(&planted, Some(0), None).unwrap();
    } else {
        println!("SKIPPED: a file of another user at a name, for only root can plant one");
    }
    fs::remove_file(&planted).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"precious");
    assert_eq!(modified(), before);
    fs::remove_file(&target).unwrap();
    swapped_while_it_is_opened(&name, &planted);
}

/// Something else takes the name again and again while it is being opened.
fn swapped_while_it_is_opened(name: &str, planted: &Path) {
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                // Whoever opens may take the file away, and may have made a segment of its own.
                let _ = symlink("/dev/zero", planted);
                let _ = fs::remove_file(planted);
                let _ = fs::write(planted, b"x");
                let _ = fs::set_permissions(planted, Permissions::from_mode(0o600));
                let _ = nix::unistd::mkfifo(planted, nix::sys::stat::Mode::S_IRWXU);
                let _ = fs::remove_file(planted);
            }
        });
        let end = Instant::now() + Duration::from_secs(1);
        while Instant::now() < end {
            match Lock::<u64>::open(name) {
                Err(SegmentError::Foreign { .. } | SegmentError::NotFound { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    gone(name);
}
