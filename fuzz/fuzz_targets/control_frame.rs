//! Arbitrary messages on the socket between parent and child, with and without descriptors.

#![no_main]

use std::fs::File;

use libfuzzer_sys::fuzz_target;
use multiproc::door;

/// Messages of one input: more of them are slower, and show no more.
const FRAMES: usize = 8;

// The first byte says what descriptors come along; the others are messages, each behind its length.
fuzz_target!(|input: &[u8]| {
    let Some((&kind, mut rest)) = input.split_first() else {
        return;
    };
    let mut frames = Vec::new();
    while let Some((&length, behind)) = rest.split_first()
        && frames.len() < FRAMES
    {
        let (frame, behind) = behind.split_at(usize::from(length).min(behind.len()));
        frames.push(frame);
        rest = behind;
    }
    let mut files = Vec::new();
    if kind & 1 != 0 {
        files.push(door::sealed(input).unwrap());
    }
    if kind & 2 != 0 {
        files.push(File::open("/dev/null").unwrap().into());
    }
    door::listen(&frames, &files).unwrap();
});
