//! Every public error, variant by variant: what it says, and what it returns as its source.
//!
//! The rule: an error says what was wrong in its own words; what it was caused by, its `source()` returns, and its
//! text does not say it again. An error that adds nothing is transparent. So nobody who prints the chain reads
//! anything twice, and nothing that is held is hidden from the chain.

#![cfg(not(loom))]

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Duration;

use multiproc::{
    Abandoned, Corrupt, DecodeError, EncodeError, Full, JoinError, LoanError, Lock, LockError,
    Payload, PipeError, PoolError, Queue, QueueError, RecvError, SegmentError, SendError,
    SpawnError, TaskError, WorkerExit,
};

/// A variant's name and the error itself.
type Sample = (&'static str, Box<dyn Error>);

/// The samples of one enum: `samples!(RecvError: Empty, Decode(inner()), ..)`.
macro_rules! samples {
    ($of:ident: $($variant:ident $(($($value:expr),*))? $({ $($field:ident: $content:expr),* })?),* $(,)?) => {
        (stringify!($of), vec![$((
            stringify!($variant),
            Box::new($of::$variant $(($($value),*))? $({ $($field: $content),* })?) as Box<dyn Error>,
        )),*])
    };
}

/// What the system says when something is not permitted.
fn refused() -> io::Error {
    io::Error::from_raw_os_error(nix::libc::EPERM)
}

fn decode() -> DecodeError {
    DecodeError::Truncated { needed: 8, left: 3 }
}

fn encode() -> EncodeError {
    EncodeError::SkippedField("age".to_owned())
}

fn text() -> String {
    "some reason".to_owned()
}

/// What a lock says whose last holder panicked.
fn abandoned() -> Abandoned {
    let lock = Lock::new(7_u8).unwrap();
    let half = catch_unwind(AssertUnwindSafe(|| {
        let _guard = lock.lock().unwrap();
        std::panic::resume_unwind(Box::new("half done"));
    }));
    assert!(half.is_err());
    match lock.lock() {
        Err(LockError::Abandoned(abandoned)) => abandoned,
        other => panic!("it was not told: {other:?}"),
    }
}

fn all() -> BTreeMap<&'static str, Vec<Sample>> {
    let (item, pid, name) = (3, 4711, || "PoolWorker-1".to_owned());
    [
        samples!(DecodeError:
            Truncated { needed: 8, left: 3 }, Trailing { left: 3 }, InvalidBits, InvalidText, InvalidNumber,
            NotSelfDescribing, TooDeep { limit: 256 }, TooManyEmpty { limit: 9 }, NoStack { reserve: 9 }, Refused(text()),
        ),
        samples!(EncodeError:
            UnknownLength, SkippedField("age".to_owned()), TooDeep { limit: 256 }, TooManyEmpty { limit: 9 },
            NoStack { reserve: 9 }, WrongLength { written: 9, needed: 8 }, Refused(text()),
            Unreadable { of: text(), part: text() },
        ),
        samples!(SendError:
            Full(1), TimedOut(1), Closed(1), TooLarge { value: 1, needed: 9, limit: 8 },
            Encode { value: 1, error: encode() }, Forked(1), Evicted(1),
        ),
        samples!(RecvError:
            Empty, TimedOut, Closed, Decode(decode()), Forked, Evicted, TooSmall { needed: 9, given: 8 },
            TooLarge { limit: 8 }, NotInPlace,
        ),
        samples!(LoanError: Full, TimedOut, Closed, NotInPlace, Forked, Evicted),
        samples!(QueueError:
            Capacity { asked: 0, largest: 9 }, MessageSize { asked: 1, smallest: 8, largest: 9 },
            Senders { asked: 0, largest: 65_536 }, Receivers { asked: 0, largest: 65_536 },
            MessageLimit { asked: 1, smallest: 8, largest: 9 }, Blocks { asked: 0, largest: 9 }, DeliveryLimit { asked: 0, largest: 9 }, TooManySenders { limit: 16 }, TooManyReceivers { limit: 64 },
            Segment(SegmentError::Unsealed),
        ),
        samples!(PipeError:
            Size { asked: 0, largest: 9 }, MessageLimit { asked: 1, smallest: 8, largest: 9 }, TimedOut, Closed, TooManyCallers { limit: 16 }, Evicted,
            Segment(SegmentError::Unsealed),
        ),
        samples!(SegmentError:
            Empty, NoSpace { needed: 9 }, FileTooLarge { needed: 9, limit: 8 }, TooManyDescriptors { limit: 1024 }, NotFound { name: text() },
            AlreadyExists { name: text() }, BadName { name: text() }, Foreign { name: text(), why: "a link".into() },
            WrongVersion { found: (1, 8), wanted: (2, 8) }, WrongShape { found: text(), wanted: text() },
            Truncated { found: 1, wanted: 2 }, Sparse { found: 1, wanted: 2 }, Unsealed, NotASegment,
            NotOpen { name: text() }, Gone { pid: 4711 },
            NoFolder { name: text(), why: "/dev/shm is not there".into() }, Busy { name: text() }, Evicted,
            Refused { pid: 4711, errno: refused(), others: "know nothing of it" }, Forked, Io(refused()),
            Forbidden { call: "memfd_create", error: refused() },
        ),
        samples!(LockError: Abandoned(abandoned()), WouldBlock, TimedOut, Deadlock, Forked, Evicted),
        samples!(SpawnError:
            NotInitialised, Privileged, Loader { loader: "/lib/ld.so".into(), program: "/bin/app".into() },
            NoZygote { error: refused() }, TooLong { error: refused() }, Refused { call: "pidfd_open", error: refused() },
            NoThread { error: refused() }, Forked, ForeignFunction, Encode(encode()), Image { error: refused() }, OtherImage,
            TooManyProcesses { limit: Some(100), error: refused() },
            TooManyDescriptors { limit: Some(1024), error: refused() }, NoMemory { error: refused() },
            CurrentDir { path: PathBuf::from("/root"), error: refused() }, Affinity { error: refused() },
            Nice { error: refused() }, NotReady(text()), Evicted, Io(refused()),
            NoNullDevice { error: refused() },
        ),
        samples!(JoinError:
            Panicked { message: text(), location: String::new(), backtrace: String::new() }, Exited(3),
            Signalled(9), ResultTooLarge { bytes: 9, limit: 8 }, Decode(decode()), Encode(text()), Arguments(text()), NotBegun(SpawnError::OtherImage), Taken,
            Unknown, Forked, Evicted, Io(refused()),
        ),
        samples!(PoolError:
            NoWorkers, TooManyWorkers { asked: 5000, limit: 4096 }, Spawn(SpawnError::OtherImage),
            Segment(SegmentError::Unsealed), Encode(encode()), Thread(refused()), Terminated, Broken { why: text() },
        ),
        samples!(TaskError:
            Panicked {
                item: item, pid: pid, name: name(), message: text(), location: String::new(), backtrace: String::new()
            },
            WorkerDied { item: item, pid: pid, name: name(), how: WorkerExit::Unknown, attempt: 1 },
            TimedOut { item: item, pid: None, name: None, limit: Duration::from_secs(1) }, Cancelled { item: item },
            Decode { item: item, pid: None, name: None, what: Payload::Result, error: decode() },
            Encode { item: item, pid: Some(pid), name: Some(name()), what: Payload::Arguments, error: encode() },
            NoMemory { item: item, why: text() }, Unexplained { item: item, why: text() },
            Killed { item: item, pid: pid, name: name() }, OutOfMemory { item: item, pid: pid, name: name(), limit: 9 },
            NoFunction { item: item, why: text() }, PoolClosed { item: item }, PoolBroken { item: item, why: text() },
            Forked,
        ),
    ]
    .into()
}

/// Each error and what it was caused by, as far as it says so.
fn chain(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(error) = cause {
        texts.push(error.to_string());
        cause = error.source();
    }
    texts
}

/// What is wrong with what an error says, if anything.
fn fault(error: &dyn Error) -> Option<String> {
    let chain = chain(error);
    let said = &chain[0];
    let words = said.split_whitespace().count();
    if words < 2 {
        return Some(format!("says hardly anything: {said:?}"));
    }
    // What it holds of another error is its source: nobody has to look for it in the fields.
    let shown = format!("{error:?}");
    let inner = [
        format!("{:?}", refused()),
        format!("{:?}", decode()),
        format!("{:?}", encode()),
    ];
    let holds = |inner: &String| shown.contains(inner.as_str()) && shown != *inner;
    if inner.iter().any(holds) && chain.len() == 1 {
        return Some(format!("hides its source: {shown}"));
    }
    if said.starts_with("operating system") || said.starts_with(&refused().to_string()) {
        return Some(format!("does not say what was tried: {said:?}"));
    }
    if said.ends_with(['.', ' ', ':']) || said.contains("  ") || said.contains("at :") {
        return Some(format!("has a hole: {said:?}"));
    }
    // Numbers that stand for "none", and texts of nothing.
    let made_up = ["pid 0", "\"\"", &u64::MAX.to_string(), "None", "Some("];
    if let Some(what) = made_up.iter().find(|what| said.contains(**what)) {
        return Some(format!("has a value that was made up, {what}: {said:?}"));
    }
    let twice = chain
        .iter()
        .enumerate()
        .find(|(at, cause)| chain[..*at].iter().any(|text| text.contains(*cause)));
    twice.map(|(_, cause)| format!("says {cause:?} twice: {chain:?}"))
}

#[test]
fn every_error_says_what_was_wrong_and_says_it_once() {
    let mut faults = Vec::new();
    for (of, samples) in all() {
        for (variant, error) in samples {
            if let Some(fault) = fault(&*error) {
                faults.push(format!("{of}::{variant} {fault}"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn what_errors_say() {
    let text = |error: &dyn Error| error.to_string();
    let senders = QueueError::Senders {
        asked: 0,
        largest: 65_536,
    };
    assert_eq!(text(&senders), "invalid number of senders 0 (1 to 65536)");
    let died = TaskError::WorkerDied {
        item: 3,
        pid: 4711,
        name: "PoolWorker-1".to_owned(),
        how: WorkerExit::Unknown,
        attempt: 1,
    };
    assert_eq!(
        text(&died),
        "PoolWorker-1 (pid 4711) ended with unknown status in item 3, attempt 1"
    );
}

/// The variants of the public error enums, as the sources have them.
fn variants() -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    let mut folders = vec![PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../src"
    ))];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                read_variants(&std::fs::read_to_string(path).unwrap(), &mut found);
            }
        }
    }
    found
}

/// Adds the variants of each `pub enum SomeError` of a source in rustfmt's form.
fn read_variants(source: &str, found: &mut BTreeMap<String, BTreeSet<String>>) {
    let mut current = None;
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("pub enum ") {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            current = name.ends_with("Error").then_some(name);
        } else if line == "}" {
            current = None;
        } else if let (Some(of), Some(rest)) = (&current, line.strip_prefix("    ")) {
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
            if name.starts_with(|c: char| c.is_uppercase()) {
                found.entry(of.clone()).or_default().insert(name);
            }
        }
    }
}

/// Cannot be made outside of the crate; `lock.rs::scribbled_value_is_an_error` and those of the queue's delivery limit
/// meet them.
const NOT_TO_BE_MADE: [&str; 2] = ["Corrupt", "Undeliverable"];

#[test]
fn no_variant_was_left_out() {
    let here = all();
    for (of, mut variants) in variants() {
        variants.retain(|name| !NOT_TO_BE_MADE.contains(&name.as_str()));
        let samples = here.get(of.as_str());
        let samples = samples.unwrap_or_else(|| panic!("{of} is not looked at"));
        let named: BTreeSet<String> = samples.iter().map(|(name, _)| (*name).into()).collect();
        assert_eq!(named, variants, "of {of}");
    }
}

#[test]
fn the_reader_of_variants_finds_them() {
    let mut found = BTreeMap::new();
    read_variants(
        "pub enum AnyError {\n    /// Text.\n    One,\n    #[error(\"x\")]\n    Two {\n        Field: u8,\n    },\n    Three(u8),\n}\npub enum Other {\n    Four,\n}\n",
        &mut found,
    );
    let names: Vec<_> = found.remove("AnyError").unwrap().into_iter().collect();
    assert_eq!(names, ["One", "Three", "Two"]);
    assert!(found.is_empty());
}

/// The check can fail, for each of its reasons.
#[test]
fn faults_are_found() {
    #[derive(Debug)]
    struct Bad(&'static str, Option<io::Error>);
    impl std::fmt::Display for Bad {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            match &self.1 {
                Some(source) => write!(f, "{}: {source}", self.0),
                None => f.write_str(self.0),
            }
        }
    }
    impl Error for Bad {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|error| error as _)
        }
    }
    for (bad, because) in [
        (Bad("", None), "hardly anything"),
        (Bad("operating system: refused", None), "was tried"),
        (Bad("panicked at : text", None), "a hole"),
        (Bad("the worker (pid 0) is gone", None), "made up"),
        (Bad("cannot open the file", Some(refused())), "twice"),
    ] {
        let fault = fault(&bad).unwrap_or_else(|| panic!("not found: {bad}"));
        assert!(fault.contains(because), "{fault}");
    }
    assert_eq!(fault(&Bad("the file is gone", None)), None);
    #[derive(Debug)]
    #[allow(dead_code, reason = "shown")]
    struct Hides(io::Error);
    impl std::fmt::Display for Hides {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("cannot open the file")
        }
    }
    impl Error for Hides {}
    let fault = fault(&Hides(refused())).expect("a source that is hidden is found");
    assert!(fault.contains("hides its source"), "{fault}");
}

/// Each can be kept, sent to another thread and turned into any of the usual boxes; those of a result can be
/// compared.
#[test]
fn errors_go_everywhere() {
    fn everywhere<T: Error + Send + Sync + Eq + 'static>() {}
    everywhere::<Corrupt>();
    everywhere::<DecodeError>();
    everywhere::<EncodeError>();
    everywhere::<SendError<u8>>();
    everywhere::<RecvError>();
    everywhere::<LoanError>();
    everywhere::<LockError>();
    everywhere::<SegmentError>();
    everywhere::<QueueError>();
    everywhere::<PipeError>();
    everywhere::<SpawnError>();
    everywhere::<JoinError>();
    everywhere::<PoolError>();
    everywhere::<TaskError>();
    everywhere::<Full<u8>>();
}

/// What came of a process or a task can be reported to somebody else, and is then what it was.
#[test]
fn results_travel() {
    let (mut joined, mut there) = Queue::<JoinError>::new(8).unwrap();
    let (mut ended, mut here) = Queue::<TaskError>::new(8).unwrap();
    let mut all = all();
    for (variant, error) in all.remove("JoinError").unwrap() {
        let error = error.downcast::<JoinError>().unwrap();
        let (text, debug) = (chain(&*error), format!("{error:?}"));
        joined.send(*error).unwrap();
        let arrived = there.recv().unwrap();
        assert_eq!(
            (chain(&arrived), format!("{arrived:?}")),
            (text, debug),
            "{variant}"
        );
        assert_ne!(arrived, JoinError::Exited(77));
    }
    for (variant, error) in all.remove("TaskError").unwrap() {
        let error = error.downcast::<TaskError>().unwrap();
        ended.send(TaskError::clone(&error)).unwrap();
        assert_eq!(here.recv().unwrap(), *error, "{variant}");
    }
    for (_, error) in all.remove("SpawnError").unwrap() {
        let begun = JoinError::NotBegun(*error.downcast::<SpawnError>().unwrap());
        let debug = format!("{begun:?}");
        joined.send(begun).unwrap();
        assert_eq!(format!("{:?}", there.recv().unwrap()), debug);
    }
    let death = |how| TaskError::WorkerDied {
        item: 0,
        pid: 4711,
        name: "PoolWorker-1".to_owned(),
        how,
        attempt: 1,
    };
    let [first, second] = [WorkerExit::Signalled(6), WorkerExit::Signalled(9)].map(death);
    assert_ne!(first, second);
}

/// One death, said by everything in the same words.
#[test]
fn a_death_has_one_wording() {
    let how = WorkerExit::Signalled(6);
    let said = "was ended by signal 6 (SIGABRT)";
    assert_eq!(how.to_string(), said);
    assert_eq!(
        JoinError::Signalled(6).to_string(),
        format!("the process {said}")
    );
    assert_eq!(JoinError::Signalled(6).exit(), Some(how));
    let died = TaskError::WorkerDied {
        item: 3,
        pid: 4711,
        name: "PoolWorker-1".to_owned(),
        how,
        attempt: 1,
    };
    let death = died.death().unwrap();
    assert_eq!(death.to_string(), format!("PoolWorker-1 (pid 4711) {said}"));
    assert!(died.to_string().starts_with(&death.to_string()), "{died}");
    assert_eq!((death.pid(), death.name()), (4711, Some("PoolWorker-1")));
}
