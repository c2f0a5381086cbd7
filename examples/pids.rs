//! A child and its parent print their process ids, which differ.
//! Run: cargo run --example pids
use multiproc::{Process, current_process};

fn worker() {
    println!("Worker process ID: {}", current_process().pid());
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let child = Process::spawn(worker, ())?;
    child.join()?;
    println!("Main process ID: {}", current_process().pid());
    Ok(())
}
