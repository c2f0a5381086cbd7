//! Files and sockets of the program's in messages, between real processes.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{Fd, Pipe, Pool, Process, Queue, Receiver, RecvError, SendError, Sender};
use multiproc_tests::whole;
use serde::{Deserialize, Serialize};

const DEADLINE: Duration = Duration::from_secs(60);

/// An empty file that nobody else has.
fn file() -> File {
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    rustix::fs::memfd_create("test", flags).unwrap().into()
}

/// The two ends of a pipe, to read and to write.
fn pipe() -> (File, File) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    (read.into(), write.into())
}

fn text(mut file: &File) -> String {
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    text
}

/// Waits until nobody has the other end of a pipe any more.
fn wait_for_end(file: File) {
    let reader = thread::spawn(move || (&file).read(&mut [0; 16]).unwrap());
    let end = Instant::now() + DEADLINE;
    while !reader.is_finished() {
        assert!(Instant::now() < end, "somebody has it still");
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(reader.join().unwrap(), 0);
}

/// Descriptors of this process.
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Waits until this process has so many descriptors.
fn wait_for_files(count: usize) {
    let end = Instant::now() + DEADLINE;
    while open_files() > count {
        assert!(Instant::now() < end, "{} and not {count}", open_files());
        thread::sleep(Duration::from_millis(1));
    }
}

/// A value that can be sent and not read.
#[derive(Debug, Serialize)]
struct Fails;

impl<'de> Deserialize<'de> for Fails {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Fails, D::Error> {
        Err(serde::de::Error::custom("never"))
    }
}

#[test]
fn arguments_and_results_are_the_same_open_file() {
    let mut ours = file();
    ours.write_all(b"a").unwrap();
    let write = |file: Fd<File>, other: Fd<OwnedFd>| {
        (&*file).write_all(b"b").unwrap();
        (other, file)
    };
    let (read, there) = pipe();
    let copy = ours.try_clone().unwrap();
    let child = Process::spawn(write, (Fd::from(copy), Fd::from(OwnedFd::from(there)))).unwrap();
    let (there, theirs) = child.join_timeout(DEADLINE).unwrap().unwrap();
    // One place in the file for all of them.
    theirs.into_inner().write_all(b"c").unwrap();
    ours.write_all(b"d").unwrap();
    assert_eq!(text(&ours), "abcd");
    drop(there);
    wait_for_end(read);
}

#[test]
fn a_listener_goes_through_a_queue_and_serves_in_another_process() {
    let serve = |mut listeners: Receiver<Option<Fd<TcpListener>>>| {
        let listener = listeners.recv().unwrap().unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        stream.write_all(line.to_uppercase().as_bytes()).unwrap();
    };
    let (mut tx, rx) = Queue::new(4).unwrap();
    let child = Process::spawn(serve, (rx,)).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    tx.send(Some(Fd::from(listener))).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"hello\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "HELLO\n");
    assert!(child.join_timeout(DEADLINE).unwrap().is_some());
}

#[test]
fn siblings_and_parents_are_given_them_through_pipes_and_queues() {
    // One child makes a pair and gives one end to its parent, the other to its sibling.
    let make = |mut to_parent: multiproc::PipeEnd<Fd<UnixStream>, ()>,
                mut to_sibling: Sender<(u8, Fd<UnixStream>)>| {
        let (one, other) = UnixStream::pair().unwrap();
        to_parent.send(one.into()).unwrap();
        to_sibling.send((7, other.into())).unwrap();
        // Here as long as the others fetch what it sent.
        to_parent.recv().unwrap_err();
    };
    let say = |mut streams: Receiver<(u8, Fd<UnixStream>)>| {
        let (number, mut stream) = streams.recv_timeout(DEADLINE).unwrap();
        stream.write_all(&[number]).unwrap();
    };
    let (mut ours, theirs) = Pipe::<(), Fd<UnixStream>>::new().unwrap();
    let (tx, rx) = Queue::new(4).unwrap();
    let sibling = Process::spawn(say, (rx,)).unwrap();
    let maker = Process::spawn(make, (theirs, tx)).unwrap();
    let mut stream = ours.recv_timeout(DEADLINE).unwrap().into_inner();
    let mut byte = [0];
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [7]);
    drop(ours);
    for child in [sibling, maker] {
        assert!(child.join_timeout(DEADLINE).unwrap().is_some());
    }
}

#[test]
fn a_pool_takes_them_in_items_and_contexts_and_gives_them_back() {
    let pool = Pool::new(2).unwrap();
    let mut all = file();
    let append = |log: &Fd<File>, number: u32| {
        // One write each, at the place that all share.
        (&**log).write_all(&[b'0' + number as u8]).unwrap();
        let (read, mut write) = pipe();
        write!(write, "{number}").unwrap();
        (number, vec![Fd::from(read)])
    };
    let log = Fd::from(all.try_clone().unwrap());
    let results = pool.with(log).map(append, 0..10).unwrap();
    for (number, (back, files)) in results.into_iter().enumerate() {
        assert_eq!(back as usize, number);
        let mut text = String::new();
        files
            .into_iter()
            .next()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, number.to_string());
    }
    let mut written = text(&all).into_bytes();
    written.sort_unstable();
    assert_eq!(written, b"0123456789");
    let close = |file: Fd<File>| drop(file);
    for _ in 0..20 {
        let (read, write) = pipe();
        pool.apply(close, (Fd::from(write),)).unwrap();
        wait_for_end(read);
    }
    all.rewind().unwrap();
    pool.close();
    pool.join().unwrap();
}

fn unread() {
    let send = |count: usize| {
        let (mut tx, mut rx) = Queue::<Fd<File>>::new(1000).unwrap();
        for _ in 0..count {
            tx.send(file().into()).unwrap();
        }
        (open_files(), rx.try_recv().is_ok(), tx, rx)
    };
    // What is made once, whatever is sent.
    drop(send(1));
    thread::sleep(Duration::from_millis(300));
    let before = open_files();
    let (with_all, received, tx, rx) = send(100);
    assert!(received && with_all >= before + 200, "{with_all}");
    drop((tx, rx));
    wait_for_files(before);
    // And what is read is held no longer than it takes to see that.
    let (_, _, mut tx, mut rx) = send(100);
    while rx.try_recv().is_ok() {}
    assert!(tx.is_empty());
    tx.send(file().into()).unwrap();
    drop((tx, rx));
    wait_for_files(before);
}

#[test]
fn what_is_dropped_unread_is_closed() {
    let child = Process::spawn(unread, ()).unwrap();
    assert!(child.join_timeout(DEADLINE).unwrap().is_some());
}

fn undecodable() {
    let send = || {
        let (mut tx, mut rx) = Queue::<(Fd<File>, Fails, Fd<File>)>::new(4).unwrap();
        let (read, write) = pipe();
        tx.send((write.into(), Fails, file().into())).unwrap();
        let error = rx.recv().unwrap_err();
        assert!(matches!(error, RecvError::Decode(_)), "{error}");
        wait_for_end(read);
    };
    send();
    thread::sleep(Duration::from_millis(300));
    let before = open_files();
    (0..20).for_each(|_| send());
    wait_for_files(before);
    // Nor is anything kept of a value that could not be sent.
    let (mut tx, _rx) = Queue::<(Fd<File>, Refuses)>::new(4).unwrap();
    let before = open_files();
    let error = tx.send((file().into(), Refuses)).unwrap_err();
    assert!(matches!(error, SendError::Encode { .. }), "{error}");
    drop(error);
    wait_for_files(before);
}

/// A value that cannot be sent.
#[derive(Debug, Deserialize)]
struct Refuses;

impl Serialize for Refuses {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("never"))
    }
}

#[test]
fn nothing_stays_open_of_a_message_that_cannot_be_read_or_sent() {
    let child = Process::spawn(undecodable, ()).unwrap();
    assert!(child.join_timeout(DEADLINE).unwrap().is_some());
}

#[test]
fn what_a_killed_sender_sent_is_closed_and_the_receiver_told() {
    let send = |mut tx: Sender<Fd<File>>, end: Fd<File>| {
        tx.send(end).unwrap();
        thread::sleep(DEADLINE);
    };
    let (tx, mut rx) = Queue::new(4).unwrap();
    let (read, write) = pipe();
    let child = Process::spawn(send, (tx, write.into())).unwrap();
    let end = Instant::now() + DEADLINE;
    while rx.is_empty() {
        assert!(Instant::now() < end, "nothing was sent");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.join_timeout(DEADLINE).unwrap_err();
    let error = rx.recv_timeout(DEADLINE).unwrap_err();
    assert!(matches!(error, RecvError::Decode(_)), "{error}");
    let text = whole(&error);
    assert!(text.contains("is gone"), "{text}");
    wait_for_end(read);
}

#[test]
fn what_a_killed_receiver_had_is_closed() {
    let receive = |mut rx: Receiver<Fd<File>>, mut told: Sender<()>| {
        let _first = rx.recv().unwrap();
        told.send(()).unwrap();
        thread::sleep(DEADLINE);
    };
    let (mut tx, rx) = Queue::new(4).unwrap();
    let (told, mut tell) = Queue::new(4).unwrap();
    let child = Process::spawn(receive, (rx, told)).unwrap();
    let (read, write) = pipe();
    let (unread, other) = pipe();
    tx.send(Fd::from(write)).unwrap();
    tx.send(Fd::from(other)).unwrap();
    tell.recv_timeout(DEADLINE).unwrap();
    child.kill().unwrap();
    child.join_timeout(DEADLINE).unwrap_err();
    // Also of the message that nobody is left to read.
    wait_for_end(read);
    wait_for_end(unread);
}

#[test]
fn what_a_sender_sent_that_has_returned_is_received() {
    let send = |mut tx: Sender<Fd<File>>| {
        let (read, mut write) = pipe();
        write.write_all(b"late").unwrap();
        tx.send(read.into()).unwrap();
    };
    let (tx, mut rx) = Queue::new(4).unwrap();
    let child = Process::spawn(send, (tx,)).unwrap();
    assert!(child.join_timeout(DEADLINE).unwrap().is_some());
    let mut text = String::new();
    let received = rx.recv_timeout(DEADLINE).unwrap();
    (&*received).read_to_string(&mut text).unwrap();
    assert_eq!(text, "late");
}

#[test]
fn a_message_that_is_read_twice_gives_two() {
    let queue = Queue::<Fd<File>>::builder().message_size(1000).in_place(4);
    let (mut tx, mut rx) = queue.build().unwrap();
    tx.send(file().into()).unwrap();
    let lease = rx.lease().unwrap();
    let (one, two) = (lease.read().unwrap(), lease.read().unwrap());
    lease.ack();
    (&*one).write_all(b"1").unwrap();
    (&*two).write_all(b"2").unwrap();
    assert_eq!(text(&one), "12");
}

/// What a process does that may not look into its parent.
fn as_nobody(mut rx: Receiver<Fd<File>>, mut tx: Sender<Fd<File>>) {
    if nix::unistd::geteuid().is_root() {
        nix::unistd::setgid(65534.into()).unwrap();
        nix::unistd::setuid(65534.into()).unwrap();
        let parent = multiproc::parent_process().unwrap().pid();
        assert!(std::fs::read_link(format!("/proc/{parent}/fd/0")).is_err());
    } else {
        eprintln!("not root: both processes may take each other's descriptors directly");
    }
    while let Ok(file) = rx.recv() {
        (&*file).write_all(b"nobody").unwrap();
        tx.send(file).unwrap();
    }
}

#[test]
fn where_the_system_refuses_the_direct_way_the_tree_gives_them() {
    let (mut tx, rx) = Queue::new(4).unwrap();
    let (back, mut files) = Queue::new(4).unwrap();
    let child = Process::spawn(as_nobody, (rx, back)).unwrap();
    for _ in 0..3 {
        tx.send(Fd::from(file())).unwrap();
        let back = files.recv_timeout(DEADLINE).unwrap();
        assert_eq!(text(&back), "nobody");
    }
    drop(tx);
    assert!(child.join_timeout(DEADLINE).unwrap().is_some());
}

const NAME: &str = "MULTIPROC_TEST_FD_NAME";

/// Not a test by itself: what another program does, for the next one.
#[test]
fn stranger() {
    let Ok(name) = std::env::var(NAME) else {
        return;
    };
    let builder = Queue::<Fd<File>>::builder();
    let (mut tx, _) = builder.open(&name).unwrap();
    let sent = file();
    tx.send(sent.try_clone().unwrap().into()).unwrap();
    // Until the other has written.
    let end = Instant::now() + DEADLINE;
    while text(&sent).is_empty() {
        assert!(Instant::now() < end, "nobody wrote");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn programs_that_are_strangers_pass_them_like_other_handles() {
    let name = format!("test-fd-{}", std::process::id());
    let (_tx, mut rx) = Queue::<Fd<File>>::builder().create(&name).unwrap();
    let mut other = Command::new("/proc/self/exe")
        .args(["--exact", "stranger"])
        .env(NAME, &name)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let received = rx.recv_timeout(DEADLINE);
    match &received {
        Ok(file) => (&**file).write_all(b"here").unwrap(),
        Err(error) => {
            other.kill().unwrap();
            other.wait().unwrap();
            // Between strangers no tree can be asked.
            assert!(matches!(error, RecvError::Decode(_)), "{error}");
            let text = whole(&error);
            assert!(text.contains("cannot be opened"), "{text}");
            return eprintln!("this system lets no stranger take a descriptor: {text}");
        }
    }
    assert!(other.wait().unwrap().success());
}

#[test]
fn no_other_format_takes_them() {
    let error = postcard::to_allocvec(&Fd::from(file())).unwrap_err();
    assert_eq!(error, postcard::Error::SerdeSerCustom);
    assert!(postcard::from_bytes::<Fd<File>>(&[0; 100]).is_err());
    // It is what it holds.
    let fd = Fd::from(file());
    assert_eq!(fd.metadata().unwrap().len(), 0);
    let _ = fd.as_fd();
    drop(fd.into_inner());
}
