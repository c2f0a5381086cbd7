//! Mistakes that only `cargo build` tells, for nothing but the size of the function's type shows them: the lines `//~`
//! stand in its error, which names the place of the call. See `tests/mistakes.rs`, which compiles this.

use std::convert::Infallible;

use multiproc::{Pool, Process};

fn main() {
    let pool = Pool::new(1).unwrap();
    map_captures_a_number(&pool);
    map_of_a_pointer(&pool);
    apply_captures_a_number(&pool);
    context_captures_a_number(&pool);
    spawn_captures_a_number();
    spawn_of_a_pointer();
    initializer_captures_a_number();
    imap_captures_a_number(&pool);
    std::hint::black_box(spawn_captures_a_value_that_cannot_be as fn(Infallible));
    spawn_captures_a_value_that_asks_for_an_alignment();
}

// mistake: map captures a number
//~ a function for another process must not capture anything
//~ Pass what it needs as an argument
fn map_captures_a_number(pool: &Pool) {
    let n = std::process::id();
    let _ = pool.map(move |x: u32| x + n, 0..3);
}

// mistake: map of a pointer to a function
//~ give the function itself, not a pointer to it
fn map_of_a_pointer(pool: &Pool) {
    let f: fn(u32) -> u32 = |x| x;
    let _ = pool.map(f, 0..3);
}

// mistake: apply captures a number
//~ Pass what it needs as an argument
fn apply_captures_a_number(pool: &Pool) {
    let n = std::process::id();
    let _ = pool.apply_async(move |x: u32| x + n, (1,));
}

// mistake: a function beside a context captures a number
//~ Pass what it needs as an argument
fn context_captures_a_number(pool: &Pool) {
    let n = std::process::id();
    let _ = pool.with(1_u32).map(move |c: &u32, x: u32| c + x + n, 0..3);
}

// mistake: a process captures a number
//~ Pass what it needs as an argument
fn spawn_captures_a_number() {
    let n = std::process::id();
    let _ = Process::spawn(move || n, ());
}

// mistake: a process from a pointer to a function
//~ give the function itself, not a pointer to it
fn spawn_of_a_pointer() {
    fn seven() -> u32 {
        7
    }
    let _ = Process::builder().spawn(seven as fn() -> u32, ());
}

// mistake: an initializer captures a number
//~ Pass what it needs as an argument
fn initializer_captures_a_number() {
    let n = std::process::id();
    let _ = Pool::builder().initializer(move || drop(n), ());
}

// mistake: imap captures a number
//~ Pass what it needs as an argument
fn imap_captures_a_number(pool: &Pool) {
    let n = std::process::id();
    let _ = pool.imap(move |x: u32| x + n, 0..3).count();
}

// mistake: a process captures a value of a type that has none
//~ a type that has none
fn spawn_captures_a_value_that_cannot_be(no: Infallible) {
    let _ = Process::spawn(
        move || {
            let _ = &no;
        },
        (),
    );
}

// mistake: a process captures a value of no size that asks for an alignment
//~ must not capture anything
fn spawn_captures_a_value_that_asks_for_an_alignment() {
    let token: [u64; 0] = [];
    let _ = Process::spawn(
        move || {
            let _ = &token;
        },
        (),
    );
}
