//! Operations on a lane whose words a hostile peer chooses: none may panic, run away or believe too much.

use super::chosen::{AtomicU64, Ordering, choose, loads};
use super::layout::LaneHeader;
use super::ring::{Geometry, Reader, Writer};
use super::roster::{self, Life, Owner};

struct Anyone;

impl Life for Anyone {
    fn me(&self) -> u32 {
        1
    }

    fn is_dead(&self, participant: u32) -> bool {
        participant % 3 == 0
    }

    fn is_evicted(&self) -> bool {
        false
    }
}

/// Plays the first bytes as operations and all of them as the peer's choices.
pub(crate) fn play(input: &[u8]) {
    let [shape, operations @ ..] = input else {
        return;
    };
    let capacity = [1, 2, 3, 8, 1000][usize::from(*shape) % 5];
    let geometry = Geometry {
        capacity,
        stride: 1 + usize::from(shape % 4),
    };
    let header = LaneHeader::default();
    let slots: Vec<AtomicU64> = (0..geometry.words()).map(|_| AtomicU64::new(0)).collect();
    choose(input);

    let mut writer = Writer::attach(geometry, &header, &slots);
    assert!(
        loads() as u64 <= 1 + 3 * geometry.slots(),
        "attach reads each stamp a bounded number of times"
    );
    let mut reader = Reader::attach(geometry, &header);
    assert_eq!(loads(), 1, "head is read once");

    for operation in operations.iter().take(64) {
        match operation % 6 {
            0 => {
                let room = writer.room(&header);
                assert!(room <= capacity, "{room} free of {capacity}");
                assert!(loads() <= 2, "freed and head are read once each");
            }
            1 => {
                let n = writer.room_hint(&header).min(u64::from(operation >> 3));
                assert!(n <= capacity);
                for ahead in 0..n {
                    for word in writer.payload(&slots, ahead) {
                        word.store(u64::from(*operation), Ordering::Relaxed);
                    }
                }
                writer.publish(&slots, n);
                loads();
            }
            2 => {
                // Corrupt is a fine answer; an endless loop is none.
                let _ = reader.peek(&header, &slots);
                assert!(loads() <= 1 + 2 * 1_000, "catching up is bounded");
            }
            3 => {
                let run = reader.run(&slots).take(capacity as usize);
                let n = run
                    .map(|payload| assert_eq!(payload.len(), geometry.stride - 1))
                    .count() as u64;
                loads();
                reader.take(&header, n);
                assert!(
                    loads() <= 5,
                    "one look at head, and at the writer's sleep if it must be woken"
                );
            }
            4 => {
                roster::claim(&header.owner, Owner::Held(1), &Anyone);
                assert!(loads() <= 2);
                roster::is_held(&header.owner, &Anyone);
                assert_eq!(loads(), 1, "an owner is judged by one look");
            }
            _ => {
                header.full.notify_one();
                assert!(loads() <= 5);
            }
        }
    }
}
