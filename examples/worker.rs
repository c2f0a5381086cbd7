//! One process that runs a function with an argument, and its parent waiting for it.
//! Run: cargo run --example worker
use multiproc::Process;

fn worker(number: u32) {
    println!("Worker {number} is running");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let child = Process::spawn(worker, (1,))?;
    child.join()?;
    println!("Process has finished");
    Ok(())
}
