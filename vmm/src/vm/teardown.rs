//! Ends a process that has a VM without waiting for KVM to take the VM apart.
//!
//! Destroying a VM with an in-kernel irqchip waits for several grace periods of the kernel: 15 to 20 ms that a user waits
//! for the process to end, and the last of its files to be closed is what starts it. So the last reference is given to an
//! io_uring, whose files the kernel puts away in a worker of its own after the process has gone. Nothing stays behind:
//! no process, no lock, and the memory has been freed.

use std::os::fd::AsRawFd;

use io_uring::IoUring;

use crate::thread;

/// Lets the kernel close `file` after this process has ended. Where it cannot, the process closes it as usual: also under a
/// filter of system calls, which may end a process that makes a ring.
///
/// Call it as the last thing before the process ends: the ring stays open until then.
pub(super) fn close_after_exit(file: &impl AsRawFd) {
    if thread::are_confined() {
        return;
    }
    let registered = IoUring::new(1).and_then(|ring| {
        ring.submitter().register_files(&[file.as_raw_fd()])?;
        // The ring's descriptor must live as long as the process.
        std::mem::forget(ring);
        Ok(())
    });
    if let Err(error) = registered {
        log::debug!("the end of the process waits for KVM: no io_uring: {error}");
    }
}
