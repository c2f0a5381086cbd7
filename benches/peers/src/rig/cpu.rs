//! CPUs to pin to, and what machine this is.

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::fs;

/// CPUs this process may use, one of every core first, so that neighbours in the list share no core while that is possible.
pub fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("asking which CPUs are allowed")?;
    let cpus: Vec<usize> = (0..CpuSet::count())
        .filter(|&cpu| set.is_set(cpu).unwrap_or(false))
        .collect();
    let mut cores = Vec::new();
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for cpu in cpus {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let core = fs::read_to_string(path).unwrap_or_else(|_| cpu.to_string());
        if cores.contains(&core) {
            rest.push(cpu);
        } else {
            cores.push(core);
            first.push(cpu);
        }
    }
    first.append(&mut rest);
    Ok(first)
}

/// `seats` CPUs, each for one process. The first is left to the rest of the system where there are enough.
pub fn seats(seats: usize) -> Result<Vec<usize>> {
    let mut cpus = allowed()?;
    if cpus.len() < seats {
        bail!("needs {seats} CPUs, {} allowed", cpus.len());
    }
    if cpus.len() > seats {
        cpus.remove(0);
    }
    cpus.truncate(seats);
    Ok(cpus)
}

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("pinning to CPU {cpu}"))
}

/// One line about the machine, and one about its load if it is not idle.
pub fn machine() -> Result<Vec<String>> {
    let cpus = allowed()?;
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    let model = field(&info, "model name").unwrap_or_else(|| std::env::consts::ARCH.to_string());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = field(&memory, "MemTotal")
        .and_then(|kib| kib.split(' ').next()?.parse::<u64>().ok())
        .unwrap_or(0);
    let mut lines = vec![format!(
        "{model}, {} CPUs allowed, {} GiB, Linux {}",
        cpus.len(),
        total >> 20,
        kernel.trim()
    )];
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    if let Some(load) = load
        .split(' ')
        .next()
        .and_then(|one| one.parse::<f64>().ok())
        && load > 0.5
    {
        lines.push(format!(
            "this machine is not idle: load average {load} before the first round"
        ));
    }
    Ok(lines)
}

/// Bytes of memory that could be taken now without swapping.
pub fn memory_available() -> u64 {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = memory
        .lines()
        .find(|line| line.starts_with("MemAvailable"))
        .unwrap_or_default();
    line.split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        << 10
}
