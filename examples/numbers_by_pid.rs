//! Four processes, each printing its process id and a number.
//! Run: cargo run --example numbers_by_pid
use multiproc::{Process, current_process};

fn print_number(number: u32) {
    println!("Process ID: {} - Number: {number}", current_process().pid());
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut children = Vec::new();
    for number in 1..=4 {
        children.push(Process::spawn(print_number, (number,))?);
    }
    for child in children {
        child.join()?;
    }
    Ok(())
}
