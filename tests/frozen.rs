//! Frozen arrays through the public door, in one process. How they travel is in `tests/processes`.

#![allow(unsafe_code, reason = "tries every way to write to what is sealed")]

mod fork_advice;

use std::fs::{File, read_dir, read_link};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Mutex;

use bytemuck::{CheckedBitPattern, NoUninit};
use multiproc::{Frozen, SegmentError};
use nix::libc;

/// Tests that count descriptors or look for one run alone.
static ALONE: Mutex<()> = Mutex::new(());

/// The descriptors of sealed memory that this process has.
fn sealed_files() -> Vec<PathBuf> {
    let entries = read_dir("/proc/self/fd").unwrap();
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| {
            read_link(path).is_ok_and(|to| to.to_string_lossy().contains("multiproc:sealed"))
        })
        .collect()
}

#[test]
fn is_the_slice_it_was_made_from() {
    let _alone = ALONE.lock();
    let numbers: Vec<f64> = (0..10_000).map(f64::from).collect();
    let frozen = Frozen::from_slice(&numbers).unwrap();
    assert_eq!(*frozen, *numbers);
    assert_eq!(frozen.len(), 10_000);
    assert_eq!(frozen[1..3], [1.0, 2.0]);
    assert_eq!(frozen.iter().sum::<f64>(), numbers.iter().sum());
    let same = frozen.clone();
    assert_eq!(same.as_ptr(), frozen.as_ptr(), "a clone is the same memory");
    drop(frozen);
    assert_eq!(same, Frozen::from_slice(&numbers).unwrap());
    assert_eq!(
        format!("{:?}", Frozen::from_slice(&[1, 2]).unwrap()),
        "[1, 2]"
    );
}

#[test]
fn is_built_in_place() {
    let _alone = ALONE.lock();
    let frozen = Frozen::<u32>::build(5_000, |items| {
        assert!(items.iter().all(|&item| item == 0), "it starts as zeroes");
        assert_eq!(items.len(), 5_000);
        for (n, item) in items.iter_mut().enumerate() {
            *item = n as u32;
        }
    })
    .unwrap();
    assert!(frozen.iter().copied().eq(0..5_000));
}

#[test]
fn is_made_from_an_iterator_of_any_length() {
    let _alone = ALONE.lock();
    // Around the sizes in which it gathers.
    for len in [0, 1, 8_191, 8_192, 8_193, 100_000] {
        let frozen = Frozen::from_iter((0..len).filter(|_| true)).unwrap();
        assert!(frozen.iter().copied().eq(0..len), "{len} items");
    }
    // Items larger than what it gathers.
    let frozen = Frozen::from_iter(std::iter::repeat_n([7u8; 70_000], 3)).unwrap();
    assert!(frozen.len() == 3 && frozen.as_flattened().iter().all(|&byte| byte == 7));
}

/// Large arrays lie on huge pages where the machine has them: no byte may be lost at their edges.
#[test]
fn large_arrays_are_whole() {
    const HUGE: usize = 2 << 20;
    let _alone = ALONE.lock();
    for len in [
        HUGE - 64,
        HUGE - 63,
        HUGE,
        2 * HUGE - 64,
        2 * HUGE + 1,
        3 * HUGE - 65,
    ] {
        let items: Vec<u8> = (0..len).map(|n| (n / 7 + 1) as u8).collect();
        let copied = Frozen::from_slice(&items).unwrap();
        let built = Frozen::build(len, |place| {
            assert!(place.iter().all(|&item| item == 0));
            place.copy_from_slice(&items);
        });
        let taken = Frozen::from_iter(items.iter().copied()).unwrap();
        for frozen in [copied, built.unwrap(), taken] {
            assert!(*frozen == *items, "{len} items");
        }
    }
}

#[test]
fn empty_arrays_work() {
    let _alone = ALONE.lock();
    assert!(Frozen::<u64>::from_slice(&[]).unwrap().is_empty());
    assert!(Frozen::<u64>::from_iter([]).unwrap().is_empty());
    assert!(
        Frozen::<u64>::build(0, |items| assert!(items.is_empty()))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn any_plain_item_fits() {
    #[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
    #[repr(C, align(4096))]
    struct Page([u8; 4096]);
    #[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
    #[repr(u8)]
    enum Light {
        Red = 1,
        Green = 2,
    }
    fn holds<T: NoUninit + CheckedBitPattern + PartialEq + std::fmt::Debug>(items: &[T]) {
        let frozen = Frozen::from_slice(items).unwrap();
        assert_eq!(*frozen, *items);
        assert_eq!(frozen.as_ptr() as usize % align_of::<T>(), 0);
    }
    let _alone = ALONE.lock();
    holds(&[1u8, 2, 3]);
    holds(&[[1u8; 3]; 7]);
    holds(&[u128::MAX, 0]);
    holds(&['a', 'ß']);
    holds(&[true, false, true]);
    holds(&[Light::Red, Light::Green]);
    holds(&[Page([1; 4096]), Page([2; 4096])]);
}

/// The kernel refuses every way to write, to everyone: through a descriptor, through a mapping, by a new size.
#[test]
fn nobody_can_write() {
    let _alone = ALONE.lock();
    let frozen = Frozen::from_slice(&[7u64; 1_000]).unwrap();
    let files = sealed_files();
    assert_eq!(files.len(), 1, "one descriptor");
    let reads = File::open(&files[0]).unwrap();
    let writes = File::options()
        .read(true)
        .write(true)
        .open(&files[0])
        .unwrap();
    for file in [&reads, &writes] {
        assert!(file.write_at(b"x", 100).is_err(), "write");
        assert!(
            file.write_at(b"x", 1 << 20).is_err(),
            "write behind the end"
        );
        assert!(file.set_len(0).is_err(), "shrink");
        assert!(file.set_len(1 << 20).is_err(), "grow");
        let fd = file.as_raw_fd();
        // SAFETY: each call is expected to be refused; a mapping that is granted is never touched.
        unsafe {
            let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            assert_eq!(libc::fallocate(fd, punch, 0, 4096), -1, "punch a hole");
            let both = libc::PROT_READ | libc::PROT_WRITE;
            let map = libc::mmap(std::ptr::null_mut(), 4096, both, libc::MAP_SHARED, fd, 0);
            assert_eq!(map, libc::MAP_FAILED, "map for writing");
            let map = libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ,
                libc::MAP_SHARED,
                fd,
                0,
            );
            assert_ne!(map, libc::MAP_FAILED, "map for reading");
            assert_eq!(
                libc::mprotect(map, 4096, both),
                -1,
                "make a mapping writable"
            );
            assert_eq!(libc::munmap(map, 4096), 0);
            // All seals are there for good: no more can be set, and there is no call to break one.
            assert_eq!(
                libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_GROW),
                -1,
                "seal again"
            );
        }
    }
    // Our own mapping of it, where the items are.
    let page = frozen.as_ptr() as usize & !4095;
    // SAFETY: changes nothing if it is refused, as it must be.
    let refused =
        unsafe { libc::mprotect(page as *mut _, 4096, libc::PROT_READ | libc::PROT_WRITE) };
    assert_eq!(refused, -1, "make our own mapping writable");
    // The kernel itself does not write there either, as for a read into the items.
    let source = File::open("/dev/zero").unwrap();
    // SAFETY: the kernel checks the address and refuses to write there.
    let read = unsafe { libc::read(source.as_raw_fd(), frozen.as_ptr() as *mut _, 8) };
    assert_eq!(read, -1, "read into the items");
    assert!(frozen.iter().all(|&item| item == 7));
}

#[test]
fn panic_while_building_leaves_nothing() {
    let _alone = ALONE.lock();
    let before = read_dir("/proc/self/fd").unwrap().count();
    let built = catch_unwind(AssertUnwindSafe(|| {
        Frozen::<u64>::build(1_000, |_| panic!("half done"))
    }));
    assert!(built.is_err());
    let failed = catch_unwind(AssertUnwindSafe(|| {
        Frozen::from_iter((0..10).inspect(|&n| assert!(n < 5)))
    }));
    assert!(failed.is_err());
    assert_eq!(read_dir("/proc/self/fd").unwrap().count(), before);
}

#[test]
fn last_handle_frees_everything() {
    let _alone = ALONE.lock();
    drop(Frozen::from_slice(&[0u8]).unwrap());
    let before = read_dir("/proc/self/fd").unwrap().count();
    let maps = || {
        std::fs::read_to_string("/proc/self/maps")
            .unwrap()
            .matches("multiproc:")
            .count()
    };
    let maps_before = maps();
    let first = Frozen::from_slice(&[1u8; 100]).unwrap();
    let second = first.clone();
    drop(first);
    assert_eq!(second[99], 1);
    assert!(maps() > maps_before);
    drop(second);
    assert_eq!(read_dir("/proc/self/fd").unwrap().count(), before);
    assert_eq!(maps(), maps_before);
}

#[test]
fn too_much_is_refused() {
    let _alone = ALONE.lock();
    for len in [1 << 43, usize::MAX / 8, usize::MAX] {
        let refused = Frozen::<u64>::build(len, |_| panic!("there is not that much memory"));
        assert!(
            matches!(refused, Err(SegmentError::NoSpace { .. })),
            "{len}: {refused:?}"
        );
    }
}

/// A process forked while an array is being built has no hand in it, and does not keep it from being sealed.
#[test]
fn fork_while_building_does_no_harm() {
    if !fork_advice::is_followed() {
        return;
    }
    let _alone = ALONE.lock();
    let mut copy = None;
    let frozen = Frozen::<u64>::build(1_000, |items| {
        // SAFETY: the child does nothing but sleep and end.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                // SAFETY: both may be called in a forked child of a program with threads.
                unsafe {
                    libc::sleep(2);
                    libc::_exit(0)
                }
            }
            nix::unistd::ForkResult::Parent { child } => copy = Some(child),
        }
        items.fill(3);
    });
    let copy = copy.unwrap();
    nix::sys::signal::kill(copy, nix::sys::signal::Signal::SIGKILL).unwrap();
    nix::sys::wait::waitpid(copy, None).unwrap();
    assert!(frozen.unwrap().iter().all(|&item| item == 3));
}

#[test]
fn is_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>(_: &T) {}
    let _alone = ALONE.lock();
    let frozen = Frozen::from_iter(0..1_000u64).unwrap();
    shared(&frozen);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let frozen = frozen.clone();
            scope.spawn(move || assert_eq!(frozen.iter().sum::<u64>(), 499_500));
        }
    });
}

/// What stands in a message for an array, forged: two files, by the numbers under which this process has them.
#[derive(serde::Serialize)]
struct Forged {
    device: u64,
    inode: u64,
    cookie: [u64; 2],
    pid: i32,
    from: u32,
    descriptor: i32,
    beside: Option<Beside>,
    name: Option<String>,
}

/// What a segment stands for: here, sealed memory.
#[derive(serde::Serialize)]
enum Beside {
    Sealed(i32),
}

/// The same message, read as an array: its items, or why not.
struct Taken(Result<Vec<u64>, String>);

enum Message {
    Forged(Forged),
    Taken(Taken),
}

impl serde::Serialize for Message {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Message::Forged(forged) => forged.serialize(serializer),
            Message::Taken(_) => unreachable!("only read"),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Message {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let frozen = Frozen::<u64>::deserialize(deserializer);
        let items = frozen.map(|frozen| frozen.to_vec());
        Ok(Message::Taken(Taken(
            items.map_err(|error| error.to_string()),
        )))
    }
}

/// A file in memory with those bytes and seals.
fn forged_file(bytes: &[u8], seals: libc::c_int) -> File {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("multiproc:forged", flags).unwrap());
    file.write_all_at(bytes, 0).unwrap();
    fcntl_add_seals(&file, SealFlags::from_bits_retain(seals as u32)).unwrap();
    file
}

/// A process that is given the wrong files, or damaged ones, says so; it maps nothing it has not checked.
#[test]
fn forged_handles_are_refused() {
    const SIZE: libc::c_int = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    const ALL: libc::c_int = SIZE | libc::F_SEAL_WRITE;
    let _alone = ALONE.lock();
    let (mut tx, mut rx) = multiproc::Queue::<Message>::new(1).unwrap();
    let frozen = Frozen::from_slice(&[1u64, 2, 3]).unwrap();
    let read = |name: &str| {
        let mut entries = read_dir("/proc/self/fd")
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let named =
            |path: &PathBuf| read_link(path).is_ok_and(|to| to.to_string_lossy().contains(name));
        std::fs::read(entries.find(named).unwrap()).unwrap()
    };
    let (segment, sealed) = (read("multiproc:frozen"), read("multiproc:sealed"));
    drop(frozen);
    let cookie = [16, 24].map(|at| u64::from_ne_bytes(sealed[at..at + 8].try_into().unwrap()));
    let mut take = |segment: &File, sealed: Option<&File>, cookie| {
        let file = segment.metadata().unwrap();
        let forged = Forged {
            device: file.dev(),
            inode: file.ino(),
            cookie,
            pid: std::process::id() as i32,
            from: 0,
            descriptor: segment.as_raw_fd(),
            beside: sealed.map(|sealed| Beside::Sealed(sealed.as_raw_fd())),
            name: None,
        };
        tx.send(Message::Forged(forged)).unwrap();
        match rx.recv().unwrap() {
            Message::Taken(taken) => taken.0,
            Message::Forged(_) => unreachable!("only sent"),
        }
    };
    let good = (forged_file(&segment, SIZE), forged_file(&sealed, ALL));
    assert_eq!(
        take(&good.0, Some(&good.1), cookie),
        Ok(vec![1, 2, 3]),
        "what is right is taken"
    );

    let mut refused = |what: &str, segment: &File, sealed: Option<&File>, cookie| {
        assert!(take(segment, sealed, cookie).is_err(), "{what}");
    };
    refused("nothing sealed", &good.0, None, cookie);
    refused("another cookie", &good.0, Some(&good.1), [1, 2]);
    refused("itself as sealed", &good.0, Some(&good.0), cookie);
    refused("exchanged", &good.1, Some(&good.0), cookie);
    for seals in [
        0,
        SIZE,
        libc::F_SEAL_WRITE,
        SIZE | libc::F_SEAL_FUTURE_WRITE,
    ] {
        let bare = forged_file(&sealed, seals);
        refused("seals are missing", &good.0, Some(&bare), cookie);
    }
    refused(
        "unsealed segment",
        &forged_file(&segment, 0),
        Some(&good.1),
        cookie,
    );
    for length in [0, 8, 31, 63, 64, sealed.len() - 1, sealed.len() - 8] {
        let short = forged_file(&sealed[..length], ALL);
        refused("truncated", &good.0, Some(&short), cookie);
    }
    for at in 0..32 {
        let mut damaged = sealed.clone();
        damaged[at] ^= 1;
        refused(
            "damaged",
            &good.0,
            Some(&forged_file(&damaged, ALL)),
            cookie,
        );
    }
    let half = [&sealed[..], &[0; 4]].concat();
    let mut half_said = half.clone();
    half_said[8..16].copy_from_slice(&(half.len() as u64).to_ne_bytes());
    refused(
        "longer than it says",
        &good.0,
        Some(&forged_file(&half, ALL)),
        cookie,
    );
    refused(
        "half an item",
        &good.0,
        Some(&forged_file(&half_said, ALL)),
        cookie,
    );
    for path in ["/dev/null", "/dev/zero", "/proc/self/exe", "/"] {
        let file = File::open(path).unwrap();
        refused(path, &good.0, Some(&file), cookie);
        refused(path, &file, Some(&good.1), cookie);
    }
}
