//! VMs at the process that serves memory: one that says and does anything with its memory and its userfaultfd, and one as it
//! should be.
//!
//! Holds: no panic, no hang, and no error that ends the server; every page that the good VM touches has the byte of the
//! snapshot, or zero once it was given back; and who has gone is let go.
#![no_main]

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd, FromRawFd as _, RawFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use devices::GuestMemory;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};
use vmm::memory::{self, HugePages, Overlay, Source};
use vmm::memory_server::harness::{ServerHarness, userfaultfd};
use vmm::memory_server::{Image, Options, WorkingSet};
use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

const MIB: u64 = 2;
const LEN: u64 = MIB << 20;
const PAGE: u64 = 4096;
const PAGES: u64 = LEN / PAGE;
/// Longer than the server needs for a page.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a VM waits that has not said what it should, and may never be served.
const A_MOMENT: Duration = Duration::from_millis(1);

#[derive(Arbitrary, Debug)]
struct Input {
    /// Pages that a diff has, as first page and count.
    diff: Vec<(u8, u8)>,
    working_set: Option<Vec<(u8, u8)>>,
    record: bool,
    /// The first VM says this instead of what is right.
    words: Option<Words>,
    sends: Sends,
    /// What is done by either VM.
    actions: Vec<(bool, Action)>,
}

#[derive(Arbitrary, Debug)]
enum Words {
    /// Any bytes.
    Bytes(Vec<Vec<u8>>),
    /// Its memory in these parts, each of so many pages, the next one at the end of the last; perhaps in another order in
    /// the file, and of pages of 2 MiB.
    Parts { pages: Vec<u8>, reversed: bool, huge: bool, shift: i8 },
}

/// The descriptor that goes with it.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq)]
enum Sends {
    Userfaultfd,
    /// One that waits when it is read.
    Blocking,
    /// Something else.
    File,
    Nothing,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Action {
    Touch(u8),
    /// Gives pages back (`MADV_DONTNEED`), first page and count.
    Remove(u8, u8),
    /// Lets the server go on for some microseconds.
    Wait(u8),
    /// Says something more.
    Say,
    /// Goes.
    Hang,
}

/// What is done in the thread of a guest, which waits for pages.
enum Job {
    Touch(GuestMemory, u64),
    Remove(GuestMemory, u64, u64),
}

/// A thread that touches memory, and gives back the byte that it found.
struct Guest {
    jobs: Sender<Job>,
    done: Receiver<u8>,
}

impl Guest {
    fn new() -> Self {
        let ((jobs, next), (finish, done)) = (mpsc::channel(), mpsc::channel());
        std::thread::spawn(move || {
            for job in next {
                let byte = match job {
                    Job::Touch(memory, page) => memory.read_obj(GuestAddress(page * PAGE)).unwrap(),
                    Job::Remove(memory, page, count) => {
                        let address = memory.get_host_address(GuestAddress(page * PAGE)).unwrap();
                        let len = (count * PAGE) as usize;
                        // SAFETY: the pages are of guest memory, which may lose what is in them.
                        assert_eq!(unsafe { libc::madvise(address.cast(), len, libc::MADV_DONTNEED) }, 0);
                        0
                    }
                };
                if finish.send(byte).is_err() {
                    break;
                }
            }
        });
        Self { jobs, done }
    }
}

thread_local! {
    static GUEST: Guest = Guest::new();
}

/// The memory file of the base, with the byte `page % 251` in every second page; and that of a diff, with 0xff.
static FILES: LazyLock<[Arc<File>; 2]> = LazyLock::new(|| {
    let [base, diff] = [c"base", c"diff"].map(|name| {
        // SAFETY: a new descriptor, which nobody else has.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(name.as_ptr(), 0)) };
        file.set_len(LEN).unwrap();
        Arc::new(file)
    });
    for page in 0..PAGES {
        if page % 2 == 0 {
            base.write_all_at(&[(page % 251) as u8; PAGE as usize], page * PAGE).unwrap();
        }
        diff.write_all_at(&[0xff; PAGE as usize], page * PAGE).unwrap();
    }
    [base, diff]
});

struct Vm {
    memory: GuestMemory,
    /// Gone when it has gone, or was let go: who waits for a page has one of zeroes then.
    connected: Option<(UnixStream, Box<dyn AsRawFd>)>,
    removed: Vec<bool>,
}

impl Vm {
    /// `None` where this user may not.
    fn new(socket: &Path) -> Option<Self> {
        let memory = memory::create(MIB, HugePages::None, false).unwrap();
        let uffd = userfaultfd(&memory).ok()?;
        let connection = UnixStream::connect(socket).unwrap();
        connection.set_nonblocking(true).unwrap();
        Some(Self {
            memory,
            connected: Some((connection, Box::new(uffd))),
            removed: vec![false; PAGES as usize],
        })
    }

    fn address(&self) -> u64 {
        self.memory.iter().next().unwrap().as_ptr() as u64
    }

    fn parts(&self, pages: &[u8], reversed: bool, huge: bool, shift: i8) -> Vec<u8> {
        let sizes: Vec<u64> = pages.iter().map(|pages| u64::from(*pages) * PAGE).collect();
        let rest = LEN.saturating_sub(sizes.iter().sum());
        let mut address = self.address().wrapping_add_signed(i64::from(shift) * PAGE as i64);
        let mut offset = if reversed { LEN } else { 0 };
        let parts: Vec<_> = sizes
            .into_iter()
            .chain([rest])
            .filter(|size| *size > 0)
            .map(|size| {
                let start = if reversed { offset.wrapping_sub(size) } else { offset };
                let part = json!({
                    "base_host_virt_addr": address,
                    "size": size,
                    "offset": start,
                    "page_size": if huge { 2 << 20 } else { PAGE },
                });
                address = address.wrapping_add(size);
                offset = if reversed { start } else { offset + size };
                part
            })
            .collect();
        serde_json::to_vec(&parts).unwrap()
    }

    fn handshake(&self, words: Option<&Words>, sends: Sends) {
        let (connection, uffd) = self.connected.as_ref().unwrap();
        let pieces = match words {
            Some(Words::Bytes(pieces)) => pieces.clone(),
            Some(Words::Parts { pages, reversed, huge, shift }) => {
                vec![self.parts(pages, *reversed, *huge, *shift)]
            }
            None => vec![self.parts(&[], false, false, 0)],
        };
        let fd = match sends {
            Sends::Userfaultfd => Some(uffd.as_raw_fd()),
            Sends::Blocking => Some(blocking(uffd.as_raw_fd())),
            Sends::File => Some(FILES[0].as_raw_fd()),
            Sends::Nothing => None,
        };
        for (number, piece) in pieces.iter().filter(|piece| !piece.is_empty()).enumerate() {
            let _ = match fd.filter(|_| number == 0) {
                Some(fd) => connection.send_with_fd(&piece[..], fd).is_ok(),
                None => (&mut &*connection).write(piece).is_ok(),
            };
        }
    }
}

fn blocking(fd: RawFd) -> RawFd {
    // SAFETY: sets the flags of an open descriptor.
    unsafe { libc::fcntl(fd, libc::F_SETFL, 0) };
    fd
}

struct Host {
    server: ServerHarness,
    vms: Vec<Vm>,
    /// Which of them said what they should.
    is_good: [bool; 2],
}

impl Host {
    /// Has the guest of a VM do something; the byte that the guest found, unless its VM was refused meanwhile.
    fn run(&mut self, vm: usize, job: Job) -> Option<u8> {
        GUEST.with(|guest| {
            guest.jobs.send(job).unwrap();
            let start = Instant::now();
            loop {
                match guest.done.try_recv() {
                    Ok(byte) => return self.vms[vm].connected.is_some().then_some(byte),
                    Err(TryRecvError::Empty) => {}
                    Err(TryRecvError::Disconnected) => panic!("the guest's thread ended"),
                }
                self.notice_ends();
                assert!(start.elapsed() < PATIENCE, "a page never came");
                if !self.is_good[vm] && start.elapsed() > A_MOMENT {
                    self.vms[vm].connected = None;
                }
                std::thread::yield_now();
            }
        })
    }

    /// A VM whose connection was closed can go on by itself.
    fn notice_ends(&mut self) {
        for vm in &mut self.vms {
            let ended = vm.connected.as_ref().is_some_and(|(connection, _)| {
                use std::io::Read as _;
                let read = (&mut &*connection).read(&mut [0]);
                !matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
            });
            if ended {
                vm.connected = None;
            }
        }
    }
}

fn folder() -> PathBuf {
    format!("/dev/shm/rvmm-fuzz-memory-{}", std::process::id()).into()
}

/// Ranges of offsets that are in order.
fn in_order(pages: &[(u8, u8)]) -> Vec<std::ops::Range<u64>> {
    let mut last = 0;
    let mut ranges = Vec::new();
    for (gap, count) in pages {
        let start = (last + u64::from(*gap)).min(PAGES);
        last = (start + u64::from(*count)).min(PAGES);
        if start < last {
            ranges.push(start * PAGE..last * PAGE);
        }
    }
    ranges
}

fuzz_target!(|input: Input| {
    let diff = in_order(&input.diff);
    let [base, over] = &*FILES;
    let overlay = Overlay { file: over.clone(), pages: diff.clone() };
    let image = Image::new(Source { base: base.clone(), overlays: vec![overlay] }, LEN).unwrap();
    let folder = folder();
    let _ = std::fs::create_dir(&folder);
    let working_set = match &input.working_set {
        Some(pages) => {
            let lines = pages.iter().map(|(page, count)| {
                let count = u64::from(*count).clamp(1, PAGES - u64::from(*page));
                format!("{:x} {:x}\n", u64::from(*page) * PAGE, count * PAGE)
            });
            std::fs::write(folder.join("working-set"), lines.collect::<String>()).unwrap();
            WorkingSet::Send(folder.clone())
        }
        None if input.record => WorkingSet::Record(folder.clone()),
        None => WorkingSet::None,
    };
    let options = Options { socket: folder.join("socket"), once: false, working_set };
    let server = ServerHarness::new(image, &options).unwrap();
    let Some(first) = Vm::new(&options.socket) else { return };
    first.handshake(input.words.as_ref(), input.sends);
    let second = Vm::new(&options.socket).unwrap();
    second.handshake(None, Sends::Userfaultfd);
    // Who says something else of its memory may have anything in it.
    let is_good = [input.words.is_none(), true];
    let mut host = Host { server, vms: vec![first, second], is_good };
    let mut stays = true;
    for (second, action) in input.actions.into_iter().take(32) {
        let number = usize::from(second);
        host.notice_ends();
        let vm = &mut host.vms[number];
        let Some((connection, _)) = &vm.connected else { continue };
        let memory = vm.memory.clone();
        match action {
            Action::Touch(page) => {
                let at = u64::from(page) * PAGE;
                let expected = match page {
                    page if vm.removed[usize::from(page)] => 0,
                    _ if diff.iter().any(|range| range.contains(&at)) => 0xff,
                    page if page % 2 == 0 => page % 251,
                    _ => 0,
                };
                let found = host.run(number, Job::Touch(memory, page.into()));
                assert!(
                    !is_good[number] || found.is_none_or(|found| found == expected),
                    "page {page}: {found:?}"
                );
            }
            Action::Remove(page, count) => {
                let count = u64::from(count).clamp(1, PAGES - u64::from(page));
                vm.removed[usize::from(page)..][..count as usize].fill(true);
                host.run(number, Job::Remove(memory, page.into(), count));
            }
            Action::Wait(microseconds) => std::thread::sleep(Duration::from_micros(microseconds.into())),
            Action::Say => {
                let _ = (&mut &*connection).write(b" ");
                stays &= !second;
            }
            Action::Hang => {
                vm.connected = None;
                stays &= !second;
            }
        }
    }
    host.notice_ends();
    assert!(host.vms[1].connected.is_some() || !stays, "a VM as it should be was let go");
    host.vms.clear();
    let end = Instant::now() + PATIENCE;
    while host.server.clients() > 0 {
        assert!(Instant::now() < end, "a VM that has gone is still served");
        std::thread::yield_now();
    }
    host.server.end().unwrap();
    std::fs::remove_dir_all(folder).unwrap();
});
