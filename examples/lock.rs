//! Four processes add to one number behind a lock; then one dies while it holds the lock.
//! Run: cargo run --example lock
use multiproc::{Lock, LockError, Process};

fn add(counter: Lock<u64>, times: u64) {
    for _ in 0..times {
        *counter.lock().expect("nobody died in here") += 1;
    }
}

fn die_inside(counter: Lock<u64>) {
    let mut number = counter.lock().expect("nobody died in here");
    *number = 0; // Half of a change that is never finished.
    std::process::abort();
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let counter = Lock::new(0u64)?;
    let mut children = Vec::new();
    for _ in 0..4 {
        children.push(Process::spawn(add, (counter.clone(), 1000))?);
    }
    for child in children {
        child.join()?;
    }
    println!("Counter: {}", *counter.lock()?);

    let child = Process::spawn(die_inside, (counter.clone(),))?;
    println!("Child: {}", child.join().unwrap_err());
    if let Err(LockError::Abandoned(_)) = counter.lock() {
        let mut number = counter.recover()?;
        println!("The last holder died inside and left {}", *number);
        *number = 4000; // Repaired.
    }
    println!("Counter: {}", *counter.lock()?);
    Ok(())
}
