//! A pool that has nothing to do does nothing.

use std::time::{Duration, Instant};

use multiproc::Pool;
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};

/// What this process may use of a processor in [`LOOK`] when it rests.
const REST: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(200);
const SOON: Duration = Duration::from_secs(30);

fn used() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Whether this process rests for a whole look, sooner or later.
fn rests() -> bool {
    let end = Instant::now() + SOON;
    while Instant::now() < end {
        let before = used();
        std::thread::sleep(LOOK);
        if used() - before < REST {
            return true;
        }
    }
    false
}

/// Seats that nobody needs any more are looked at for ever.
#[test]
fn a_closed_pool_whose_workers_are_gone_rests() {
    let pool = Pool::new(2).unwrap();
    assert_eq!(pool.map(|x: u64| x + 1, [1, 2]).unwrap(), [2, 3]);
    pool.close();
    for worker in pool.workers() {
        let pid = Pid::from_raw(worker.pid() as i32).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
    }
    let end = Instant::now() + SOON;
    while !pool.workers().is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(pool.workers().is_empty(), "killed workers live");
    assert!(rests(), "it does not rest");
}
