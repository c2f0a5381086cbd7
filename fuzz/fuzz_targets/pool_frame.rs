//! Arbitrary words and bytes as what a pool reads of its workers, and a worker of its pool.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| multiproc::door::pool(input));
