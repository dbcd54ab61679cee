//! `--rootfs` and `--disk`.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::fields;

const DISK_FIELDS: &str = "path=FILE, readonly, engine=sync|io_uring and id=NAME";

/// `--rootfs FILE[,readonly]`
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RootfsArg {
    /// The image.
    pub(crate) path: PathBuf,
    /// The guest can't write to it.
    pub(crate) readonly: bool,
}

/// `--disk path=FILE[,readonly][,engine=…][,id=…]`
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct DiskArg {
    /// The image.
    pub(crate) path: PathBuf,
    /// The guest can't write to it.
    pub(crate) readonly: bool,
    /// How the host reads and writes it; rvmm chooses when it is not given.
    pub(crate) engine: Option<Engine>,
    /// Name of the disk; rvmm numbers it when it is not given.
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

impl RootfsArg {
    pub(super) fn parse(value: &OsStr) -> Result<Self, String> {
        let mut fields = fields::split(value).into_iter();
        let path = fields.next().unwrap_or_default();
        if path.is_empty() {
            return Err("a file is missing: write FILE or FILE,readonly".to_owned());
        }
        let mut readonly = false;
        for field in fields {
            if field != "readonly" {
                return Err(format!(
                    "unknown field '{}'; after the file only readonly is known, and a comma within its name is \
                     written twice",
                    field.to_string_lossy()
                ));
            }
            readonly = true;
        }
        Ok(Self { path: path.into(), readonly })
    }
}

impl DiskArg {
    pub(super) fn parse(value: &OsStr) -> Result<Self, String> {
        let mut disk = Self::default();
        let mut seen = Vec::new();
        for field in fields::split(value) {
            let (key, value) = fields::key_value(&field);
            let key = key.to_string_lossy().into_owned();
            match (key.as_str(), value) {
                ("path", Some(value)) => disk.path = value.into(),
                ("readonly", None) => disk.readonly = true,
                ("engine", Some(value)) => disk.engine = Some(Engine::parse(value)?),
                ("id", Some(value)) => {
                    let id = value.to_str().ok_or("id is not valid UTF-8")?;
                    disk.id = Some(id.to_owned());
                }
                ("path" | "engine" | "id", None) => return Err(format!("{key} wants a value: {key}=…")),
                ("readonly", Some(_)) => return Err("readonly takes no value".to_owned()),
                _ => return Err(format!("unknown field '{key}'; known are {DISK_FIELDS}")),
            }
            if seen.contains(&key) {
                return Err(format!("{key} is given twice"));
            }
            seen.push(key);
        }
        if disk.path.as_os_str().is_empty() {
            return Err(format!("path=FILE is missing; known fields are {DISK_FIELDS}"));
        }
        Ok(disk)
    }
}

impl Engine {
    fn parse(value: &OsStr) -> Result<Self, String> {
        match value.to_str() {
            Some("sync") => Ok(Self::Sync),
            Some("io_uring") => Ok(Self::IoUring),
            _ => Err(format!("unknown engine '{}'; known are sync and io_uring", value.to_string_lossy())),
        }
    }
}
