//! Decorators: functions around functions, of any arguments and results.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use multiproc::{Func, Message, Pool, TaskError};

/// Runs a function in a worker, and says how long it took there.
pub fn timed<A: Message, R: Message>(run: Func<A, R>, arguments: A) -> (R, Duration) {
    let begun = Instant::now();
    let result = run.call(arguments);
    (result, begun.elapsed())
}

/// Calls a function by a pool until it has a result, so many times at most; what kills its worker counts as well.
pub fn retry<A: Message + Clone, R: Message>(
    pool: &Pool,
    times: u32,
    run: Func<A, R>,
    arguments: A,
) -> Result<R> {
    let mut attempt = 1;
    loop {
        match pool.apply(Func::call, (run, arguments.clone())) {
            Err(TaskError::Panicked { .. } | TaskError::WorkerDied { .. }) if attempt < times => {
                attempt += 1;
            }
            result => return result.with_context(|| format!("failed in attempt {attempt}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use multiproc::Lock;

    use super::*;

    fn nap(milliseconds: u64) -> u64 {
        std::thread::sleep(Duration::from_millis(milliseconds));
        milliseconds
    }

    /// Dies, panics, and is done; holding a lock meanwhile.
    fn moody(calls: Lock<u64>) -> Result<u64, String> {
        fn moody(calls: &Lock<u64>) -> Result<u64> {
            let mut calls = calls.lock_or_repair(|calls| *calls = 1)?;
            match *calls {
                0 => std::process::abort(),
                1 => *calls += 1,
                _ => return Ok(*calls),
            }
            drop(calls);
            panic!("not yet");
        }
        moody(&calls).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_function_is_timed_where_it_runs() -> Result<()> {
        let pool = Pool::new(1)?;
        let (result, took) = pool.apply(timed, (Func::of(nap), (20,)))?;
        assert_eq!(result, 20);
        assert!(took >= Duration::from_millis(20));
        Ok(())
    }

    #[test]
    fn a_function_is_tried_again_after_deaths_and_panics() -> Result<()> {
        let pool = Pool::new(1)?;
        let calls = Lock::new(0_u64)?;
        assert_eq!(retry(&pool, 3, Func::of(moody), (calls.clone(),))?, Ok(2));
        assert_eq!(*calls.lock()?, 2);
        let failed = retry(
            &pool,
            2,
            Func::of(|_: u8| -> u8 { std::process::exit(9) }),
            (1,),
        );
        let said = format!("{:#}", failed.unwrap_err());
        assert!(
            said.starts_with("failed in attempt 2: PoolWorker-"),
            "{said}"
        );
        assert!(said.contains("exited with code 9"), "{said}");
        Ok(())
    }
}
