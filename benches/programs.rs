//! Where the programs are that take part.

use std::env;
use std::path::PathBuf;

/// The program `name` that a shell would find.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Firecracker, where it is at hand: the program that `FIRECRACKER` names, or that of PATH.
pub(crate) fn firecracker() -> Option<PathBuf> {
    env::var_os("FIRECRACKER").map(PathBuf::from).or_else(|| on_path("firecracker"))
}

/// The rvmm that is measured: the one that was built with this program, unless `RVMM_PROGRAM` names another.
pub(crate) fn rvmm() -> PathBuf {
    env::var_os("RVMM_PROGRAM").map_or_else(|| env!("CARGO_BIN_EXE_rvmm").into(), PathBuf::from)
}
