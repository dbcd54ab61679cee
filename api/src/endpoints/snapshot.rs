//! `/snapshot/create` and `/snapshot/load`: a VM to files, and back.

use std::path::Path;

use vmm::config::{CreateSnapshot, LoadSnapshot};
use vmm::controller::Request;

use crate::errors::Fault;
use crate::routes::{self, Call};

/// The VM is written to files. The answer comes when they are on the disk, which no time-out of the server cuts off; what
/// was begun is finished when nobody waits for it any more.
pub(crate) fn create(body: &[u8]) -> Result<Call, Fault> {
    let create: CreateSnapshot = routes::json(body)?;
    let CreateSnapshot { snapshot_path, mem_file_path, base, .. } = &create;
    not_empty("snapshot_path", Some(snapshot_path))?;
    not_empty("mem_file_path", mem_file_path.as_deref())?;
    not_empty("base", base.as_deref())?;
    if mem_file_path.as_ref() == Some(snapshot_path) {
        return Err(wrong("mem_file_path", "is the same as snapshot_path"));
    }
    Ok(Call::tell(Request::CreateSnapshot(Box::new(create))))
}

/// The VM is made from files. Whether a memory file has to be named depends on whether the snapshot is a folder, which the
/// VM finds out.
pub(crate) fn load(body: &[u8]) -> Result<Call, Fault> {
    let load: LoadSnapshot = routes::json(body)?;
    not_empty("snapshot_path", Some(&load.snapshot_path))?;
    not_empty("mem_file_path", load.mem_file_path.as_deref())?;
    let backend = load.mem_backend.as_ref().map(|backend| backend.backend_path.as_path());
    not_empty("mem_backend.backend_path", backend)?;
    if load.mem_file_path.is_some() && backend.is_some() {
        return Err(wrong("mem_file_path and mem_backend", "exclude each other: give one of them"));
    }
    for drive in &load.drive_overrides {
        not_empty("drive_overrides.path_on_host", drive.path_on_host.as_deref())?;
    }
    let socket = load.vsock_override.as_ref().and_then(|vsock| vsock.uds_path.as_deref());
    not_empty("vsock_override.uds_path", socket)?;
    Ok(Call::tell(Request::LoadSnapshot(Box::new(load))))
}

fn not_empty(field: &'static str, path: Option<&Path>) -> Result<(), Fault> {
    match path {
        Some(path) if path.as_os_str().is_empty() => Err(wrong(field, "is empty")),
        _ => Ok(()),
    }
}

fn wrong(fields: &'static str, what: &'static str) -> Fault {
    Fault::Fields { fields, what }
}
