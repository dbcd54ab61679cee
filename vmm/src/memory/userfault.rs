//! userfaultfd(2), as far as guest memory needs it: for the VM whose pages are missing, and for the process that has them.
//!
//! By the ioctls themselves, as the bindings that there are want libclang when rvmm is built. Structures and numbers are
//! those of `linux/userfaultfd.h`.
#![expect(unsafe_code, reason = "userfaultfd has no safe wrapper")]

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{GuestMemoryRegion as _, GuestRegionMmap};

/// `_IOWR(UFFDIO, …)` of the header, for a structure of `size` bytes.
const fn iowr(number: u64, size: usize) -> libc::c_ulong {
    3 << 30 | (size as u64) << 16 | UFFDIO << 8 | number
}

const UFFDIO: u64 = 0xaa;
const UFFDIO_API: libc::c_ulong = iowr(0x3f, size_of::<Api>());
const UFFDIO_REGISTER: libc::c_ulong = iowr(0x00, size_of::<Register>());
const UFFDIO_COPY: libc::c_ulong = iowr(0x03, size_of::<Copy>());
const UFFDIO_ZEROPAGE: libc::c_ulong = iowr(0x04, size_of::<ZeroPage>());
/// `_IOR(UFFDIO, 0x02, struct uffdio_range)`
const UFFDIO_WAKE: libc::c_ulong = 2 << 30 | 16 << 16 | UFFDIO << 8 | 0x02;
/// `_IO(0xAA, 0x00)`, of `/dev/userfaultfd`.
const USERFAULTFD_IOC_NEW: libc::c_ulong = 0xaa00;

const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_EVENT_REMOVE: u64 = 1 << 3;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;

const UFFD_EVENT_PAGEFAULT: u8 = 0x12;
const UFFD_EVENT_FORK: u8 = 0x13;
const UFFD_EVENT_REMOVE: u8 = 0x15;
/// Bytes of a `struct uffd_msg`.
const MESSAGE_SIZE: usize = 32;
/// Messages that are read at once.
const MESSAGES: usize = 16;

/// What the link of such a descriptor in `/proc/self/fd` says.
const LINK: &str = "anon_inode:[userfaultfd]";

#[repr(C)]
struct Api {
    number: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    done: i64,
}

#[repr(C)]
struct ZeroPage {
    start: u64,
    len: u64,
    mode: u64,
    done: i64,
}

/// What happened to memory that is served.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Somebody waits for the page that has this address.
    Fault(u64),
    /// The pages of these addresses are given back; they read as zeroes from now on.
    Remove(Range<u64>),
    /// Something that guest memory never does.
    Other(u8),
}

/// A userfaultfd: faults on missing pages, of the address space that it was made in.
#[derive(Debug)]
pub(crate) struct Userfault(OwnedFd);

impl Userfault {
    /// One for this process, for faults of the kernel as well, for KVM takes them.
    ///
    /// # Errors
    /// What the host said: EPERM where this user may not.
    pub(crate) fn create() -> io::Result<Self> {
        let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
        // SAFETY: takes flags alone, and makes a descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
        let uffd = match adopt(fd) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => by_device(flags).map_err(|_| error),
            other => other,
        }?;
        let mut api = Api { number: UFFD_API, features: UFFD_FEATURE_EVENT_REMOVE, ioctls: 0 };
        // SAFETY: UFFDIO_API reads and writes a `struct uffdio_api`, which this is.
        unsafe { ioctl(&uffd, UFFDIO_API, &raw mut api) }?;
        Ok(Self(uffd))
    }

    /// The one that somebody sent, of another process; it is made non-blocking.
    ///
    /// # Errors
    /// It is something else.
    pub(crate) fn received(file: File) -> io::Result<Self> {
        let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        if link.as_os_str() != LINK {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor is no userfaultfd"));
        }
        let uffd = Self(file.into());
        uffd.unblock()?;
        Ok(uffd)
    }

    /// Has those who read it not wait; the other side, which has the same file description, can undo that.
    fn unblock(&self) -> io::Result<()> {
        // SAFETY: sets a flag of a descriptor that is open.
        let result = unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Has faults of `region` on missing pages told here, and those who touch them wait.
    ///
    /// # Errors
    /// What the host said.
    pub(crate) fn register(&self, region: &GuestRegionMmap<Option<AtomicBitmap>>) -> io::Result<()> {
        let start = region.as_ptr() as u64;
        let mut register =
            Register { start, len: region.len(), mode: UFFDIO_REGISTER_MODE_MISSING, ioctls: 0 };
        // SAFETY: UFFDIO_REGISTER reads and writes a `struct uffdio_register`, which this is. The range is a mapping of
        // guest memory; what is in its pages then is for who serves them to say, as it is for the guest.
        unsafe { ioctl(&self.0, UFFDIO_REGISTER, &raw mut register) }
    }

    /// Puts `bytes` to the address `to`, both in whole pages, where pages are missing, and wakes who waits for them. Says
    /// how many bytes of the front were put.
    ///
    /// # Errors
    /// EEXIST if there is a first page already, EAGAIN while there is a [`Event::Remove`] to read, ESRCH when the process is gone; and
    /// what else the host said.
    pub(crate) fn copy(&self, to: u64, bytes: &[u8]) -> io::Result<u64> {
        let len = bytes.len() as u64;
        let mut copy = Copy { dst: to, src: bytes.as_ptr() as u64, len, mode: 0, done: 0 };
        // SAFETY: UFFDIO_COPY reads and writes a `struct uffdio_copy`, which this is. It reads `bytes`, and adds pages to
        // memory that was registered, where there were none.
        let result = unsafe { ioctl(&self.0, UFFDIO_COPY, &raw mut copy) };
        filled(result, len, copy.done)
    }

    /// Puts zeroes to `len` bytes from `to` on, as [`copy`](Self::copy) does. Not for pages of hugetlbfs.
    ///
    /// # Errors
    /// As [`copy`](Self::copy).
    pub(crate) fn zero(&self, to: u64, len: u64) -> io::Result<u64> {
        let mut zero = ZeroPage { start: to, len, mode: 0, done: 0 };
        // SAFETY: UFFDIO_ZEROPAGE reads and writes a `struct uffdio_zeropage`, which this is. It adds pages to memory that
        // was registered, where there were none.
        let result = unsafe { ioctl(&self.0, UFFDIO_ZEROPAGE, &raw mut zero) };
        filled(result, len, zero.done)
    }

    /// Has those who wait for a page in the `len` bytes from `start` on look again.
    ///
    /// # Errors
    /// What the host said.
    pub(crate) fn wake(&self, start: u64, len: u64) -> io::Result<()> {
        let mut range = [start, len];
        // SAFETY: UFFDIO_WAKE reads a `struct uffdio_range`, two numbers of 64 bits.
        unsafe { ioctl(&self.0, UFFDIO_WAKE, &raw mut range) }
    }

    /// What happened since, as far as it is read at once. None: nothing did.
    ///
    /// # Errors
    /// What the host said.
    pub(crate) fn events(&self) -> io::Result<Vec<Event>> {
        let mut buffer = [0; MESSAGES * MESSAGE_SIZE];
        match self.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(count) => {
                let messages = buffer.get(..count).unwrap_or_default().chunks_exact(MESSAGE_SIZE);
                Ok(messages.map(Event::of).collect())
            }
        }
    }

    /// Reads without waiting, whatever the other side makes of the descriptor.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: the one iovec names `buffer`, which is valid for writes of its length.
        let mut read =
            unsafe { libc::preadv2(self.0.as_raw_fd(), &raw const iovec, 1, -1, libc::RWF_NOWAIT) };
        // Kernels before 6.10 cannot.
        if read < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EOPNOTSUPP) {
            self.unblock()?;
            // SAFETY: `buffer` is valid for writes of its length.
            read = unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
        }
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Userfault {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Event {
    /// What a `struct uffd_msg` says. The descriptor that one of them brings is closed.
    fn of(message: &[u8]) -> Self {
        let number = |at: usize| {
            message.get(at..).and_then(<[u8]>::first_chunk).copied().map_or(0, u64::from_ne_bytes)
        };
        match message.first().copied().unwrap_or_default() {
            UFFD_EVENT_PAGEFAULT => Self::Fault(number(16)),
            UFFD_EVENT_REMOVE => Self::Remove(number(8)..number(16)),
            UFFD_EVENT_FORK => {
                let fd =
                    message.get(8..).and_then(<[u8]>::first_chunk).copied().map_or(-1, i32::from_ne_bytes);
                drop(adopt(fd.into()));
                Self::Other(UFFD_EVENT_FORK)
            }
            other => Self::Other(other),
        }
    }
}

/// A userfaultfd by the device file, whose rights say who may have one; since Linux 6.1.
fn by_device(flags: libc::c_int) -> io::Result<OwnedFd> {
    let device = File::options().read(true).write(true).open("/dev/userfaultfd")?;
    // SAFETY: the request takes flags, and makes a descriptor.
    adopt(unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, flags) }.into())
}

/// The descriptor that a system call has just made, or its error.
fn adopt(fd: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor, and nobody else has it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// # Safety
/// `argument` is what `request` reads and writes.
unsafe fn ioctl<T>(fd: &OwnedFd, request: libc::c_ulong, argument: *mut T) -> io::Result<()> {
    // SAFETY: as the caller says.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request, argument) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How many bytes of `len` a request put that says it put `done`: one that did not put all of them has failed.
fn filled(result: io::Result<()>, len: u64, done: i64) -> io::Result<u64> {
    match result {
        Ok(()) => Ok(len),
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) && done > 0 => Ok(done.cast_unsigned()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{HugePages, create};
    use devices::GuestMemory;
    use skip::Capability;
    use std::time::{Duration, Instant};
    use vm_memory::{Bytes as _, GuestAddress, GuestMemoryBackend as _};

    impl Userfault {
        /// A userfaultfd; if this user may not have one, the running test is skipped.
        pub(crate) fn create_or_skip() -> Option<Self> {
            match Self::create() {
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    skip::skip(Capability::Userfaultfd, "this user may not have a userfaultfd");
                    None
                }
                other => Some(other.unwrap()),
            }
        }
    }

    /// 4 MiB of memory whose pages are missing, and where they are. `None` where this user may not.
    fn served() -> Option<(GuestMemory, Userfault, u64)> {
        let memory = create(4, HugePages::None, false).unwrap();
        let uffd = Userfault::create_or_skip()?;
        let region = memory.iter().next().unwrap();
        uffd.register(region).unwrap();
        let start = region.as_ptr() as u64;
        Some((memory, uffd, start))
    }

    fn wait(uffd: &Userfault) -> Vec<Event> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let events = uffd.events().unwrap();
            if !events.is_empty() || Instant::now() > end {
                return events;
            }
        }
    }

    #[test]
    fn who_touches_a_missing_page_waits_until_it_is_given() {
        let Some((memory, uffd, start)) = served() else { return };
        let reader = std::thread::spawn({
            let memory = memory.clone();
            move || [0x3008, 0x5008].map(|address| memory.read_obj::<u64>(GuestAddress(address)).unwrap())
        });
        assert_eq!(wait(&uffd), [Event::Fault(start + 0x3000)]);
        assert_eq!(uffd.copy(start + 0x3000, &[0x11; 0x1000]).unwrap(), 0x1000);
        assert_eq!(wait(&uffd), [Event::Fault(start + 0x5000)]);
        assert_eq!(uffd.zero(start + 0x4000, 0x3000).unwrap(), 0x3000);
        assert_eq!(reader.join().unwrap(), [0x1111_1111_1111_1111, 0]);
        assert_eq!(uffd.events().unwrap(), []);
    }

    #[test]
    fn pages_that_are_there_stay_as_they_are() {
        let Some((memory, uffd, start)) = served() else { return };
        uffd.copy(start + 0x2000, &[1; 0x1000]).unwrap();
        assert_eq!(uffd.copy(start, &[2; 0x4000]).unwrap(), 0x2000, "up to the page that is there");
        let error = uffd.zero(start + 0x2000, 0x1000).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EEXIST));
        let bytes = [0, 0x1000, 0x2000].map(|address| memory.read_obj::<u8>(GuestAddress(address)).unwrap());
        assert_eq!(bytes, [2, 2, 1]);
    }

    #[test]
    fn memory_that_is_given_back_is_told_and_missing_again() {
        let Some((memory, uffd, start)) = served() else { return };
        uffd.copy(start, &[1; 0x2000]).unwrap();
        let thread = std::thread::spawn({
            let memory = memory.clone();
            move || {
                let address = memory.get_host_address(GuestAddress(0)).unwrap();
                // SAFETY: the page is of guest memory, which may lose its content.
                assert_eq!(unsafe { libc::madvise(address.cast(), 0x1000, libc::MADV_DONTNEED) }, 0);
                memory.read_obj::<u8>(GuestAddress(0)).unwrap()
            }
        });
        assert_eq!(wait(&uffd), [Event::Remove(start..start + 0x1000)]);
        assert_eq!(wait(&uffd), [Event::Fault(start)]);
        uffd.zero(start, 0x1000).unwrap();
        assert_eq!(thread.join().unwrap(), 0);
    }

    #[test]
    fn another_descriptor_is_none() {
        let error = Userfault::received(File::open("/dev/null").unwrap()).unwrap_err().to_string();
        assert_eq!(error, "the descriptor is no userfaultfd");
    }

    #[test]
    fn reading_does_not_wait_when_the_other_side_would_have_it() {
        let Some((_memory, uffd, _)) = served() else { return };
        // SAFETY: sets the flags of an open descriptor.
        assert_eq!(unsafe { libc::fcntl(uffd.as_raw_fd(), libc::F_SETFL, 0) }, 0);
        let mut buffer = [0; MESSAGE_SIZE];
        let error = uffd.read(&mut buffer);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
