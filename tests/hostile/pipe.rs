//! Operations on a stream whose words and bytes a hostile peer chooses: none may panic, run away, or touch
//! what lies outside.

use super::chosen::{AtomicU64, choose, loads};
use super::layout::StreamHeader;
use super::stream::{Bulk, CONTENT, LINE, Lines, Next, Reader, Ring, SMALL, Writer};

/// Bytes of the ring.
const SIZE: usize = 4096;

/// A ring that only checks where it is touched.
struct Checked;

impl Bulk for Checked {
    fn copy_in(&self, at: usize, from: &[u8]) {
        assert!(at <= SIZE && from.len() <= SIZE - at);
    }

    fn copy_out(&self, at: usize, to: &mut [u8]) {
        assert!(at <= SIZE && to.len() <= SIZE - at);
    }

    fn append(&self, at: usize, len: usize, to: &mut Vec<u8>) {
        assert!(at <= SIZE && len <= SIZE - at);
        to.resize(to.len() + len, 0);
    }
}

/// Plays the first bytes as operations and all of them as the peer's choices.
pub(crate) fn play(input: &[u8]) {
    let header = StreamHeader::default();
    let words: Vec<AtomicU64> = (0..SIZE / 8).map(|_| AtomicU64::new(0)).collect();
    let ring = Ring {
        header: &header,
        words: &words,
        bytes: &Checked,
    };
    let lines = Lines::of_bytes(SIZE as u64).unwrap();
    let mut writer = Writer::new(lines);
    let mut reader = Reader::new(lines);
    choose(input);
    for operation in input.iter().take(64) {
        let size = usize::from(operation >> 3);
        match operation % 8 {
            0 => {
                let bytes = size * 2 % (SMALL + 1);
                if writer.has_room(&header, lines.ahead(bytes)) {
                    let content = [7; CONTENT];
                    writer.put_small(&words, &content[..bytes.div_ceil(8).max(1)], bytes);
                }
                assert!(loads() <= 1, "freed is read once");
            }
            1 => {
                let bytes = [1; SIZE];
                let bytes = &bytes[..(size * LINE / 2 + 1).min(lines.piece())];
                if writer.has_room_exactly(&header, lines.ahead(bytes.len())) {
                    writer.put_run(&ring, bytes, operation & 8 != 0);
                }
                assert!(loads() <= 1, "taken is read once");
            }
            2 => {
                if writer.has_begun() && writer.has_room(&header, 2) {
                    writer.forget(&words);
                }
                loads();
            }
            3 => {
                writer.put_word(&header, &words, 7, size % 9);
                assert!(loads() <= 1);
            }
            4 | 5 => {
                // Corrupt is a fine answer.
                if let Ok(next) = reader.next(&header, &words) {
                    assert!(
                        loads() <= 8,
                        "tags of two lines, the length of a run, and the writer's sleep"
                    );
                    match next {
                        Next::Nothing => {}
                        Next::Small(bytes) => {
                            let mut content = [0; CONTENT];
                            reader.take_small(&header, &words, bytes, &mut content);
                        }
                        Next::Run { bytes, .. } if operation & 8 != 0 => {
                            assert!(bytes <= SIZE);
                            reader.append_run(&ring, bytes, &mut Vec::new());
                        }
                        Next::Run { bytes, .. } => {
                            assert!(bytes <= SIZE);
                            reader.take_run(&ring, &mut [0; SIZE][..bytes]);
                        }
                        Next::Forget => reader.take_forget(&header),
                    }
                }
                loads();
            }
            6 => {
                reader.take_word(&header, &words, size % 9);
                reader.settle(&header);
                loads();
            }
            _ => {
                // Whoever takes it up believes only what can be.
                if operation & 8 != 0 {
                    writer.park(&header);
                    if let Ok(next) = Writer::resume(lines, &ring) {
                        writer = next;
                    }
                } else {
                    reader.park(&header);
                    if let Ok(next) = Reader::resume(lines, &header) {
                        reader = next;
                    }
                }
                assert!(loads() <= 4, "each parked word is read once");
            }
        }
    }
}
