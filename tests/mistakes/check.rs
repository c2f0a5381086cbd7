//! Mistakes that `cargo check` tells, and what it says of each: the lines `//~` stand in its error. See
//! `tests/mistakes.rs`, which compiles this.

use std::cell::Cell;
use std::collections::HashMap;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use multiproc::{Frozen, Lock, Pipe, Pool, Process, Queue};

/// Has neither of serde's traits.
struct Point(u32, u32);

/// As in the crate of that name.
mod anyhow {
    pub struct Error(Box<dyn std::error::Error + Send + Sync>);
}

fn len(text: &str) -> usize {
    text.len()
}

fn sum(numbers: &[u64]) -> u64 {
    numbers.iter().sum()
}

fn add(a: u64, b: u64) -> u64 {
    a + b
}

// mistake: a closure for map captures text
//~ is not a function that a pool can call with items `u64`
//~ it captures nothing: what all calls need is given by `pool.with(value)`, and comes as `|value: &V, item| ..`
fn captures_text(pool: &Pool, suffix: String) {
    let _ = pool.map(move |x: u64| format!("{x}{suffix}"), 0..3);
}

// mistake: a closure for map captures the pool's items in an Arc
//~ it captures nothing: what all calls need is given by `pool.with(value)`, and comes as `|value: &V, item| ..`
fn captures_shared(pool: &Pool, table: Arc<Vec<u64>>) {
    let _ = pool.map(move |i: usize| table[i], 0..3_usize);
}

// mistake: a closure for map changes a variable outside
//~ it captures nothing: what all calls need is given by `pool.with(value)`, and comes as `|value: &V, item| ..`
fn changes_a_variable(pool: &Pool) {
    let mut total = 0;
    let _ = pool.map(|x: u64| total += x, 0..3);
}

// mistake: a closure for map captures a cell
//~ it captures nothing: what all calls need is given by `pool.with(value)`, and comes as `|value: &V, item| ..`
fn captures_a_cell(pool: &Pool, cell: &'static Cell<u64>) {
    let _ = pool.map(move |x: u64| x + cell.get(), 0..3);
}

// mistake: a closure for apply captures text
//~ is not a function that another process can call with the arguments `(u64,)`
//~ it captures nothing: what it needs is one more argument
fn apply_captures(pool: &Pool, suffix: String) {
    let _ = pool.apply(move |x: u64| format!("{x}{suffix}"), (1_u64,));
}

// mistake: a closure for a process captures a sender
//~ is not a function that another process can call with the arguments `()`
//~ it captures nothing: what it needs is one more argument
fn spawn_captures(tx: multiproc::Sender<u64>) {
    let mut tx = tx;
    let _ = Process::spawn(move || tx.send(1).unwrap(), ());
}

// mistake: one argument that is no tuple
//~ is not a function that another process can call with the arguments `u64`
//~ arguments are a tuple of at most eight, also one, `(a,)`, and none, `()`: more go into a struct
fn no_tuple(pool: &Pool) {
    let _ = pool.apply(|x: u64| x, 5_u64);
}

// mistake: a process with one argument that is no tuple
//~ arguments are a tuple of at most eight, also one, `(a,)`, and none, `()`: more go into a struct
fn process_no_tuple() {
    let _ = Process::spawn(|x: u64| x, 5_u64);
}

// mistake: nine arguments
//~ arguments are a tuple of at most eight, also one, `(a,)`, and none, `()`: more go into a struct
fn nine() {
    fn nine(_: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8, _: u8) {}
    let _ = Process::spawn(nine, (1_u8, 2_u8, 3_u8, 4_u8, 5_u8, 6_u8, 7_u8, 8_u8, 9_u8));
}

// mistake: too few arguments
//~ expected a tuple with 2 elements, found one with 1 element
fn too_few(pool: &Pool) {
    let _ = pool.apply(add, (1_u64,));
}

// mistake: an argument of another type
//~ expected `u64`, found `i32`
fn another_type(pool: &Pool) {
    let _ = pool.apply(add, (1_u64, 2_i32));
}

// mistake: no function at all
//~ `u64` is not a function that another process can call with the arguments
fn no_function() {
    let _ = Process::spawn(5_u64, ());
}

// mistake: the function is called, and its value given
//~ `u64` is not a function that another process can call with the arguments
fn called_already() {
    let _ = Process::spawn(add(1, 2), ());
}

// mistake: a function of borrowed text is given owned text
//~ expected `&str`, found `String`
fn borrows_its_argument(pool: &Pool) {
    let _ = pool.apply(len, ("text".to_owned(),));
}

// mistake: a function of borrowed text, given borrowed text
//~ `&str` must implement `serde_core::de::Deserialize<'0>`, for any lifetime `'0`
fn borrowed_items(pool: &Pool) {
    let _ = pool.map(len, ["one", "two"]);
}

// mistake: map over owned text with a function of borrowed text
//~ `Vec<String>` does not give items `&str` that a pool can send
//~ the function takes its items by value: `String` and not `&str`
fn borrowing_function(pool: &Pool, words: Vec<String>) {
    let _ = pool.map(len, words);
}

// mistake: a slice as argument
//~ `(&[u64],)` cannot be sent to another process
//~ what is borrowed is sent owned: `String` for `&str`, `Vec<T>` for `&[T]`
fn slice(numbers: &'static [u64]) {
    let _ = Process::spawn(|numbers: &'static [u64]| numbers.len(), (numbers,)).map(|_| ());
    let _ = Queue::<&'static [u64]>::new(1);
}

// mistake: an argument without serde
//~ `[Point; 1]` does not give items `Point` that a pool can send
//~ each item is sent: a type of your own needs `#[derive(serde::Serialize, serde::Deserialize)]`
fn argument_without_serde(pool: &Pool) {
    let _ = pool.map(|point: Point| point.0, [Point(1, 2)]);
}

// mistake: a result without serde
//~ `Point` cannot be sent to another process
//~ your own type needs serde's two traits: `#[derive(serde::Serialize, serde::Deserialize)]`; so does each type in it
fn result_without_serde(pool: &Pool) {
    let _ = pool.map(|x: u32| Point(x, x), 0..3);
}

// mistake: a process whose result has no serde
//~ `Point` cannot be sent to another process
fn process_without_serde() {
    let _ = Process::spawn(|| Point(1, 2), ());
}

// mistake: a queue of a type without serde
//~ `Point` cannot be sent to another process
fn queue_without_serde() {
    let _ = Queue::<Point>::new(1);
}

// mistake: a pipe of a type without serde
//~ `Point` cannot be sent to another process
fn pipe_without_serde() {
    let _ = Pipe::<Point, u64>::new();
}

// mistake: a type without serde inside another
//~ `Vec<Point>` cannot be sent to another process
//~ so does each type in it
fn inside_without_serde(pool: &Pool) {
    let _ = pool.apply(|| vec![Point(1, 2)], ());
}

// mistake: a result with an error of anyhow
//~ cannot be sent to another process
//~ an error such as `anyhow::Error` is sent as its text: `.map_err(|error| error.to_string())`
fn anyhow_result(pool: &Pool) {
    let _ = pool.map(|x: u64| Ok::<u64, anyhow::Error>(x), 0..3);
}

// mistake: a result with a boxed error
//~ an error such as `anyhow::Error` is sent as its text: `.map_err(|error| error.to_string())`
fn boxed_error() {
    let _ = Process::spawn(|| Ok::<u64, Box<dyn std::error::Error + Send + Sync>>(1), ());
}

// mistake: a result with an error of std::io
//~ an error such as `anyhow::Error` is sent as its text: `.map_err(|error| error.to_string())`
fn io_error(pool: &Pool) {
    let _ = pool.apply(|| std::fs::read_to_string("file"), ());
}

// mistake: try_map with an error that cannot travel
//~ `anyhow::Error` cannot be sent to another process
//~ an error such as `anyhow::Error` is sent as its text: `.map_err(|error| error.to_string())`
fn try_map_error(pool: &Pool) {
    let _ = pool.try_map(|x: u64| Ok::<u64, anyhow::Error>(x), 0..3);
}

// mistake: a socket as argument
//~ `(TcpListener,)` cannot be sent to another process
//~ sockets, files and other descriptors are sent as `multiproc::Fd`, functions as `multiproc::Func`
fn socket(listener: TcpListener) {
    let _ = Process::spawn(|listener: TcpListener| (), (listener,));
}

// mistake: a queue of files
//~ `File` cannot be sent to another process
//~ sockets, files and other descriptors are sent as `multiproc::Fd`, functions as `multiproc::Func`
fn files() {
    let _ = Queue::<std::fs::File>::new(1);
}

// mistake: a queue of functions
//~ cannot be sent to another process
//~ sockets, files and other descriptors are sent as `multiproc::Fd`, functions as `multiproc::Func`
fn functions() {
    let _ = Queue::<fn(u64) -> u64>::new(1);
}

// mistake: a queue of boxed closures
//~ cannot be sent to another process
fn boxed_closures() {
    let _ = Queue::<Box<dyn Fn() + Send>>::new(1);
}

// mistake: a mutex of threads as argument
//~ what is shared by threads (`Arc<Mutex<T>>`, channels) is shared by processes as `multiproc::Lock`, `Queue` or `Frozen`
fn mutex(shared: Arc<Mutex<u64>>) {
    let _ = Process::spawn(|shared: Arc<Mutex<u64>>| *shared.lock().unwrap() += 1, (shared,));
}

// mistake: a channel of threads as argument
//~ what is shared by threads (`Arc<Mutex<T>>`, channels) is shared by processes as `multiproc::Lock`, `Queue` or `Frozen`
fn channel(tx: mpsc::Sender<u64>) {
    let _ = Process::spawn(|tx: mpsc::Sender<u64>| tx.send(1).unwrap(), (tx,));
}

// mistake: a moment of this process's clock
//~ `[Instant; 1]` does not give items `Instant` that a pool can send
fn moment(pool: &Pool) {
    let _ = pool.map(|x: Instant| 1_u8, [Instant::now()]);
}

// mistake: an asynchronous function
//~ cannot be sent to another process
fn asynchronous() {
    async fn fetch(url: String) -> u64 {
        url.len() as u64
    }
    let _ = Process::spawn(fetch, ("url".to_owned(),));
}

// mistake: a context that cannot be sent
//~ `Rc<u64>` cannot be sent to another process
fn context(pool: &Pool) {
    let _ = pool.with(Rc::new(5_u64));
}

// mistake: a closure beside a context captures text
//~ is not a function that a pool can call with the context `&u64` and items `u64`
//~ it takes the context by reference and one item by value, `|context: &C, item: A| ..`, and captures nothing
fn context_captures(pool: &Pool, suffix: String) {
    let _ = pool.with(5_u64).map(move |c: &u64, x: u64| format!("{c}{x}{suffix}"), 0..3);
}

// mistake: starmap over single items
//~ `Vec<u64>` does not give items `(u64, u64)` that a pool can send
//~ of what the function takes (tuples, for `starmap`)
fn starmap_single(pool: &Pool) {
    let _ = pool.starmap(add, vec![1_u64, 2]);
}

// mistake: an initializer that captures
//~ it captures nothing: what it needs is one more argument
fn initializer(path: String) {
    let _ = Pool::builder().initializer(move || drop(path.clone()), ());
}

// mistake: an initializer whose argument cannot be sent
//~ `(Point,)` cannot be sent to another process
fn initializer_argument() {
    let _ = Pool::builder().initializer(|point: Point| (), (Point(1, 2),));
}

// mistake: a lock around text
//~ `String` cannot lie in shared memory as it is
//~ what has its bytes elsewhere (`String`, `Vec`, `Box`) goes by messages, or as an array of a fixed length
fn lock_of_text() {
    let _ = Lock::new("text".to_owned());
}

// mistake: a frozen array of texts
//~ `String` cannot lie in shared memory as it is
//~ what has its bytes elsewhere (`String`, `Vec`, `Box`) goes by messages, or as an array of a fixed length
fn frozen_texts() {
    let _ = Frozen::from_slice(&["text".to_owned()]);
}

// mistake: a message of texts in place
//~ messages of `String` cannot be written in place
fn in_place(tx: &mut multiproc::Sender<String>) {
    let _ = tx.loan();
}
