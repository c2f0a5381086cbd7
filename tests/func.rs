//! Functions as values, between real processes.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use multiproc::{Func, Pool, Process, Queue, TaskError};
use multiproc_tests::whole;
use serde::{Deserialize, Serialize};

const DEADLINE: Duration = Duration::from_secs(60);

type Job = Func<(u64,), u64>;

fn double(x: u64) -> u64 {
    2 * x
}

fn fails(x: u64) -> u64 {
    panic!("no {x}")
}

fn generic<T: Into<u64>>(x: T) -> u64 {
    x.into()
}

/// Two functions that one name stands for.
fn closures() -> [Job; 2] {
    [Func::of(|x: u64| x + 1), Job::from(|x| x + 2)]
}

#[test]
fn a_queue_of_jobs_is_worked_off_by_another_process() {
    let (mut tx, rx) = Queue::<(Job, u64)>::new(8).unwrap();
    let (results_tx, mut results) = Queue::<u64>::new(8).unwrap();
    let work = |mut jobs: multiproc::Receiver<(Job, u64)>, mut results: multiproc::Sender<u64>| {
        while let Ok((job, x)) = jobs.recv() {
            results.send(job.call((x,))).unwrap();
        }
    };
    let child = Process::spawn(work, (rx, results_tx)).unwrap();
    let [one, two] = closures();
    for job in [Func::of(double), one, two, Func::of(generic::<u64>)] {
        tx.send((job, 20)).unwrap();
    }
    drop(tx);
    let all = (0..4).map(|_| results.recv_timeout(DEADLINE).unwrap());
    assert_eq!(all.collect::<Vec<_>>(), [40, 21, 22, 20]);
    assert!(child.join_timeout(DEADLINE).unwrap().is_some());
}

#[test]
fn it_is_the_same_function_in_every_process_and_no_other() {
    let all = || {
        let [one, two] = closures();
        vec![Func::of(double), Func::of(fails), one, two]
    };
    let there = |theirs: Vec<Job>| {
        let [one, two] = closures();
        let ours = [Func::of(double), Func::of(fails), one, two];
        let same = |theirs: &Job| ours.iter().map(|job| job == theirs).collect::<Vec<_>>();
        (theirs.iter().map(same).collect::<Vec<_>>(), theirs)
    };
    let child = Process::spawn(there, (all(),)).unwrap();
    let (same, back) = child.join_timeout(DEADLINE).unwrap().unwrap();
    for (at, row) in same.iter().enumerate() {
        assert_eq!(*row, [0, 1, 2, 3].map(|other| other == at), "{at}");
    }
    assert_eq!(back, all());
    // Those two have one name.
    let [one, two] = closures();
    assert_eq!(one.name(), two.name());
    assert_eq!(
        all().into_iter().chain(back).collect::<HashSet<_>>().len(),
        4
    );
    assert_eq!(format!("{:?}", Job::of(double)), "Func(func::double)");
    assert_eq!(Job::of(generic::<u64>).name(), "func::generic<u64>");
    assert_ne!(
        Func::<(u32,), u64>::of(generic),
        Func::of(|x: u32| u64::from(x))
    );
}

#[test]
fn a_pool_takes_it_where_it_takes_a_function() {
    let pool = Pool::new(2).unwrap();
    let job: Job = double.into();
    assert_eq!(pool.apply(Func::call, (job, (21,))).unwrap(), 42);
    let pairs = (0..100).map(|x| (job, (x,)));
    let doubled = pool.starmap(Func::call, pairs).unwrap();
    assert!(doubled.into_iter().eq((0..100).map(double)));
    let by_context = pool.with(job).map(|job: &Job, x| job.call((x,)), [1, 2]);
    assert_eq!(by_context.unwrap(), [2, 4]);
    let error = pool.apply(Func::call, (Job::of(fails), (7,))).unwrap_err();
    assert!(matches!(&error, TaskError::Panicked { .. }), "{error}");
    assert!(error.to_string().contains("no 7"), "{error}");
    pool.close();
    pool.join().unwrap();
}

/// A decorator around any function of a fallible kind.
fn retried(job: Func<(u32,), Result<u32, String>>, attempts: u32) -> Result<u32, String> {
    let mut last = Err("never tried".to_owned());
    for attempt in 0..attempts {
        last = job.call((attempt,));
        if last.is_ok() {
            break;
        }
    }
    last
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Handler {
    run: Func<(String, u32), String>,
    priority: u8,
}

#[test]
fn decorators_and_tables_of_handlers_need_nothing_else() {
    let third = |attempt: u32| match attempt {
        2 => Ok(attempt),
        _ => Err(format!("not at {attempt}")),
    };
    let child = Process::spawn(retried, (third.into(), 2)).unwrap();
    let failed = child.join_timeout(DEADLINE).unwrap().unwrap();
    assert_eq!(failed, Err("not at 1".to_owned()));
    let child = Process::spawn(retried, (third.into(), 3)).unwrap();
    assert_eq!(child.join_timeout(DEADLINE).unwrap().unwrap(), Ok(2));

    let handler = |run, priority| Handler { run, priority };
    let table = HashMap::from([
        (
            "repeat".to_owned(),
            handler(Func::of(|s: String, n| s.repeat(n as usize)), 1),
        ),
        (
            "number".to_owned(),
            handler(Func::of(|s: String, n| format!("{s}{n}")), 2),
        ),
    ]);
    let work =
        |table: HashMap<String, Handler>, name: String| table[&name].run.call(("ab".to_owned(), 2));
    for (name, result) in [("repeat", "abab"), ("number", "ab2")] {
        let child = Process::spawn(work, (table.clone(), name.to_owned())).unwrap();
        assert_eq!(child.join_timeout(DEADLINE).unwrap().unwrap(), result);
    }
}

#[test]
fn what_names_no_function_of_this_program_is_refused() {
    let read = |bytes: &[u8]| postcard::from_bytes::<Job>(bytes);
    let bytes = postcard::to_allocvec(&Job::of(double)).unwrap();
    assert_eq!(read(&bytes).unwrap(), Func::of(double));
    // Nothing is called to find out: whatever is forged, it is a function of these types or an error.
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut forged = bytes.clone();
            forged[at] ^= 1 << bit;
            if let Ok(job) = read(&forged) {
                assert_eq!(job.call((1,)), 2);
            }
        }
    }
    assert!(postcard::from_bytes::<Func<(u64,), u32>>(&bytes).is_err());
    assert!(postcard::from_bytes::<Func<(u64, u64), u64>>(&bytes).is_err());
}

/// As another build of the program would send it, in the crate's own format.
#[derive(Serialize, Deserialize)]
struct Raw(u64, (i64, u64, u64));

#[test]
fn a_function_of_another_build_or_type_is_refused_with_the_reason() {
    let echo = |raw: Raw| raw;
    let forge = |image: u64, types: u64| {
        let raw: Raw = {
            // What a `Func` consists of, read back as plain numbers.
            let bytes = postcard::to_allocvec(&Job::of(double)).unwrap();
            postcard::from_bytes(&bytes).unwrap()
        };
        Raw(raw.0 ^ image, (raw.1.0, raw.1.1, raw.1.2 ^ types))
    };
    // The two ends of a queue disagree on the type as two builds would.
    let sent = |raw: Raw| {
        let bytes = postcard::to_allocvec(&raw).unwrap();
        postcard::from_bytes::<Job>(&bytes).is_ok()
    };
    assert!(sent(forge(0, 0)));
    assert!(!sent(forge(1, 0)));
    assert!(!sent(forge(0, 1)));
    // And in the crate's own messages the error says what is wrong.
    let refused = |raw: Raw| {
        let child = Process::spawn(as_a_job, (Disguised(raw),)).unwrap();
        whole(&child.join_timeout(DEADLINE).unwrap_err())
    };
    let text = refused(forge(1, 0));
    assert!(text.contains("another build"), "{text}");
    let text = refused(forge(0, 1));
    assert!(text.contains("takes `(u64,)` and returns `u64`"), "{text}");
    let child = Process::spawn(echo, (forge(0, 0),)).unwrap();
    assert_eq!(
        child.join_timeout(DEADLINE).unwrap().unwrap().0,
        forge(0, 0).0
    );
}

/// Written as numbers, read as a function.
struct Disguised(Raw);

impl Serialize for Disguised {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Disguised {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Job::deserialize(deserializer) {
            Ok(_) => Ok(Disguised(Raw(0, (0, 0, 0)))),
            Err(error) => Err(error),
        }
    }
}

fn as_a_job(_: Disguised) {}

/// A token that anybody may copy: see "Captured values" at `Function`.
#[derive(Clone, Copy)]
struct Token;

#[test]
fn a_captured_value_of_no_size_is_made_where_the_function_runs() {
    let token = Token;
    let holds = Func::<(), bool>::of(move || {
        let Token = token;
        true
    });
    let child = Process::spawn(Func::call, (holds, ())).unwrap();
    assert!(child.join_timeout(DEADLINE).unwrap().unwrap());
}

#[test]
fn it_is_as_free_as_a_function_pointer() {
    fn free<T: Send + Sync + Copy + Eq + Unpin + std::panic::RefUnwindSafe + 'static>() {}
    // Also of types that are none of these.
    free::<Func<(std::cell::Cell<u8>,), std::rc::Rc<u8>>>();
    assert_eq!(size_of::<Option<Job>>(), size_of::<usize>());
}
