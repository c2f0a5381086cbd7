//! Python's multiprocessing: small scripts that time themselves and print nanoseconds.

use crate::rig::Sample;
use anyhow::{Context, Result, bail};
use std::process::Command;

/// Runs `script`, whose last line is one figure or two: the value, and what stands beside it.
pub fn script(script: &str) -> Result<Sample> {
    let output = Command::new("python3")
        .args(["-c", script])
        .output()
        .context("python3 is not here")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut figures = text
        .lines()
        .last()
        .unwrap_or_default()
        .split(' ')
        .map(str::parse::<f64>);
    match figures.next() {
        Some(Ok(value)) => Ok(Sample {
            value,
            beside: figures.next().and_then(Result::ok),
        }),
        _ => {
            let told = String::from_utf8_lossy(&output.stderr);
            bail!("python3: {}", told.lines().last().unwrap_or("no output"))
        }
    }
}

/// A script that starts and joins processes while it owns `size` bytes, all of them touched, in pages of the usual size.
pub fn start(size: usize) -> String {
    START.replace("BYTES", &size.to_string())
}

const START: &str = r#"
import mmap, multiprocessing as mp, time
def nothing(): pass
if __name__ == "__main__":
    ctx = mp.get_context("fork")
    memory = mmap.mmap(-1, max(BYTES, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for at in range(0, BYTES, mmap.PAGESIZE): memory[at] = 1
    times = []
    for _ in range(40):
        at = time.perf_counter_ns()
        p = ctx.Process(target=nothing); p.start(); p.join()
        times.append(time.perf_counter_ns() - at)
    times.sort()
    print(times[20], times[39])
"#;

/// A script that makes a pool of four and times `code` in it; `code` leaves the nanoseconds of each run in `times`.
pub fn pool(code: &str) -> String {
    let code = code.trim().replace('\n', "\n    ");
    format!(
        r#"
import multiprocessing as mp, time
now = time.perf_counter_ns
def square(x): return x * x
def total(data): return len(data)
def four(ctx):
    with ctx.Pool(4) as pool:
        assert [task.get() for task in [pool.apply_async(square, (n,)) for n in range(4)]] == [0, 1, 4, 9]
        pool.close(); pool.join()
if __name__ == "__main__":
    ctx = mp.get_context("fork")
    times = []
    {code}
    times.sort()
    print(times[len(times) // 2])
"#
    )
}
