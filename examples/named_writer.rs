//! One of two separate programs that talk by a name: it opens the queue and sends three lines.
//! Run: cargo run --example named_writer [NAME], while named_reader [NAME] is running
use multiproc::Queue;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args()
        .nth(1)
        .unwrap_or("multiproc-example".into());
    let (mut sender, _) = Queue::<String>::builder().capacity(16).open(&name)?;
    for line in ["from another program", "over shared memory", "goodbye"] {
        sender.send(line.to_string())?;
        println!("Sent: {line}");
    }
    Ok(())
}
