//! Snapshots of bare guests: what goes on, where, and as what.

mod bad_input;
mod clone;
mod disks;
mod goes_on;
mod model;
mod restore;
mod two_files;
pub(crate) mod uffd;
mod verbs;
mod working_set;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::api::ApiSocket;
use crate::support::{Running, Rvmm};

/// A guest that runs, and can be asked over its socket.
pub(crate) struct Asked {
    pub(crate) running: Running,
    pub(crate) socket: ApiSocket,
}

impl Asked {
    /// The bare guest `name`, once it has printed `text`.
    #[track_caller]
    pub(crate) fn guest(name: &str, text: &str) -> Self {
        Self::launch(Rvmm::guest(name), text)
    }

    /// What `rvmm` runs, once it has printed `text`.
    #[track_caller]
    pub(crate) fn launch(rvmm: Rvmm, text: &str) -> Self {
        let socket = ApiSocket::new();
        let mut running = rvmm.arg("--api-sock").arg(socket.path()).launch();
        running.wait_for(text);
        Self { running, socket }
    }

    pub(crate) fn pause(&self) {
        self.socket.patch("/vm", &json!({"state": "Paused"})).assert_done();
    }

    /// Writes a snapshot to a folder of its own, as `more` says.
    #[track_caller]
    pub(crate) fn snapshot(&self, more: &Value) -> Snapshot {
        let snapshot = Snapshot::default();
        let mut request = json!({"snapshot_path": snapshot.path()});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.socket.put("/snapshot/create", &request).assert_done();
        snapshot
    }
}

/// The folder of a snapshot, gone when the test ends.
pub(crate) struct Snapshot(TempDir);

impl Default for Snapshot {
    fn default() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
}

impl Snapshot {
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("snapshot")
    }

    /// `rvmm restore` of it.
    pub(crate) fn restore(&self) -> Rvmm {
        restore(&self.path())
    }
}

/// `rvmm restore` of the folder `path`.
pub(crate) fn restore(path: &Path) -> Rvmm {
    Rvmm::new().arg("restore").arg(path)
}

/// The numbers that count-forever printed, whole lines only.
#[track_caller]
pub(crate) fn counted(output: &str) -> Vec<u32> {
    output
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| hex(line.trim_end()))
        .collect()
}

#[track_caller]
fn hex(line: &str) -> u32 {
    u32::from_str_radix(line, 16).unwrap_or_else(|_| panic!("not a number: {line:?}"))
}
