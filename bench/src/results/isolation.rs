//! What an instance isolates, as a program inside and a look from outside found it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was found.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Isolation {
    /// The kernel's release that the program sees.
    pub(crate) kernel: String,
    /// Whether that is the host's kernel.
    pub(crate) host_kernel: Answer,
    /// Names of the distinct system calls that the host's kernel served to the instance's processes; none where they could not be traced.
    pub(crate) host_syscalls: Option<Vec<String>>,
    /// Mode of seccomp of the program: 0 off, 1 strict, 2 a filter.
    pub(crate) seccomp: Option<u32>,
    /// Whether no program that it starts can gain rights.
    pub(crate) no_new_privileges: Option<bool>,
    /// How many of the instance's processes on the host have a filter in each of their threads, and how many there are.
    pub(crate) host_processes_filtered: Option<[usize; 2]>,
    /// User ids, on the host, of the instance's processes there.
    pub(crate) host_users: Vec<u32>,
    /// The program's effective capabilities, by name.
    pub(crate) capabilities: Vec<String>,
    /// The program's user-id map, as `/proc/self/uid_map` has it.
    pub(crate) uid_map: String,
    /// Its group-id map, as `/proc/self/gid_map` has it.
    pub(crate) gid_map: String,
    /// Facts of the host that the program was looking for.
    pub(crate) leaks: Vec<Leak>,
    /// Device nodes that the program sees, outside of terminals.
    pub(crate) devices: Vec<String>,
    /// Whether the program can raise a kernel panic.
    pub(crate) panic: Answer,
    /// Whether it can load a kernel module.
    pub(crate) load_module: Answer,
    /// Whether it can set the clock.
    pub(crate) set_clock: Answer,
}

/// A yes or no, and how it is known.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    /// Yes or no.
    pub(crate) yes: bool,
    /// How it is known.
    pub(crate) by: Means,
    /// What was seen, in a few words.
    pub(crate) seen: String,
}

/// How something is known.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Means {
    /// It was tried, in the instance's own kernel.
    Tried,
    /// It follows from the program's rights: trying could hurt the host.
    Rights,
    /// It was compared with the host.
    Compared,
}

/// A fact of the host.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Leak {
    /// Which.
    pub(crate) fact: String,
    /// Whether the program inside can tell it.
    pub(crate) leaks: bool,
    /// What it saw, in a few words; of ids, addresses, and what else identifies a host only its shape.
    pub(crate) seen: String,
}
