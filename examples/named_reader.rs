//! One of two separate programs that talk by a name: it makes the queue and prints what arrives.
//! Run: cargo run --example named_reader [NAME], then in another terminal named_writer [NAME]
use multiproc::Queue;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args()
        .nth(1)
        .unwrap_or("multiproc-example".into());
    let (_, mut receiver) = Queue::<String>::builder().capacity(16).create(&name)?;
    println!("Waiting for named_writer");

    // Ends when the writer, once it has come, is gone and all it sent is received.
    for line in receiver.iter() {
        println!("Received: {line}");
    }
    println!("The writer has gone");
    Ok(())
}
