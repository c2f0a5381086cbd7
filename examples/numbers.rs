//! Four processes with names, each printing its name and a number.
//! Run: cargo run --example numbers
use multiproc::{Process, current_process};

fn print_number(number: u32) {
    println!("Process: {} Number: {number}", current_process().name());
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut children = Vec::new();
    for number in 1..=4 {
        let process = Process::builder().name(format!("Process-{number}"));
        children.push(process.spawn(print_number, (number,))?);
    }
    for child in children {
        child.join()?;
    }
    println!("Main process finished.");
    Ok(())
}
