//! Mutexes: pthread's robust one and raw_sync's between processes, parking_lot's between threads.
//!
//! Why this file may use unsafe: it places C mutexes in shared memory and reaches the value they guard, which is only
//! touched while the mutex is held. Everything is made before the fork and mapped until the process ends.

use crate::rig::board::{Common, Shared};
use crate::rig::roles::Mutual;
use anyhow::Result;
use raw_sync::locks::{LockImpl, LockInit};
use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// A C mutex and, on another line, what it guards.
#[repr(C, align(128))]
pub struct Place {
    mutex: UnsafeCell<MaybeUninit<libc::pthread_mutex_t>>,
    value: Value,
}

#[repr(C, align(128))]
struct Value(UnsafeCell<[u64; 2]>);

// SAFETY: the mutex is made for use by several processes, the value is touched by its holder only, and any bytes are a
// value of either.
unsafe impl Sync for Place {}
// SAFETY: as above.
unsafe impl Common for Place {}

/// pthread, shared between processes and robust.
pub struct Pthread(Shared<Place>);

impl Pthread {
    pub fn new() -> Result<Pthread> {
        let place: Shared<Place> = Shared::new()?;
        let mut kind = MaybeUninit::uninit();
        // SAFETY: the attributes are initialised by the first call; the mutex has its place and nobody uses it yet.
        unsafe {
            libc::pthread_mutexattr_init(kind.as_mut_ptr());
            libc::pthread_mutexattr_setpshared(kind.as_mut_ptr(), libc::PTHREAD_PROCESS_SHARED);
            libc::pthread_mutexattr_setrobust(kind.as_mut_ptr(), libc::PTHREAD_MUTEX_ROBUST);
            libc::pthread_mutex_init(place.mutex.get().cast(), kind.as_ptr());
        }
        Ok(Pthread(place))
    }

    pub fn total(&self) -> [u64; 2] {
        let mut total = [0; 2];
        (&mut &*self).inside(|both| total = *both);
        total
    }
}

impl Mutual for &Pthread {
    fn inside(&mut self, change: impl FnOnce(&mut [u64; 2])) {
        // SAFETY: initialised in `new`; the value is touched between lock and unlock only.
        unsafe {
            assert_eq!(libc::pthread_mutex_lock(self.0.mutex.get().cast()), 0);
            change(&mut *self.0.value.0.get());
            assert_eq!(libc::pthread_mutex_unlock(self.0.mutex.get().cast()), 0);
        }
    }
}

/// raw_sync's, as a process that joins one finds it.
pub struct Raw(Box<dyn LockImpl>);

/// Memory with raw_sync's mutex in it.
pub struct RawPlace(Shared<Place>);

impl RawPlace {
    pub fn new() -> Result<RawPlace> {
        let place: Shared<Place> = Shared::new()?;
        // SAFETY: memory for the mutex and for the value, mapped until the process ends, used by nobody yet.
        let made = unsafe {
            raw_sync::locks::Mutex::new(place.mutex.get().cast(), place.value.0.get().cast())
        };
        made.map_err(|error| anyhow::anyhow!("{error}"))?;
        Ok(RawPlace(place))
    }

    pub fn join(&self) -> Raw {
        // SAFETY: made in `new`.
        let found = unsafe {
            raw_sync::locks::Mutex::from_existing(
                self.0.mutex.get().cast(),
                self.0.value.0.get().cast(),
            )
        };
        Raw(found.expect("the mutex made before").0)
    }

    pub fn total(&self) -> [u64; 2] {
        let mut total = [0; 2];
        self.join().inside(|both| total = *both);
        total
    }
}

impl Mutual for Raw {
    fn inside(&mut self, change: impl FnOnce(&mut [u64; 2])) {
        let guard = self.0.lock().expect("a mutex nobody died in");
        // SAFETY: the guard points to the value, which is touched while it is held only.
        change(unsafe { &mut *guard.cast::<[u64; 2]>() });
    }
}

/// parking_lot's, for threads of one process.
#[derive(Clone, Default)]
pub struct ParkingLot(Arc<parking_lot::Mutex<Apart>>);

/// Not on the line of the mutex.
#[repr(align(128))]
#[derive(Default)]
struct Apart([u64; 2]);

impl ParkingLot {
    pub fn total(&self) -> [u64; 2] {
        self.0.lock().0
    }
}

impl Mutual for ParkingLot {
    fn inside(&mut self, change: impl FnOnce(&mut [u64; 2])) {
        change(&mut self.0.lock().0);
    }
}
