//! Every public type × the traits that users of the standard library and of crossbeam expect of its like.
//!
//! Each row names the counterpart. A trait is written down where the type has it; what the counterpart has and the
//! type has not is in `WITHOUT`, with the reason. A public type without a row fails this test.

#![cfg(not(loom))]

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;
use std::os::fd::AsFd;
use std::panic::{RefUnwindSafe, UnwindSafe};

use multiproc::*;

/// Whether a type has a trait: an inherent constant is found before one of a trait.
macro_rules! has {
    ($type:ty: $($bound:tt)+) => {{
        struct Asked<T: ?Sized>(PhantomData<T>);
        #[allow(dead_code, reason = "not where the type has it")]
        trait Otherwise {
            const HAS: bool = false;
        }
        impl<T: ?Sized> Otherwise for Asked<T> {}
        #[allow(dead_code, reason = "not where the type lacks it")]
        impl<T: ?Sized + $($bound)+> Asked<T> {
            const HAS: bool = true;
        }
        <Asked<$type>>::HAS
    }};
}

/// The traits of a type, of those that are looked at.
macro_rules! traits_of {
    ($type:ty) => {{
        let iterates = has!($type: IntoIterator)
            || has!(&'static $type: IntoIterator)
            || has!(&'static mut $type: IntoIterator);
        let all = [
            ("Send", has!($type: Send)),
            ("Sync", has!($type: Sync)),
            ("Clone", has!($type: Clone)),
            ("Debug", has!($type: Debug)),
            ("UnwindSafe", has!($type: UnwindSafe)),
            ("RefUnwindSafe", has!($type: RefUnwindSafe)),
            ("Hash", has!($type: Hash)),
            ("Eq", has!($type: Eq)),
            ("AsFd", has!($type: AsFd)),
            ("IntoIterator", iterates),
        ];
        all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect::<BTreeSet<_>>()
    }};
}

/// What every type has: it goes to other threads, is lent to them, is shown, and a panic does not make it unusable.
const ALL: [&str; 5] = ["Send", "Sync", "Debug", "UnwindSafe", "RefUnwindSafe"];

/// Rows: a type, and what it has beside `ALL`.
macro_rules! rows {
    ($($type:ty, like $like:literal: $($more:ident)*;)*) => {
        vec![$((stringify!($type), $like, traits_of!($type), vec![$(stringify!($more)),*])),*]
    };
}

type Row = (
    &'static str,
    &'static str,
    BTreeSet<&'static str>,
    Vec<&'static str>,
);

fn rows() -> Vec<Row> {
    rows! {
        Queue<u64>, like "crossbeam_channel (its functions)": ;
        QueueBuilder<u64>, like "std::thread::Builder": Clone;
        Sender<u64>, like "crossbeam_channel::Sender": ;
        Receiver<u64>, like "crossbeam_channel::Receiver": IntoIterator;
        Iter<'static, u64>, like "crossbeam_channel::Iter": IntoIterator;
        Loan<'static, Vec<u8>>, like "std::sync::MutexGuard": ;
        Lease<u64>, like "std::sync::MutexGuard": ;
        QueueStats, like "std::time::Duration": Clone Eq Hash;
        QueueError, like "std::io::Error": Eq;
        SendError<u64>, like "crossbeam_channel::SendError": Clone Eq;
        RecvError, like "crossbeam_channel::RecvError": Clone Eq;
        LoanError, like "crossbeam_channel::TryRecvError": Clone Eq;
        Undeliverable, like "std::string::FromUtf8Error": Clone Eq;
        Pipe<u64, u64>, like "std::os::unix::net::UnixStream (its functions)": ;
        PipeBuilder<u64, u64>, like "std::thread::Builder": Clone;
        PipeEnd<u64, u64>, like "std::os::unix::net::UnixStream": ;
        Listener<u64, u64>, like "std::os::unix::net::UnixListener": ;
        PipeError, like "std::io::Error": Eq;
        Lock<u64>, like "std::sync::Arc<std::sync::Mutex>": Clone;
        Guard<'static, u64>, like "std::sync::MutexGuard": ;
        LockError, like "std::sync::TryLockError": Clone Eq;
        Abandoned, like "std::sync::PoisonError": Clone Eq;
        Frozen<u64>, like "std::sync::Arc<[u64]>": Clone Eq Hash IntoIterator;
        Fd<std::fs::File>, like "std::os::fd::OwnedFd": AsFd;
        Func<(u64,), u64>, like "a pointer to a function": Clone Eq Hash;
        Segment, like "std::sync::Arc<std::fs::File>": Clone;
        SegmentError, like "std::io::Error": Eq;
        Corrupt, like "std::fmt::Error": Clone Eq;
        Plain<u64>, like "std::num::Wrapping": Clone Eq Hash;
        EncodeError, like "std::string::FromUtf8Error": Clone Eq;
        DecodeError, like "std::string::FromUtf8Error": Clone Eq;
        Process, like "std::thread::Thread": Clone Eq Hash;
        ProcessBuilder, like "std::process::Command": Clone;
        Child<u64>, like "std::process::Child": AsFd;
        Output<u64>, like "std::process::Output": Eq;
        Stdio, like "std::process::Stdio": Clone Eq Hash;
        StartMethod, like "std::cmp::Ordering": Clone Eq Hash;
        SpawnError, like "std::io::Error": Eq;
        JoinError, like "std::io::Error": Eq;
        Death, like "std::process::ExitStatus": Clone Eq Hash;
        WorkerExit, like "std::process::ExitStatus": Clone Eq Hash;
        Pool, like "rayon::ThreadPool": ;
        PoolBuilder, like "std::process::Command": Clone;
        PoolView<'static>, like "a reference to a rayon::ThreadPool": Clone;
        WithContext<'static, u64>, like "a reference to a rayon::ThreadPool": Clone;
        Imap<'static, <std::ops::Range<u64> as Items<u64>>::Source, u64, u64>, like "std::iter::Map": IntoIterator;
        PoolError, like "std::io::Error": Eq;
        Task<u64>, like "std::thread::JoinHandle": ;
        TaskError, like "std::string::FromUtf8Error": Clone Eq;
        Full<u64>, like "std::sync::mpsc::SendError": Clone Eq;
        Payload, like "std::cmp::Ordering": Clone Eq Hash;
        OnDeath, like "std::cmp::Ordering": Clone Eq Hash;
        PoolStats, like "std::time::Duration": Clone Eq;
        Insights, like "std::time::Duration": Clone Eq;
        QueueWait, like "std::time::Duration": Clone Eq;
        SlowTask, like "std::time::Duration": Clone Eq;
        WorkerInsights, like "std::time::Duration": Clone Eq;
        Worker, like "std::thread::ThreadId": Clone Eq Hash;
        CurrentWorker, like "std::thread::ThreadId": Clone Eq Hash;
    }
}

/// What `std::io::Error` is not, its payload being anybody's.
const OF_IO: &[&str] = &["UnwindSafe", "RefUnwindSafe"];

/// What a type lacks of `ALL`, and why.
const WITHOUT: &[(&str, &[&str], &str)] = &[
    (
        "Guard",
        &["Send"],
        "a guard stays on its thread, as that of a `Mutex` does",
    ),
    (
        "Imap",
        &["Sync"],
        "all that it does, it does by `&mut self`",
    ),
    ("JoinError", OF_IO, "it may hold one of `std::io`"),
    ("Output", OF_IO, "as `JoinError`"),
    ("PipeError", OF_IO, "as `JoinError`"),
    ("PoolError", OF_IO, "as `JoinError`"),
    ("QueueError", OF_IO, "as `JoinError`"),
    ("SegmentError", OF_IO, "as `JoinError`"),
    ("SpawnError", OF_IO, "as `JoinError`"),
];

/// Public names that are no types.
const TRAITS: [&str; 7] = [
    "ContextFunction",
    "Function",
    "InPlace",
    "Items",
    "MapFunction",
    "Message",
    "PlainData",
];

#[test]
fn every_type_has_what_its_like_has() {
    let mut faults = Vec::new();
    for (name, like, has, more) in rows() {
        let name = name.split('<').next().unwrap().trim();
        let without = WITHOUT.iter().find(|(of, ..)| *of == name);
        let without = without.map_or(&[][..], |(_, traits, _)| *traits);
        let all = ALL.into_iter().filter(|name| !without.contains(name));
        let wanted: BTreeSet<_> = all.chain(more).collect();
        if has != wanted {
            let missing: Vec<_> = wanted.difference(&has).collect();
            let beyond: Vec<_> = has.difference(&wanted).collect();
            faults.push(format!(
                "{name} (like {like}) lacks {missing:?}, has beyond {beyond:?}"
            ));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The names that the crate gives out, as its front door has them.
fn public_names(source: &str) -> BTreeSet<String> {
    let uses = source.split("pub use ").skip(1);
    let names = uses.flat_map(|rest| {
        let list = rest.split(';').next().unwrap();
        let list = list.split_once('{').map_or_else(
            || list.rsplit("::").next().unwrap().to_owned(),
            |(_, names)| names.trim_end_matches('}').to_owned(),
        );
        list.split(',')
            .map(|name| name.trim().to_owned())
            .collect::<Vec<_>>()
    });
    names
        .filter(|name| name.starts_with(char::is_uppercase))
        .collect()
}

#[test]
fn every_public_type_has_a_row() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src/lib.rs");
    let mut names = public_names(&std::fs::read_to_string(root).unwrap());
    assert!(names.len() > 50, "{names:?}");
    TRAITS
        .iter()
        .for_each(|name| assert!(names.remove(*name), "{name} is no name any more"));
    let rows = rows().into_iter();
    let rows: BTreeSet<_> = rows
        .map(|(name, ..)| name.split('<').next().unwrap().trim().to_owned())
        .collect();
    assert_eq!(names, rows);
}

/// The public enums of the sources that could not get another variant without breaking programs.
fn exhaustive_enums(source: &str, names: &BTreeSet<String>) -> Vec<String> {
    let lines: Vec<_> = source.lines().collect();
    let enums = lines.iter().enumerate().filter_map(|(at, line)| {
        let name = line.strip_prefix("pub enum ")?;
        let name = name.split([' ', '<']).next()?.to_owned();
        let head = lines[..at]
            .iter()
            .rev()
            .take_while(|line| line.starts_with("#[") || line.starts_with("///"));
        let may_grow = head.into_iter().any(|line| *line == "#[non_exhaustive]");
        (names.contains(&name) && !may_grow).then_some(name)
    });
    enums.collect()
}

#[test]
fn every_public_enum_may_grow() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../src");
    let names = public_names(&std::fs::read_to_string(format!("{root}/lib.rs")).unwrap());
    let mut folders = vec![std::path::PathBuf::from(root)];
    let (mut found, mut files) = (Vec::new(), 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files += 1;
                found.extend(exhaustive_enums(
                    &std::fs::read_to_string(path).unwrap(),
                    &names,
                ));
            }
        }
    }
    assert!(files > 50 && found.is_empty(), "{found:?}");
    let names = BTreeSet::from(["A".to_owned(), "B".to_owned()]);
    let source = "#[non_exhaustive]\n/// Text.\npub enum A {\n}\n#[derive(Debug)]\npub enum B<T> {\n}\npub enum C {}\n";
    assert_eq!(exhaustive_enums(source, &names), ["B"]);
}

/// The checks can fail.
#[test]
fn what_is_asked_is_answered() {
    let of = traits_of!(std::rc::Rc<std::cell::Cell<u8>>);
    assert_eq!(of, BTreeSet::from(["Clone", "Debug", "Eq"]));
    let of = traits_of!(Vec<u8>);
    assert!(
        of.contains("Hash") && of.contains("IntoIterator") && !of.contains("AsFd"),
        "{of:?}"
    );
    let names = public_names("mod x;\npub use a::{B, c,\n    D};\npub use e::f::G;\n");
    assert_eq!(names, BTreeSet::from(["B", "D", "G"].map(str::to_owned)));
}
