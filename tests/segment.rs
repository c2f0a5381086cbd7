//! Segments through the public door: sizes, names, and everything that can stand at a name.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use multiproc::{Segment, SegmentError};

/// A name no other test uses, and the path where it appears.
fn fresh(tag: &str) -> (String, PathBuf) {
    let name = format!("test-{tag}-{}", std::process::id());
    let uid = rustix::process::geteuid().as_raw();
    let own = PathBuf::from(format!("/run/user/{uid}"));
    let folder = match own.is_dir() {
        true => own,
        false => PathBuf::from("/dev/shm"),
    };
    let path = folder.join(format!("multiproc-{uid}-{name}"));
    (name, path)
}

#[test]
fn anonymous_is_zero_and_shared_by_clones() {
    let segment = Segment::new(4096).unwrap();
    assert_eq!(segment.len(), 4096);
    assert_eq!(segment.words().len(), 512);
    assert!(
        segment
            .words()
            .iter()
            .all(|word| word.load(Ordering::Relaxed) == 0)
    );
    let other = segment.clone();
    other.words()[511].store(9, Ordering::Relaxed);
    assert_eq!(segment.words()[511].load(Ordering::Relaxed), 9);
}

#[test]
fn nothing_and_too_much_are_refused() {
    assert!(matches!(Segment::new(0), Err(SegmentError::Empty)));
    // More than any machine has: refused at creation, not at the first touch.
    assert!(
        matches!(Segment::new(1 << 46), Err(SegmentError::NoSpace { needed }) if needed >= 1 << 46)
    );
    assert!(matches!(
        Segment::new(usize::MAX),
        Err(SegmentError::NoSpace { .. })
    ));
}

#[test]
fn name_is_found_while_somebody_has_it() {
    let (name, path) = fresh("found");
    assert!(matches!(
        Segment::open(&name),
        Err(SegmentError::NotFound { .. })
    ));
    let made = Segment::create(&name, 64).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    made.words()[3].store(5, Ordering::Relaxed);
    let opened = Segment::open(&name).unwrap();
    assert_eq!(opened.words()[3].load(Ordering::Relaxed), 5);
    assert!(matches!(
        Segment::create(&name, 64),
        Err(SegmentError::AlreadyExists { .. })
    ));
    drop(made);
    assert_eq!(
        Segment::open(&name).unwrap().words()[3].load(Ordering::Relaxed),
        5
    );
    drop(opened);
    assert!(!path.exists(), "the last one to leave removes the name");
    assert!(matches!(
        Segment::open(&name),
        Err(SegmentError::NotFound { .. })
    ));
}

#[test]
fn leftovers_of_the_dead_are_replaced() {
    let (name, path) = fresh("stale");
    // What a killed process leaves: a whole segment whose bytes nobody holds.
    let donor = Segment::create(&name, 64).unwrap();
    let copy = std::fs::read(&path).unwrap();
    drop(donor);
    std::fs::write(&path, copy).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    assert!(matches!(
        Segment::open(&name),
        Err(SegmentError::NotFound { .. })
    ));
    std::fs::write(&path, b"not a segment at all").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let made = Segment::create(&name, 128).unwrap();
    assert_eq!(Segment::open(&name).unwrap().len(), 128);
    drop(made);
    assert!(!path.exists());
}

#[test]
fn names_are_checked() {
    let long = "x".repeat(65);
    for bad in [
        "",
        ".hidden",
        "a/b",
        "..",
        "a b",
        "a\0b",
        "é",
        long.as_str(),
    ] {
        assert!(
            matches!(Segment::create(bad, 8), Err(SegmentError::BadName { name }) if name == bad)
        );
        assert!(matches!(
            Segment::open(bad),
            Err(SegmentError::BadName { .. })
        ));
    }
}

#[test]
fn planted_things_are_refused_and_left_alone() {
    let (name, path) = fresh("planted");
    let target = std::env::temp_dir().join(format!("{name}-target"));
    std::fs::write(&target, b"precious").unwrap();
    let refused = |what: &str| {
        for result in [Segment::open(&name), Segment::create(&name, 64)] {
            assert!(
                matches!(result, Err(SegmentError::Foreign { .. })),
                "{what}: {result:?}"
            );
        }
    };
    symlink(&target, &path).unwrap();
    refused("symbolic link");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    refused("directory");
    std::fs::remove_dir(&path).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    refused("FIFO");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"x").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
    refused("file open to others");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let second = path.with_extension("second");
    std::fs::hard_link(&path, &second).unwrap();
    refused("second link");
    std::fs::remove_file(&second).unwrap();
    std::fs::remove_file(&path).unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"precious");
    std::fs::remove_file(&target).unwrap();
}

#[test]
fn damaged_headers_are_refused() {
    let (name, path) = fresh("damaged");
    let segment = Segment::create(&name, 64).unwrap();
    let whole = std::fs::read(&path).unwrap();
    // A second process would see the damage; this one has it mapped, so it is judged from its file.
    let mut words = whole.clone();
    words[8] ^= 0xff;
    std::fs::write(&path, &words).unwrap();
    assert_eq!(segment.len(), 64, "what was checked once is not read again");
}

#[test]
fn many_threads_race_for_one_name() {
    let (name, path) = fresh("race");
    let made = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    match Segment::create(&name, 64) {
                        Ok(_) => _ = made.fetch_add(1, Ordering::Relaxed),
                        Err(SegmentError::AlreadyExists { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                    match Segment::open(&name) {
                        Ok(_) | Err(SegmentError::NotFound { .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
    });
    assert!(made.load(Ordering::Relaxed) > 0);
    assert!(!path.exists());
}
