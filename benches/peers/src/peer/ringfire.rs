//! ringfire, one sender and one receiver, between processes, with its lossless back-pressure; blobs for what is large.

use crate::rig::roles::{Duplex, End, Rx, RxBytes, RxLease, Tx, TxBytes, TxLoan, poll};
use crate::rig::runs::{Link, LinkBytes, LinkLoan};
use bytemuck::Pod;
use ringfire::{
    BlobConsumer, BlobProducer, FlowControl, RingConsumer, RingConsumerBuilder, RingProducer,
    RingProducerBuilder, WaitStrategy,
};
use std::hint::spin_loop;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

const DIRECTORY: &str = "/dev/shm";

fn prefix(process: u32) -> String {
    format!("peers-{process}-")
}

fn fresh() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Relaxed);
    PathBuf::from(DIRECTORY).join(format!("{}{number}", prefix(std::process::id())))
}

/// Removes what `process` left behind when it was ended.
pub fn tidy(process: u32) {
    let Ok(entries) = std::fs::read_dir(DIRECTORY) else {
        return;
    };
    for entry in entries.flatten() {
        if entry
            .file_name()
            .to_string_lossy()
            .starts_with(&prefix(process))
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Attaches as soon as the other side has made it.
fn patiently<T>(attach: impl Fn() -> ringfire::Result<T>) -> T {
    let start = Instant::now();
    loop {
        match attach() {
            Ok(end) => return end,
            Err(error) if start.elapsed() > Duration::from_secs(5) => {
                panic!("attaching to ringfire: {error}")
            }
            Err(_) => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

pub struct Ring {
    path: PathBuf,
    capacity: u64,
}

impl Ring {
    pub fn new(capacity: u64) -> Ring {
        Ring {
            path: fresh(),
            capacity,
        }
    }

    fn make<M: Copy + 'static>(&self) -> RingProducer<M> {
        let builder =
            RingProducerBuilder::new(self.capacity).flow_control(FlowControl::LosslessBackpressure);
        builder.build(&self.path).expect("making a ringfire ring")
    }

    fn attach<M: Copy + 'static>(&self) -> RingConsumer<M> {
        patiently(|| {
            RingConsumerBuilder::new()
                .consumer_name("rx")
                .start_from_head()
                .attach(&self.path)
        })
    }
}

impl<M: Pod> Link<M> for Ring {
    type Tx = RingProducer<M>;
    type Rx = RingConsumer<M>;

    fn tx(&self, _: usize) -> RingProducer<M> {
        self.make()
    }

    fn rx(&self, _: usize) -> RingConsumer<M> {
        self.attach()
    }
}

impl<M: Copy + 'static> Tx<M> for RingProducer<M> {
    fn send(&mut self, message: M) {
        self.push(&message);
    }

    fn send_many(&mut self, messages: &[M]) {
        self.push_batch(messages);
    }
}

impl<M: Pod> Rx<M> for RingConsumer<M> {
    fn recv(&mut self, end: &impl End) -> Option<M> {
        poll(end, || self.try_recv())
    }

    fn recv_many(&mut self, into: &mut Vec<M>, most: usize, end: &impl End) {
        into.resize(most, M::zeroed());
        let count = poll(end, || {
            Some(self.recv_batch(into)).filter(|&count| count > 0)
        });
        into.truncate(count.unwrap_or(0));
    }
}

/// Both directions, waiting as `W` does.
pub struct Pair<W> {
    tx: RingProducer<u64>,
    rx: RingConsumer<u64>,
    wait: W,
}

impl<W> Pair<W> {
    /// The end of side 0 or 1 of two rings.
    pub fn side(rings: &[Ring; 2], side: usize, wait: W) -> Pair<W> {
        Pair {
            tx: rings[side].make(),
            rx: rings[1 - side].attach(),
            wait,
        }
    }
}

impl<W: WaitStrategy> Duplex for Pair<W> {
    fn send(&mut self, value: u64) {
        self.tx.push(&value);
    }

    fn recv(&mut self) -> u64 {
        self.rx.recv_blocking(&mut self.wait)
    }
}

/// A ring of descriptors and an arena for the bytes. It never waits for a slow reader, so the sender does that here: it
/// counts on no more room than the reader has left when it last looked.
pub struct Blobs {
    path: PathBuf,
    slots: u64,
    arena: usize,
}

impl Blobs {
    /// `slots` messages of `size` may be on their way; the arena has room for twice as many.
    pub fn new(slots: u64, size: usize) -> Blobs {
        Blobs {
            path: fresh(),
            slots,
            arena: (2 * slots as usize * size.next_multiple_of(64)).next_power_of_two(),
        }
    }
}

pub struct BlobTx {
    end: BlobProducer<u64>,
    slots: u64,
    room: u64,
}

impl BlobTx {
    fn wait_for_room(&mut self) {
        while self.room == 0 {
            self.room = self.slots.saturating_sub(self.end.reader_lag());
            spin_loop();
        }
        self.room -= 1;
    }
}

fn make(blobs: &Blobs) -> BlobTx {
    let end = BlobProducer::create(&blobs.path, 2 * blobs.slots, blobs.arena)
        .expect("making a ringfire blob ring");
    BlobTx {
        end,
        slots: blobs.slots,
        room: 0,
    }
}

fn attach(blobs: &Blobs) -> BlobConsumer<u64> {
    patiently(|| BlobConsumer::attach(&blobs.path))
}

impl LinkBytes for Blobs {
    type Tx = BlobTx;
    type Rx = BlobConsumer<u64>;

    fn tx(&self) -> BlobTx {
        make(self)
    }

    fn rx(&self) -> BlobConsumer<u64> {
        attach(self)
    }
}

impl LinkLoan for Blobs {
    type Tx = BlobTx;
    type Rx = BlobConsumer<u64>;

    fn tx(&self) -> BlobTx {
        make(self)
    }

    fn rx(&self) -> BlobConsumer<u64> {
        attach(self)
    }
}

impl TxBytes for BlobTx {
    fn send(&mut self, message: &[u8]) {
        self.wait_for_room();
        self.end.push(&0, message).expect("a blob that fits");
    }
}

impl RxBytes for BlobConsumer<u64> {
    fn recv(&mut self, into: &mut [u8], end: &impl End) -> bool {
        let mut about = 0;
        poll(end, || {
            BlobConsumer::recv(self, &mut about, into).expect("a buffer that is large enough")
        })
        .is_some()
    }
}

impl TxLoan for BlobTx {
    fn send(&mut self, size: usize, fill: impl FnOnce(&mut [u8])) {
        self.wait_for_room();
        self.end
            .push_with(&0, size, fill)
            .expect("a blob that fits");
    }
}

impl RxLease for BlobConsumer<u64> {
    fn recv(&mut self, end: &impl End, look: impl FnOnce(&[u8])) -> bool {
        let mut look = Some(look);
        let mut show = |_: &u64, bytes: &[u8]| {
            look.take().expect("shown once: the sender waits for room")(bytes)
        };
        poll(end, || self.view(&mut show).expect("an intact ring")).is_some()
    }
}
