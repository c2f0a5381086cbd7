//! Operations on a queue against a model, with the death of whole processes among them.

#![no_main]

#[path = "../../tests/model/play.rs"]
mod play;

libfuzzer_sys::fuzz_target!(|input: &[u8]| play::play(input));
