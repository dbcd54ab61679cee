#![expect(unsafe_code, reason = "giving memory back and changing descriptors, as a VM can")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use devices::GuestMemory;
use tempfile::TempDir;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};
use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

use super::image::PAGE;
use super::session::PATIENCE;
use super::slots::MAX_PER_PROCESS;
use super::*;
use crate::memory::handshake::Part;
use crate::memory::userfault::Userfault;
use crate::memory::{HugePages, MIB, Overlay, Pager, Source, create, serve_by};

const MEMORY: u64 = 8;

/// Serves 8 MiB: the page `n` of the second MiB is full of the byte `n % 255 + 1`, the rest is zeroes.
struct Host {
    folder: TempDir,
    options: Options,
    server: Option<JoinHandle<Vec<Report>>>,
}

fn image(folder: &Path) -> Image {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(folder.join("memory"))
        .unwrap();
    file.set_len(MEMORY * MIB).unwrap();
    for page in 0..256 {
        file.write_all_at(&[(page % 255) as u8 + 1; PAGE as usize], MIB + page * PAGE).unwrap();
    }
    Image::new(Source { base: Arc::new(file), overlays: Vec::<Overlay>::new() }, MEMORY * MIB).unwrap()
}

impl Host {
    /// `None` where this user may not; the running test is skipped.
    fn new(what: impl FnOnce(PathBuf) -> WorkingSet) -> Option<Self> {
        Userfault::create_or_skip()?;
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            socket: folder.path().join("socket"),
            once: true,
            working_set: what(folder.path().to_owned()),
        };
        let mut host = Self { folder, options, server: None };
        host.start();
        Some(host)
    }

    fn start(&mut self) {
        let (image, options) = (image(self.folder.path()), self.options.clone());
        self.server = Some(thread::spawn(move || {
            let mut reports = Vec::new();
            serve(image, &options, |report| reports.push(report.clone())).unwrap();
            reports
        }));
    }

    fn connect(&self) -> UnixStream {
        let start = Instant::now();
        loop {
            match UnixStream::connect(&self.options.socket) {
                Ok(stream) => return stream,
                Err(error) => assert!(start.elapsed() < PATIENCE, "{error}"),
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn vm(&self) -> (GuestMemory, Pager) {
        let start = Instant::now();
        while !self.options.socket.exists() {
            assert!(start.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(1));
        }
        serve_by(MEMORY, &self.options.socket, HugePages::None, false, |_| unreachable!()).unwrap()
    }

    /// What became of the VMs, once the server has ended.
    fn reports(&mut self) -> Vec<Report> {
        let reports = self.server.take().unwrap().join().unwrap();
        assert!(!self.options.socket.exists(), "the socket is gone with the server");
        reports
    }
}

fn byte(memory: &GuestMemory, address: u64) -> u8 {
    memory.read_obj(GuestAddress(address)).unwrap()
}

#[track_caller]
fn assert_is_the_snapshot(memory: &GuestMemory) {
    for page in 0..MEMORY * MIB / PAGE {
        let expected = if (256..512).contains(&page) { ((page - 256) % 255) as u8 + 1 } else { 0 };
        assert_eq!(byte(memory, page * PAGE + page), expected, "page {page}");
    }
}

#[test]
fn each_vm_has_the_snapshot_in_its_memory_and_its_own_writes() {
    let Some(mut host) = Host::new(|_| WorkingSet::None) else { return };
    let vms = [host.vm(), host.vm(), host.vm()];
    for (memory, _) in &vms {
        for address in [0, MIB, 5 * MIB] {
            memory.write_obj(0xeeu8, GuestAddress(address)).unwrap();
            assert_eq!(byte(memory, address), 0xee);
            memory.write_obj(u8::from(address == MIB), GuestAddress(address)).unwrap();
        }
        assert_is_the_snapshot(memory);
    }
    drop(vms);
    let reports = host.reports();
    assert_eq!(reports.len(), 3);
    for report in reports {
        assert_eq!(report.error, None);
        assert_eq!(report.pid, Some(std::process::id()));
        assert_eq!((report.asked_bytes, report.ahead_bytes, report.zero_bytes), (MIB, 0, 7 * MIB));
        assert_eq!(report.faults, 16 + 7, "as many windows of data and of zeroes");
    }
}

#[test]
fn what_the_first_vm_asked_for_is_sent_ahead_to_the_next() {
    let Some(mut host) = Host::new(WorkingSet::Record) else { return };
    let (memory, pager) = host.vm();
    for address in [2 * MIB - 1, MIB, 3 * MIB] {
        byte(&memory, address);
    }
    drop(pager);
    assert_eq!(host.reports()[0].recorded, Some(3));

    host.options.working_set = WorkingSet::Send(host.folder.path().to_owned());
    host.start();
    let (memory, pager) = host.vm();
    thread::sleep(Duration::from_millis(200));
    assert_is_the_snapshot(&memory);
    drop(pager);
    let report = host.reports().remove(0);
    assert_eq!((report.ahead_bytes, report.asked_bytes), (128 << 10, MIB - (128 << 10)));
    assert_eq!(report.faults, 14 + 6);
}

#[test]
fn memory_that_a_vm_gives_back_is_zeroes_afterwards() {
    let Some(mut host) = Host::new(|_| WorkingSet::None) else { return };
    let (memory, pager) = host.vm();
    byte(&memory, MIB);
    let address = memory.get_host_address(GuestAddress(MIB)).unwrap();
    for _ in 0..100 {
        // The first page was given, the one behind the window never was.
        for (page, len) in [(0, 0x1000), (16, 0x2000)] {
            // SAFETY: the pages are of guest memory, and may lose their content.
            let result = unsafe { libc::madvise(address.add(page << 12).cast(), len, libc::MADV_DONTNEED) };
            assert_eq!(result, 0);
        }
        assert_eq!([0, 16, 17].map(|page| byte(&memory, MIB + page * PAGE)), [0; 3]);
        memory.write_obj(7u8, GuestAddress(MIB)).unwrap();
    }
    assert_eq!([1, 15, 18, 255].map(|page| byte(&memory, MIB + page * PAGE)), [2, 16, 19, 1]);
    drop(pager);
    let report = host.reports().remove(0);
    assert_eq!((report.error, report.removed_bytes), (None, 300 * PAGE));
}

/// What a client that speaks by hand has: its memory, and a userfaultfd for it.
fn by_hand(page_size: u64) -> (GuestMemory, Userfault, Vec<u8>) {
    let memory = create(MEMORY, HugePages::None, false).unwrap();
    let uffd = Userfault::create().unwrap();
    uffd.register(memory.iter().next().unwrap()).unwrap();
    let mut parts = Part::all(&memory, HugePages::None);
    parts[0].page_size = page_size;
    let message = serde_json::to_vec(&parts).unwrap();
    (memory, uffd, message)
}

#[test]
fn large_pages_are_given_whole() {
    let Some(mut host) = Host::new(|_| WorkingSet::None) else { return };
    let (memory, uffd, message) = by_hand(2 * MIB);
    let stream = host.connect();
    stream.send_with_fd(&message[..], uffd.as_raw_fd()).unwrap();
    assert_is_the_snapshot(&memory);
    drop(stream);
    let report = host.reports().remove(0);
    assert_eq!((report.error, report.faults, report.asked_bytes), (None, 4, 8 * MIB));
}

#[test]
fn a_message_in_pieces_is_understood() {
    let Some(mut host) = Host::new(|_| WorkingSet::None) else { return };
    let (memory, uffd, message) = by_hand(PAGE);
    let mut stream = host.connect();
    stream.send_with_fd(&message[..5], uffd.as_raw_fd()).unwrap();
    thread::sleep(Duration::from_millis(20));
    stream.write_all(&message[5..]).unwrap();
    assert_is_the_snapshot(&memory);
    drop(stream);
    assert_eq!(host.reports().len(), 1);
}

/// Sends `message`, with `fd` if there is one, and waits until the server has closed the connection.
#[track_caller]
fn send_nonsense(host: &Host, message: &[u8], fd: Option<RawFd>) {
    let mut stream = host.connect();
    stream.set_read_timeout(Some(2 * PATIENCE)).unwrap();
    // It may be let go before it has said all.
    let _ = match fd {
        Some(fd) => stream.send_with_fd(message, fd).map(drop).map_err(io::Error::from),
        None => stream.write_all(message),
    };
    match stream.read(&mut [0]) {
        Ok(0) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_client_that_talks_nonsense_is_let_go_and_the_others_are_served_on() {
    let Some(mut host) = Host::new(|_| WorkingSet::None) else { return };
    let (memory, pager) = host.vm();
    byte(&memory, 0);
    let (_memory, uffd, message) = by_hand(PAGE);
    let null = File::open("/dev/null").unwrap();
    let cases: [(&[u8], Option<RawFd>, &str); 8] = [
        (b"hello", None, "not that of a VM"),
        (b"[]", Some(uffd.as_raw_fd()), "0 bytes of memory"),
        (b"[{\"size\":1}]", Some(uffd.as_raw_fd()), "missing field"),
        (&message, None, "no userfaultfd with its message"),
        (&message, Some(null.as_raw_fd()), "no userfaultfd"),
        (&vec![b'['; 100 << 10], None, "the message"),
        (&vec![b' '; 100 << 10], None, "the message"),
        // Says the first half, and nothing more.
        (&message[..20], Some(uffd.as_raw_fd()), "does not say what memory it has"),
    ];
    for (message, fd, _) in cases {
        send_nonsense(&host, message, fd);
    }
    drop(host.connect());
    // Its descriptor would have reading it wait.
    let stream = host.connect();
    let (_memory, uffd, message) = by_hand(PAGE);
    stream.send_with_fd(&message[..], uffd.as_raw_fd()).unwrap();
    thread::sleep(Duration::from_millis(20));
    // SAFETY: sets the flags of an open descriptor.
    assert_eq!(unsafe { libc::fcntl(uffd.as_raw_fd(), libc::F_SETFL, 0) }, 0);
    assert_is_the_snapshot(&memory);
    drop((stream, pager));
    let reports = host.reports();
    let errors: Vec<_> = reports.iter().filter_map(|report| report.error.as_deref()).collect();
    for (_, _, expected) in cases {
        assert!(errors.iter().any(|error| error.contains(expected)), "{expected}: {errors:#?}");
    }
}

/// A TCP socket whose last close(2) blocks for `seconds`: nobody reads what it has sent.
fn socket_that_lingers(seconds: u64) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (reader, _) = listener.accept().unwrap();
    socket2::SockRef::from(&socket).set_linger(Some(Duration::from_secs(seconds))).unwrap();
    socket.set_nonblocking(true).unwrap();
    while socket.write(&[0; 4096]).is_ok() {}
    (socket, reader)
}

#[test]
fn a_descriptor_whose_close_blocks_delays_no_other_vm_and_not_the_end() {
    let Some(mut host) = Host::new(|_| WorkingSet::None) else { return };
    let (memory, pager) = host.vm();
    byte(&memory, 0);
    let begin = Instant::now();
    let (socket, _reader) = socket_that_lingers(20);
    let stream = host.connect();
    stream.send_with_fd(&b"hello"[..], socket.as_raw_fd()).unwrap();
    // In a thread: where the server was faster, this close is the last one, and blocks.
    thread::spawn(|| drop(socket));
    thread::sleep(Duration::from_millis(50));
    assert_is_the_snapshot(&memory);
    let (second, second_pager) = host.vm();
    assert_is_the_snapshot(&second);
    // And one that is refused, as its process has too many.
    let others: Vec<_> = (0..MAX_PER_PROCESS).map(|_| host.connect()).collect();
    let (socket, _other_reader) = socket_that_lingers(20);
    let mut refused = host.connect();
    let _ = refused.send_with_fd(&b"hello"[..], socket.as_raw_fd());
    thread::spawn(|| drop(socket));
    refused.set_read_timeout(Some(PATIENCE)).unwrap();
    // The end, or ECONNRESET as the server did not read the message.
    match refused.read(&mut [0]) {
        Ok(count) => assert_eq!(count, 0),
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    drop((others, refused));
    drop((pager, second_pager));
    let errors: Vec<_> = host.reports().into_iter().filter_map(|report| report.error).collect();
    assert!(errors.len() == 1 && errors[0].contains("not that of a VM"), "{errors:?}");
    assert!(begin.elapsed() < 2 * PATIENCE, "{:?}", begin.elapsed());
}

#[test]
fn one_process_does_not_take_the_place_of_others() {
    let Some(mut host) = Host::new(|_| WorkingSet::None) else { return };
    let (memory, pager) = host.vm();
    let mut connections: Vec<_> = (1..=MAX_PER_PROCESS).map(|_| host.connect()).collect();
    let mut last = connections.pop().unwrap();
    last.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(last.read(&mut [0]).unwrap(), 0, "the ninth connection of this process is closed");
    drop(connections);
    assert_is_the_snapshot(&memory);
    drop(pager);
    assert_eq!(host.reports().len(), 1);
}

#[test]
fn who_only_looks_whether_the_socket_is_served_is_no_vm() {
    let Some(mut host) = Host::new(WorkingSet::Record) else { return };
    drop(host.connect());
    let error = serve(image(host.folder.path()), &host.options, |_| {}).unwrap_err();
    assert!(matches!(error, ServeError::Socket { .. }), "{error}");
    send_nonsense(&host, b"hello", None);
    let (memory, pager) = host.vm();
    byte(&memory, 0);
    drop((memory, pager));
    let [nonsense, vm] = &host.reports()[..] else { panic!("more than one who said something, and a VM") };
    assert!(nonsense.error.is_some() && vm.error.is_none());
    assert!(vm.recorded.is_some(), "the first VM, which did not connect first");
}

#[test]
fn a_memory_file_that_is_cut_ends_the_vm_and_not_the_server() {
    let Some(mut host) = Host::new(|_| WorkingSet::None) else { return };
    let (memory, pager) = host.vm();
    byte(&memory, MIB);
    File::options().write(true).open(host.folder.path().join("memory")).unwrap().set_len(MIB).unwrap();
    let reader = thread::spawn(move || byte(&memory, 2 * MIB - 1));
    let start = Instant::now();
    let reports = host.reports();
    assert!(reports[0].error.is_some(), "{reports:?}");
    assert!(start.elapsed() < 2 * PATIENCE);
    // With the last descriptor goes whoever made it wait.
    drop(pager);
    reader.join().unwrap();
}

#[test]
fn a_working_set_that_is_none_is_refused_before_anybody_is_served() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(working_set::FILE), "0 900000\n").unwrap();
    let options = Options {
        socket: folder.path().join("socket"),
        once: true,
        working_set: WorkingSet::Send(folder.path().to_owned()),
    };
    let error = serve(image(folder.path()), &options, |_| {}).unwrap_err();
    assert!(matches!(error, ServeError::WorkingSet(_)), "{error}");
    assert!(!options.socket.exists());
}
