//! iceoryx2, one publisher and one subscriber of byte slices, between processes; nothing is discarded.
//!
//! Why this file may use unsafe: a loan is uninitialised memory by its type; here it is bytes that the system zeroed or an
//! earlier message left, and every bit pattern is a valid byte.

use crate::rig::roles::{End, RxBytes, RxLease, TxBytes, TxLoan, poll};
use crate::rig::runs::{LinkBytes, LinkLoan};
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::{
    BackpressureStrategy, LogLevel, Node, NodeBuilder, PortFactory as _, ipc, set_log_level,
};
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

type Bytes = [u8];
type Open = (Node<ipc::Service>, PortFactory<ipc::Service, Bytes, ()>);

/// A service that either side opens or creates, whoever comes first.
pub struct Service {
    name: String,
    count: usize,
    size: usize,
}

impl Service {
    pub fn new(count: usize, size: usize) -> Service {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Relaxed);
        Service {
            name: format!("peers/{}/{number}", std::process::id()),
            count,
            size,
        }
    }

    fn open(&self) -> Open {
        set_log_level(LogLevel::Fatal);
        let node = NodeBuilder::new()
            .create::<ipc::Service>()
            .expect("an iceoryx2 node");
        let name = self.name.as_str().try_into().expect("a name");
        let service = node
            .service_builder(&name)
            .publish_subscribe::<Bytes>()
            .enable_safe_overflow(false)
            .subscriber_max_buffer_size(self.count)
            .max_publishers(1)
            .max_subscribers(1)
            .open_or_create()
            .expect("an iceoryx2 service");
        (node, service)
    }

    fn publisher(&self) -> Tx {
        let (node, service) = self.open();
        let end = service
            .publisher_builder()
            .initial_max_slice_len(self.size)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .expect("an iceoryx2 publisher");
        Tx {
            end,
            _open: (node, service),
        }
    }

    /// Connected when it returns: what a publisher sends to a subscriber that has not connected
    /// yet is lost once the buffer is full.
    fn subscriber(&self) -> Rx {
        let (node, service) = self.open();
        let builder = service.subscriber_builder().buffer_size(self.count);
        let end = builder.create().expect("an iceoryx2 subscriber");
        while service.dynamic_config().number_of_publishers() == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
        end.has_samples().expect("connecting to the publisher");
        Rx {
            end,
            _open: (node, service),
        }
    }
}

pub struct Tx {
    end: Publisher<ipc::Service, Bytes, ()>,
    _open: Open,
}

pub struct Rx {
    end: Subscriber<ipc::Service, Bytes, ()>,
    _open: Open,
}

impl LinkBytes for Service {
    type Tx = Tx;
    type Rx = Rx;

    fn tx(&self) -> Tx {
        self.publisher()
    }

    fn rx(&self) -> Rx {
        self.subscriber()
    }
}

impl LinkLoan for Service {
    type Tx = Tx;
    type Rx = Rx;

    fn tx(&self) -> Tx {
        self.publisher()
    }

    fn rx(&self) -> Rx {
        self.subscriber()
    }
}

impl TxBytes for Tx {
    fn send(&mut self, message: &[u8]) {
        let loan = self.end.loan_slice_uninit(message.len()).expect("a loan");
        loan.write_from_slice(message).send().expect("sending");
    }
}

impl RxBytes for Rx {
    fn recv(&mut self, into: &mut [u8], end: &impl End) -> bool {
        let Some(sample) = poll(end, || self.end.receive().expect("receiving")) else {
            return false;
        };
        into.copy_from_slice(sample.payload());
        true
    }
}

impl TxLoan for Tx {
    fn send(&mut self, size: usize, fill: impl FnOnce(&mut [u8])) {
        let loan = self.end.loan_slice_uninit(size).expect("a loan");
        // SAFETY: bytes in shared memory, zeroed by the system or written by an earlier message.
        let mut loan = unsafe { loan.assume_init() };
        fill(loan.payload_mut());
        loan.send().expect("sending");
    }
}

impl RxLease for Rx {
    fn recv(&mut self, end: &impl End, look: impl FnOnce(&[u8])) -> bool {
        let Some(sample) = poll(end, || self.end.receive().expect("receiving")) else {
            return false;
        };
        look(sample.payload());
        true
    }
}
