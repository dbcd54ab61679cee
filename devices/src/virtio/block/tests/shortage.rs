//! A host that takes no jobs of io_uring for a while, because it is short of memory or of room for completions.

use std::thread;
use std::time::Duration;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use super::super::device::COMPLETION_TOKEN;
use super::*;
use crate::virtio::device::{DeviceEvent, VirtioDevice as _};

/// Has `work` done by a thread for which io_uring_enter(2) fails with `errno`.
fn short_of(errno: i32, work: impl FnOnce() + Send) {
    let rules = [(libc::SYS_io_uring_enter, Vec::new())].into_iter().collect();
    let refuse = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, TargetArch::x86_64).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || {
            seccompiler::apply_filter(&program).unwrap();
            work();
        });
    });
}

/// A disk whose writes go to the ring: its driver knows no flush, so that each is durable when it completes.
fn disk() -> Disk {
    Disk::with(IoEngine::Async, 0, |_| {})
}

/// Makes writes to three sectors available; the addresses of their statuses.
fn add_writes(disk: &mut Disk) -> Vec<u64> {
    let write = |number: u64| {
        let data = disk.harness.place(&sector(0xa0 + number));
        let (buffers, status) =
            disk.buffers(&header(VIRTIO_BLK_T_OUT, number), &[Buffer::readable(data, 512)]);
        disk.harness.add_chain(0, &buffers);
        status
    };
    (0..3).map(write).collect()
}

fn assert_written(disk: &Disk, statuses: &[u64]) {
    assert!(statuses.iter().all(|status| disk.harness.fetch(*status, 1)[0] == OK));
    assert_eq!(disk.on_host(0, 4), [sector(0xa0), sector(0xa1), sector(0xa2), sector(3)].concat());
    assert_eq!((disk.metrics.writes.get(), disk.metrics.host_errors.get()), (3, 0));
    assert!(!disk.harness.needs_reset(), "the driver keeps its disk");
}

#[test]
fn requests_are_done_once_the_host_takes_them_again() {
    for errno in [libc::EAGAIN, libc::EBUSY] {
        let mut disk = disk();
        let statuses = add_writes(&mut disk);
        let core = disk.harness.core();
        short_of(errno, || {
            core.process(DeviceEvent::Queue(0));
            // The event loop tries again, and finds the host as it was.
            core.process(DeviceEvent::Backend(COMPLETION_TOKEN));
        });
        assert_eq!(disk.on_host(0, 1), sector(0), "the host took nothing");
        // Nobody kicks the device again: it has woken its event loop itself.
        disk.harness.wait_used(0, 3);
        assert_written(&disk, &statuses);
        let wakeups = (0..20).filter(|_| disk.harness.run_once(Duration::ZERO)).count();
        assert!(wakeups <= 1, "{wakeups} wake-ups for nothing");
    }
}

#[test]
fn requests_are_done_before_a_pause_even_if_the_host_takes_none() {
    let mut disk = disk();
    let statuses = add_writes(&mut disk);
    let core = disk.harness.core();
    short_of(libc::EAGAIN, || {
        core.process(DeviceEvent::Queue(0));
        disk.device.lock().unwrap().drain().unwrap();
    });
    assert_written(&disk, &statuses);
    assert_eq!(disk.read(5, 512), (OK, sector(5)));
}
