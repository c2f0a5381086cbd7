//! Three processes send into one queue, and the main process receives until all have finished.
//! Run: cargo run --example queue
use multiproc::{Process, Queue, Sender};

fn cook(mut dishes: Sender<String>, name: String) {
    for number in 1..=3 {
        let dish = format!("dish {number} from {name}");
        dishes.send(dish).expect("the waiter is there");
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (sender, mut receiver) = Queue::<String>::new(16)?;
    let mut cooks = Vec::new();
    for name in ["Ada", "Ben", "Cleo"] {
        cooks.push(Process::spawn(
            cook,
            (sender.try_clone()?, name.to_string()),
        )?);
    }
    drop(sender); // The queue ends when its last sender is gone.

    let mut served = 0;
    while let Ok(dish) = receiver.recv() {
        println!("Served {dish}");
        served += 1;
    }
    for cook in cooks {
        cook.join()?;
    }
    println!("Kitchen closed after {served} dishes");
    Ok(())
}
