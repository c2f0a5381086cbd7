//! Arbitrary messages on the socket between parent and child, with and without descriptors: also of files that say they
//! are large and hold nothing, and messages that never end.

#![no_main]

use std::fs::File;

use libfuzzer_sys::fuzz_target;
use multiproc::door;

/// Messages of one input: more of them are slower, and show no more.
const FRAMES: usize = 8;
/// Calls that listen to messages without end.
const CALLS: usize = 64;

// The first byte says what descriptors come along and whether there is an end, with a file of nothing the second how large
// it is; the others are messages, each behind its length.
fuzz_target!(|input: &[u8]| {
    let Some((&kind, mut rest)) = input.split_first() else {
        return;
    };
    let mut hole = None;
    if kind & 4 != 0 {
        let Some((&size, behind)) = rest.split_first() else {
            return;
        };
        hole = Some(1 << (12 + size % 36));
        rest = behind;
    }
    let mut frames = Vec::new();
    while let Some((&length, behind)) = rest.split_first()
        && frames.len() < FRAMES
    {
        let (frame, behind) = behind.split_at(usize::from(length).min(behind.len()));
        frames.push(frame);
        rest = behind;
    }
    let mut files = Vec::new();
    if let Some(length) = hole {
        files.push(door::hole(length).unwrap());
    }
    if kind & 1 != 0 {
        files.push(door::sealed(input).unwrap());
    }
    if kind & 2 != 0 {
        files.push(File::open("/dev/null").unwrap().into());
    }
    match kind & 8 {
        0 => _ = door::listen(&frames, &files).unwrap(),
        _ => door::listen_without_end(&frames, &files, CALLS).unwrap(),
    }
});
