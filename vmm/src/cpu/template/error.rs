//! Why a template cannot be used.

use std::io;
use std::path::PathBuf;

use super::{MAX_MODIFIERS, builtins};
use crate::json::JsonError;

/// A template that cannot be kept to.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TemplateError {
    /// Longer than KVM can take.
    #[error("the CPU template has {count} {what}: {MAX_MODIFIERS} is the most")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// A CPUID leaf that KVM does not know.
    #[error(
        "the CPU template changes CPUID leaf {leaf:#x}, subleaf {subleaf:#x}, which KVM on this host does not have: \
         take it out"
    )]
    NoLeaf {
        /// EAX.
        leaf: u32,
        /// ECX.
        subleaf: u32,
    },
    /// A register that KVM does not know.
    #[error("the CPU template changes MSR {index:#x}, which KVM on this host does not have: take it out")]
    NoMsr {
        /// Its number.
        index: u32,
    },
    /// A value that KVM does not take.
    #[error(
        "the CPU template sets MSR {index:#x} to {value:#x}, which KVM refuses: leave more of its bits (x)"
    )]
    MsrRefused {
        /// Its number.
        index: u32,
        /// What it should have had.
        value: u64,
    },
    /// A capability that KVM does not have.
    #[error(
        "the CPU template needs KVM capability {number}, which KVM on this host does not have: take it out of \
         kvm_capabilities, or use another host"
    )]
    NoCapability {
        /// Its number in `linux/kvm.h`.
        number: u32,
    },
}

/// A template that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TemplateFileError {
    /// Neither a built-in template nor a file.
    #[error("CPU template \"{name}\": no file, and no template of rvmm's own; those are: {}", names())]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The file cannot be read.
    #[error("cannot read CPU template {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the host said.
        #[source]
        source: io::Error,
    },
    /// The file has no template.
    #[error("CPU template {path:?}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        #[source]
        source: JsonError,
    },
}

fn names() -> String {
    builtins().iter().map(|builtin| builtin.name).collect::<Vec<_>>().join(", ")
}
