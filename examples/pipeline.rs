//! Three kinds of processes joined by two queues: one makes numbers, two square them, one adds up.
//! Run: cargo run --example pipeline
use multiproc::{Process, Queue, Receiver, Sender};

fn make(mut numbers: Sender<u64>, count: u64) {
    for number in 1..=count {
        numbers.send(number).expect("someone squares");
    }
}

fn square(mut numbers: Receiver<u64>, mut squares: Sender<u64>) -> u64 {
    let mut done = 0;
    while let Ok(number) = numbers.recv() {
        squares.send(number * number).expect("someone adds");
        done += 1;
    }
    done
}

fn add(mut squares: Receiver<u64>) -> u64 {
    let mut sum = 0;
    while let Ok(square) = squares.recv() {
        sum += square;
    }
    sum
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (numbers_in, numbers_out) = Queue::<u64>::new(64)?;
    let (squares_in, squares_out) = Queue::<u64>::new(64)?;

    let adder = Process::spawn(add, (squares_out,))?;
    let first = Process::spawn(square, (numbers_out.try_clone()?, squares_in.try_clone()?))?;
    let second = Process::spawn(square, (numbers_out, squares_in))?;
    let maker = Process::spawn(make, (numbers_in, 1000))?;

    // Each stage ends by itself when the stage before it has gone and its queue is empty.
    maker.join()?;
    println!("Squared: {}", first.join()? + second.join()?);
    println!("Sum of squares: {}", adder.join()?);
    Ok(())
}
