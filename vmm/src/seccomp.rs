//! Filters of system calls, which the user may lay on rvmm's threads (seccomp(2)).
//!
//! A policy is a JSON file in the form of the `seccompiler` crate, with a filter for each kind of thread: `vmm` for the main
//! one, `api`, and `vcpu`. A thread that makes a call which its filter does not let pass ends, as the policy says, with
//! the process.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use seccompiler::{BpfProgram, TargetArch};

use crate::text_file;

/// What a policy's file cannot be.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// It cannot be read.
    #[error("cannot read the filter of system calls {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// It is no policy.
    #[error(
        "{} is no filter of system calls: {message}; it has to be JSON as seccompiler takes it, not its compiled form",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A kind of thread has no filter.
    #[error("{} has no filter for the threads \"{thread}\"; it needs \"vmm\", \"api\" and \"vcpu\"", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Which kind.
        thread: &'static str,
    },
    /// A filter for threads that there are not.
    #[error("{} has a filter for \"{thread}\"; the threads are \"vmm\", \"api\" and \"vcpu\"", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// What it names.
        thread: String,
    },
}

/// What a thread may ask of the host.
#[derive(Clone, Debug)]
pub struct Filter(Arc<BpfProgram>);

impl Filter {
    /// Lays the filter on this thread, and on those that it starts.
    ///
    /// # Errors
    /// What the host said.
    pub fn apply(&self) -> io::Result<()> {
        seccompiler::apply_filter(&self.0).map_err(io::Error::other)
    }

    /// Applies the filter, if there is one, to a thread that has just started. If that fails, the process ends: what should
    /// be confined does not run unconfined.
    pub(crate) fn confine(filter: Option<&Self>) {
        if let Some(Err(error)) = filter.map(Self::apply) {
            log::error!("a thread's system calls cannot be filtered: {error}");
            std::process::abort();
        }
    }
}

/// A filter for each kind of thread.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The main thread, and those that write, wait or read ahead for it.
    pub vmm: Filter,
    /// The REST socket.
    pub api: Filter,
    /// vCPUs.
    pub vcpu: Filter,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// [`SeccompError`].
    pub fn read(path: &Path) -> Result<Self, SeccompError> {
        let malformed =
            |error: &dyn Error| SeccompError::Malformed { path: path.to_owned(), message: error.to_string() };
        let text = text_file::read(path).map_err(|source| match source.kind() {
            // Not text, but a compiled policy perhaps.
            io::ErrorKind::InvalidData => malformed(&source),
            _ => SeccompError::Read { path: path.to_owned(), source },
        })?;
        let mut filters = seccompiler::compile_from_json(text.as_bytes(), TargetArch::x86_64)
            .map_err(|error| malformed(&error))?;
        let mut take = |thread| take(&mut filters, path, thread);
        let policy = Self { vmm: take("vmm")?, api: take("api")?, vcpu: take("vcpu")? };
        match filters.into_keys().next() {
            None => Ok(policy),
            Some(thread) => Err(SeccompError::Unknown { path: path.to_owned(), thread }),
        }
    }
}

fn take(
    filters: &mut HashMap<String, BpfProgram>,
    path: &Path,
    thread: &'static str,
) -> Result<Filter, SeccompError> {
    let filter = filters.remove(thread);
    filter
        .map(|filter| Filter(Arc::new(filter)))
        .ok_or_else(|| SeccompError::Missing { path: path.to_owned(), thread })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Policy, SeccompError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("policy.json");
        std::fs::write(&path, text).unwrap();
        Policy::read(&path)
    }

    const FILTER: &str =
        r#"{"mismatch_action": "allow", "match_action": "kill_process", "filter": [{"syscall": "ptrace"}]}"#;

    #[test]
    fn a_policy_has_a_filter_for_each_kind_of_thread_and_no_more() {
        read(&format!(r#"{{"vmm": {FILTER}, "api": {FILTER}, "vcpu": {FILTER}}}"#)).unwrap();
        let error = read(&format!(r#"{{"vmm": {FILTER}, "vcpu": {FILTER}}}"#)).unwrap_err().to_string();
        assert!(error.contains("\"api\""), "{error}");
        let error =
            read(&format!(r#"{{"vmm": {FILTER}, "api": {FILTER}, "vcpu": {FILTER}, "net": {FILTER}}}"#));
        assert!(error.unwrap_err().to_string().contains("\"net\""));
    }

    #[test]
    fn what_is_no_policy_is_named() {
        for text in ["", "{", "[]", r#"{"vmm": 1}"#, &FILTER.replace("ptrace", "no_such_call"), "\u{0}\u{1}"]
        {
            let error = read(text).unwrap_err();
            assert!(
                matches!(error, SeccompError::Malformed { .. } | SeccompError::Missing { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("policy.json"), "{error}");
        }
        assert!(
            Policy::read(Path::new("/nowhere/at/all")).unwrap_err().to_string().contains("/nowhere/at/all")
        );
        let long = read(&" ".repeat(text_file::MAX_SIZE as usize + 1)).unwrap_err();
        assert!(matches!(long, SeccompError::Read { .. }));
    }
}
