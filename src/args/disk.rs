//! `--rootfs` and `--disk`.

use std::ffi::OsStr;
use std::num::NonZeroU64;
use std::path::PathBuf;

use vmm::config::IoEngine;

use super::{fields, size};

const FIELDS: &str = "readonly, engine=sync|io_uring, cache=writeback|unsafe, direct, bandwidth=SIZE, ops=N";

/// `--disk path=FILE[,…]` and `--rootfs FILE[,…]`
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct DiskArg {
    /// The image.
    pub(crate) path: PathBuf,
    /// The guest can't write to it.
    pub(crate) readonly: bool,
    /// How the host reads and writes it; rvmm chooses when it is not given.
    pub(crate) engine: Option<Engine>,
    /// What a flush of the guest does.
    pub(crate) cache: Cache,
    /// Data does not go through the host's page cache.
    pub(crate) direct: bool,
    /// Most bytes of data in a second.
    pub(crate) bandwidth: Option<NonZeroU64>,
    /// Most requests in a second.
    pub(crate) ops: Option<NonZeroU64>,
    /// Name of the disk; rvmm numbers it when it is not given. A root file system has none to choose.
    pub(crate) id: Option<String>,
}

/// `engine=` of a disk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Engine {
    /// One blocking system call for each request.
    Sync,
    /// Requests are queued on an io_uring.
    IoUring,
}

impl From<Engine> for IoEngine {
    fn from(engine: Engine) -> Self {
        match engine {
            Engine::Sync => Self::Sync,
            Engine::IoUring => Self::Async,
        }
    }
}

/// `cache=` of a disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Cache {
    /// What the guest flushes is on the host's disk.
    #[default]
    Writeback,
    /// Flushes are not offered to the guest.
    Unsafe,
}

impl DiskArg {
    /// `FILE[,…]`
    pub(super) fn parse_rootfs(value: &OsStr) -> Result<Self, String> {
        let mut all = fields::split(value).into_iter();
        let path = all.next().unwrap_or_default();
        if path.is_empty() {
            return Err(format!("a file is missing: write FILE or FILE,…, where … is of {FIELDS}"));
        }
        let mut disk = Self { path: path.into(), ..Self::default() };
        disk.set_all(all, |_, key, _| {
            Err(format!(
                "unknown field '{key}'; after the file {FIELDS} are known, and a comma within its name is written twice"
            ))
        })?;
        Ok(disk)
    }

    /// `path=FILE[,…]`
    pub(super) fn parse(value: &OsStr) -> Result<Self, String> {
        let mut disk = Self::default();
        disk.set_all(fields::split(value), |disk, key, value| {
            match (key, value) {
                ("path", Some(value)) => disk.path = value.into(),
                ("id", Some(value)) => {
                    let id = value.to_str().ok_or("id is not valid UTF-8")?;
                    disk.id = Some(id.to_owned());
                }
                ("path" | "id", None) => return Err(wants_a_value(key)),
                _ => return Err(format!("unknown field '{key}'; known are path=FILE, id=NAME, {FIELDS}")),
            }
            Ok(())
        })?;
        if disk.path.as_os_str().is_empty() {
            return Err(format!("path=FILE is missing; known fields are path=FILE, id=NAME, {FIELDS}"));
        }
        Ok(disk)
    }

    /// Sets each field once; `other` sets those that not every kind of disk has.
    fn set_all(
        &mut self,
        all: impl IntoIterator<Item = std::ffi::OsString>,
        other: impl Fn(&mut Self, &str, Option<&OsStr>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut seen = Vec::new();
        for field in all {
            let (key, value) = fields::key_value(&field);
            let key = key.to_string_lossy().into_owned();
            match (key.as_str(), value) {
                ("readonly", None) => self.readonly = true,
                ("direct", None) => self.direct = true,
                ("engine", Some(value)) => self.engine = Some(Engine::parse(value)?),
                ("cache", Some(value)) => self.cache = Cache::parse(value)?,
                ("bandwidth", Some(value)) => {
                    self.bandwidth = Some(per_second(value, "bandwidth", size::parse)?);
                }
                ("ops", Some(value)) => {
                    let number = |text: &str| text.parse().map_err(|_| "expected a whole number".to_owned());
                    self.ops = Some(per_second(value, "ops", number)?);
                }
                ("engine" | "cache" | "bandwidth" | "ops", None) => return Err(wants_a_value(&key)),
                ("readonly" | "direct", Some(_)) => return Err(format!("{key} takes no value")),
                (key, value) => other(self, key, value)?,
            }
            if seen.contains(&key) {
                return Err(format!("{key} is given twice"));
            }
            seen.push(key);
        }
        Ok(())
    }
}

fn wants_a_value(key: &str) -> String {
    format!("{key} wants a value: {key}=…")
}

/// A limit per second; none at all is said by leaving the field out.
fn per_second(
    value: &OsStr,
    key: &str,
    parse: impl Fn(&str) -> Result<u64, String>,
) -> Result<NonZeroU64, String> {
    let wrong = |why: &str| format!("{key}={}: {why}", value.to_string_lossy());
    let number = parse(&value.to_string_lossy()).map_err(|why| wrong(&why))?;
    NonZeroU64::new(number).ok_or_else(|| wrong("nothing would pass; leave it out for no limit"))
}

impl Engine {
    pub(super) fn parse(value: &OsStr) -> Result<Self, String> {
        match value.to_str() {
            Some("sync") => Ok(Self::Sync),
            Some("io_uring") => Ok(Self::IoUring),
            _ => Err(format!("unknown engine '{}'; known are sync and io_uring", value.to_string_lossy())),
        }
    }
}

impl Cache {
    fn parse(value: &OsStr) -> Result<Self, String> {
        match value.to_str() {
            Some("writeback") => Ok(Self::Writeback),
            Some("unsafe") => Ok(Self::Unsafe),
            _ => Err(format!("unknown cache '{}'; known are writeback and unsafe", value.to_string_lossy())),
        }
    }
}
