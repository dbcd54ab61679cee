use std::fs::{self, File};
use std::os::unix::net::UnixListener;

use tempfile::TempDir;
use vm_memory::{Bytes as _, GuestAddress};

use super::*;
use crate::memory::handshake;

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    (folder, path)
}

#[track_caller]
fn refused(socket: &Path) -> String {
    let never = |_: &str| unreachable!();
    match serve_by(4, socket, HugePages::None, false, never).unwrap_err() {
        MemoryError::Pager(error) => error.to_string(),
        other => panic!("{other}"),
    }
}

#[test]
fn a_path_where_nobody_listens_is_refused_with_the_mend() {
    let Some(_) = Userfault::create_or_skip() else { return };
    let (folder, path) = folder();
    assert!(refused(&path).contains("start that process first"), "{}", refused(&path));
    fs::write(&path, "").unwrap();
    assert!(refused(&path).contains("nobody listens"), "{}", refused(&path));
    fs::remove_file(&path).unwrap();
    drop(UnixListener::bind(&path).unwrap());
    assert!(refused(&path).contains("nobody listens"), "{}", refused(&path));
    assert!(refused(folder.path()).contains("cannot connect"));
    assert!(refused(&folder.path().join("x".repeat(200))).contains("cannot connect"));
}

#[test]
fn a_process_that_takes_nothing_is_not_waited_for_for_ever() {
    let Some(_) = Userfault::create_or_skip() else { return };
    let (_folder, path) = folder();
    let _listener = UnixListener::bind(&path).unwrap();
    let start = Instant::now();
    assert!(refused(&path).contains("took no guest memory"));
    assert!(start.elapsed() < 2 * PATIENCE);
}

#[test]
fn a_process_that_closes_the_connection_unread_is_told() {
    let Some(_) = Userfault::create_or_skip() else { return };
    let (_folder, path) = folder();
    let listener = UnixListener::bind(&path).unwrap();
    let thread = thread::spawn(move || drop(listener.accept().unwrap()));
    assert!(refused(&path).contains("does not take guest memory"));
    thread.join().unwrap();
}

/// Takes a VM's memory as a handler for Firecracker does: in one read.
fn accept(listener: &UnixListener) -> (UnixStream, Vec<Part>, Userfault) {
    let (stream, _) = listener.accept().unwrap();
    let mut message = [0; 1024];
    let (count, file) = stream.recv_with_fd(&mut message).unwrap();
    let parts = handshake::parse(&message[..count], 4 << 20).unwrap().unwrap();
    (stream, parts, Userfault::received(file.unwrap()).unwrap())
}

#[test]
fn pages_are_those_that_the_other_process_gives() {
    let Some(_) = Userfault::create_or_skip() else { return };
    let (_folder, path) = folder();
    let listener = UnixListener::bind(&path).unwrap();
    let thread = thread::spawn(move || {
        let (stream, parts, uffd) = accept(&listener);
        uffd.copy(parts[0].base_host_virt_addr + 0x3000, &[7; 4096]).unwrap();
        (stream, uffd)
    });
    let (memory, pager) = serve_by(4, &path, HugePages::None, true, |_| unreachable!()).unwrap();
    assert_eq!(memory.read_obj::<u8>(GuestAddress(0x3fff)).unwrap(), 7);
    let (stream, _uffd) = thread.join().unwrap();
    drop(pager);
    let mut end = File::from(std::os::fd::OwnedFd::from(stream));
    assert_eq!(io::Read::read(&mut end, &mut [0]).unwrap(), 0, "the other side sees that the VM has ended");
}

static GIVEN_UP: AtomicBool = AtomicBool::new(false);

#[test]
fn when_the_other_process_ends_the_vm_is_told_and_then_ended() {
    let Some(_) = Userfault::create_or_skip() else { return };
    let (_folder, path) = folder();
    let listener = UnixListener::bind(&path).unwrap();
    let thread = thread::spawn(move || accept(&listener));
    let give_up = |message: &str| {
        assert_eq!(message, LOST);
        GIVEN_UP.store(true, Ordering::Release);
    };
    let (_memory, pager) = serve_by(4, &path, HugePages::None, false, give_up).unwrap();
    drop(thread.join().unwrap());
    let start = Instant::now();
    while pager.lost.read().is_err() {
        assert!(start.elapsed() < PATIENCE);
        thread::sleep(INTERVAL);
    }
    assert!(!GIVEN_UP.load(Ordering::Acquire), "it has time to end by itself");
    while !GIVEN_UP.load(Ordering::Acquire) {
        assert!(start.elapsed() < 4 * GRACE);
        thread::sleep(INTERVAL);
    }
}
