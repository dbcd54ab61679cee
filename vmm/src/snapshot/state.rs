//! What the `state` file says of a VM, beside its memory.
//!
//! The body is a [`StateV2`] as postcard encodes it: integers in seven bits a byte, lists with their length in front, no
//! names. What a device, a vCPU or KVM keeps is a [`SectionV2`], which has bytes of its own, so that reading the folder
//! needs no knowledge of devices.

pub(super) mod v1;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use devices::random;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::bounded;
use super::disk::{self, DiskV2};
use super::pages::{PAGE_SIZE, Pages};
use super::seal::{self, Seal};
use crate::config::VmConfig;
use crate::memory;

/// Ranges of pages that a diff may have: with more, the pages between some of them are written too.
pub const MAX_RANGES: usize = 1 << 20;
/// Drives, sections, or parts of memory that are read from a file: many more than there are.
const MAX_LISTED: usize = 256;

/// Bytes of a section: the largest, 32 vCPUs with all that there is of each, has half of that. What is made of it has some ten
/// times its length.
pub(super) const MAX_SECTION: usize = 8 << 20;

/// Tells a snapshot from every other.
pub type Id = [u8; 16];

/// What is in the file `state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateV2 {
    /// Random bytes: the snapshot's identity.
    pub id: Id,
    /// The version of rvmm that wrote it.
    pub rvmm_version: String,
    /// When, in nanoseconds since 1970, UTC.
    pub created: u64,
    /// The configuration, a `VmConfig` as JSON.
    pub config: String,
    /// What is in the file `memory`.
    pub memory: MemoryV2,
    /// Of a diff, the snapshot that it is on top of.
    pub base: Option<BaseV1>,
    /// The drives as they were on the host.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_LISTED>")]
    pub disks: Vec<DiskV2>,
    /// What KVM and the devices keep.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_LISTED>")]
    pub sections: Vec<SectionV2>,
}

/// What is in the file `memory`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryV2 {
    /// Bytes of a page: 4096.
    pub page_size: u64,
    /// Guest RAM by ascending address.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_LISTED>")]
    pub regions: Vec<RegionV1>,
    /// Of a diff, the pages that it has: ranges as first page and count, counted from the beginning of the file.
    /// `None`: all of them.
    #[serde(deserialize_with = "bounded::optional_list::<_, _, MAX_RANGES>")]
    pub pages: Option<Vec<(u64, u64)>>,
    /// The file was given a marker when it was written. One that has none by now was copied without it, or changed.
    pub is_marked: bool,
}

/// RAM without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionV1 {
    /// Guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub len: u64,
    /// Where it begins in the file, in bytes.
    pub offset: u64,
}

/// The snapshot below a diff.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseV1 {
    /// Its [`StateV2::id`].
    pub id: Id,
    /// The digest in the header of its `state`.
    pub seal: Seal,
    /// Its folder, or its state file where that has a memory file by another name; as it was given.
    #[serde(with = "bounded::bytes")]
    pub path: Vec<u8>,
    /// The same, from the root.
    #[serde(with = "bounded::bytes")]
    pub absolute: Vec<u8>,
    /// Its memory file from the root, where it is not in that folder; else nothing.
    #[serde(with = "bounded::bytes")]
    pub memory: Vec<u8>,
}

impl BaseV1 {
    /// Where it was, from the root.
    pub fn absolute(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.absolute))
    }

    /// Its memory file, where it is not in a folder with the state.
    pub fn memory(&self) -> Option<&Path> {
        (!self.memory.is_empty()).then(|| Path::new(OsStr::from_bytes(&self.memory)))
    }
}

/// The state of one part of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectionV2 {
    /// Which part, such as `vcpus`.
    pub name: String,
    /// Which type the bytes are of.
    pub version: u16,
    /// A reader that does not know the section refuses the snapshot. Else it can leave the section out.
    pub is_required: bool,
    /// A value of that type, as postcard.
    #[serde(with = "bounded::bytes")]
    pub bytes: Vec<u8>,
}

/// Why a state cannot be used, or not be written.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// No sealed state of this format.
    #[error(transparent)]
    Seal(#[from] seal::SealError),
    /// The body is no state, although its checksum is right.
    #[error("does not have the form that its format says: {0}")]
    Body(postcard::Error),
    /// A part does not go together with another.
    #[error("is not consistent: {0}")]
    Inconsistent(String),
    /// A part of the machine that the snapshot does not have.
    #[error("has no section \"{0}\"")]
    NoSection(String),
    /// A part that a later rvmm wrote.
    #[error(
        "has section \"{name}\" of version {found}, and this rvmm knows {known}; restore it with the rvmm that wrote it, or a later one"
    )]
    SectionVersion {
        /// Which part.
        name: String,
        /// Version in the file.
        found: u16,
        /// Version that is known.
        known: u16,
    },
    /// A part that this rvmm does not know and must not leave out.
    #[error(
        "needs section \"{0}\", which this rvmm does not know; restore it with the rvmm that wrote it, or a later one"
    )]
    UnknownSection(String),
    /// A part that takes more than any does.
    #[error("has a section \"{name}\" of {len} bytes, and {MAX_SECTION} is the most")]
    LongSection {
        /// Which part.
        name: String,
        /// Its bytes.
        len: usize,
    },
    /// A part whose bytes are none of its type.
    #[error("has a section \"{name}\" that cannot be read: {source}")]
    Section {
        /// Which part.
        name: String,
        /// What postcard said.
        source: postcard::Error,
    },
}

impl SectionV2 {
    /// The section `name` with `value`, a type of version `version`.
    ///
    /// # Errors
    /// [`StateError::Section`] for a value that postcard does not take, [`StateError::LongSection`] for one that would not be
    /// read again.
    pub fn of<T: Serialize>(name: &str, version: u16, value: &T) -> Result<Self, StateError> {
        match postcard::to_stdvec(value) {
            Ok(bytes) => {
                let section = Self { name: name.to_owned(), version, is_required: true, bytes };
                section.check_length()?;
                Ok(section)
            }
            Err(source) => Err(StateError::Section { name: name.to_owned(), source }),
        }
    }

    /// Refuses one that is longer than any is.
    fn check_length(&self) -> Result<(), StateError> {
        match self.bytes.len() {
            0..=MAX_SECTION => Ok(()),
            len => Err(StateError::LongSection { name: self.name.clone(), len }),
        }
    }
}

impl StateV2 {
    /// The state of a VM with `config` and nothing else yet; the time and a new id with it.
    ///
    /// # Errors
    /// When the configuration has no JSON (a path that is not UTF-8), or the host has no random bytes.
    pub fn new(config: &VmConfig) -> Result<Self, StateError> {
        let wrong = |why: String| StateError::Inconsistent(why);
        let mut id = Id::default();
        random::fill(&mut id).map_err(|error| wrong(format!("no random bytes: {error}")))?;
        let json = serde_json::to_string(config)
            .map_err(|error| wrong(format!("the configuration cannot be written: {error}")))?;
        let since_1970 =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            id,
            rvmm_version: env!("CARGO_PKG_VERSION").to_owned(),
            created: since_1970.as_nanos() as u64,
            config: json,
            memory: MemoryV2::of(config.machine_config.mem_size_mib),
            base: None,
            disks: Vec::new(),
            sections: Vec::new(),
        })
    }

    /// The bytes of the `state` file, and its seal.
    ///
    /// # Errors
    /// [`StateError::Body`] for what postcard does not take.
    pub fn encode(&self) -> Result<(Vec<u8>, Seal), StateError> {
        postcard::to_stdvec(self).map(|body| seal::seal(&body)).map_err(StateError::Body)
    }

    /// The state in the bytes of a `state` file, its configuration, and the seal.
    ///
    /// # Errors
    /// [`StateError`] when it is damaged, from another rvmm, or contradicts itself. What is in the sections is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<(Self, VmConfig, Seal), StateError> {
        let seal::Opened { version, body, seal } = seal::open(bytes)?;
        let (state, rest) = if version == 1 {
            postcard::take_from_bytes::<v1::StateV1>(body).map(|(state, rest)| (state.into(), rest))
        } else {
            postcard::take_from_bytes::<Self>(body)
        }
        .map_err(StateError::Body)?;
        if !rest.is_empty() {
            return Err(StateError::Inconsistent(format!("{} bytes follow its end", rest.len())));
        }
        let config = VmConfig::from_json(&state.config)
            .map_err(|error| StateError::Inconsistent(format!("its configuration: {error}")))?;
        state.check(&config).map_err(StateError::Inconsistent)?;
        Ok((state, config, seal))
    }

    /// Refuses a required section that is not among the names `known`.
    ///
    /// # Errors
    /// [`StateError::UnknownSection`] with its name.
    pub fn check_required(&self, known: &[&str]) -> Result<(), StateError> {
        let unknown = |section: &&SectionV2| section.is_required && !known.contains(&section.name.as_str());
        match self.sections.iter().find(unknown) {
            Some(section) => Err(StateError::UnknownSection(section.name.clone())),
            None => Ok(()),
        }
    }

    /// The section `name`, a `T` of version `known`.
    ///
    /// # Errors
    /// When there is none, of that version, that is a `T` from its first byte to its last.
    pub fn section<T: DeserializeOwned>(&self, name: &str, known: u16) -> Result<T, StateError> {
        let owned = || name.to_owned();
        let mut named = self.sections.iter().filter(|section| section.name == name);
        let section = named.next().ok_or_else(|| StateError::NoSection(owned()))?;
        let found = section.version;
        if found != known {
            return Err(StateError::SectionVersion { name: owned(), found, known });
        }
        section.check_length()?;
        match postcard::take_from_bytes(&section.bytes) {
            Ok((value, [])) => Ok(value),
            Ok(_) => Err(StateError::Inconsistent(format!("bytes follow the end of section \"{name}\""))),
            Err(source) => Err(StateError::Section { name: owned(), source }),
        }
    }

    fn check(&self, config: &VmConfig) -> Result<(), String> {
        let memory = &self.memory;
        if memory.page_size != PAGE_SIZE {
            return Err(format!("pages of {} bytes, and not {PAGE_SIZE}", memory.page_size));
        }
        let mib = config.machine_config.mem_size_mib;
        if memory.regions != MemoryV2::of(mib).regions {
            return Err(format!("its memory is not that of a guest with {mib} MiB"));
        }
        match (&memory.pages, &self.base) {
            (Some(pages), Some(_)) => Pages::checked(pages, memory.len())
                .map(drop)
                .ok_or("its list of pages is not in order, or outside of memory".to_owned())?,
            (None, None) => {}
            (None, Some(_)) => return Err("it has all pages, and a base as well".to_owned()),
            (Some(_), None) => return Err("it has some pages only, and no base".to_owned()),
        }
        if let Some(name) = self
            .disks
            .iter()
            .filter_map(|disk| disk.included.as_deref())
            .find(|name| !disk::is_file_name(name))
        {
            return Err(format!("its file of a disk is called {name:?}, which is no name of such a file"));
        }
        let mut names: Vec<_> = self.sections.iter().map(|section| &section.name).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair.first() == pair.last()).and_then(<[_]>::first) {
            Some(name) => Err(format!("it has two sections \"{name}\"")),
            None => Ok(()),
        }
    }
}

impl MemoryV2 {
    /// All of the memory of a guest with `mib` MiB: its RAM from the lowest address up, without the gap.
    pub fn of(mib: u64) -> Self {
        let mut offset = 0_u64;
        let regions = memory::ranges(mib).into_iter().map(|(address, len)| {
            let region = RegionV1 { address, len, offset };
            offset = offset.saturating_add(len);
            region
        });
        Self { page_size: PAGE_SIZE, regions: regions.collect(), pages: None, is_marked: false }
    }

    /// Length of the file in bytes.
    pub fn len(&self) -> u64 {
        self.regions.iter().map(|region| region.len).fold(0, u64::saturating_add)
    }

    /// Whether the guest has no memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pages that are in the file. Of a state that was read they are in order and within it.
    pub fn pages(&self) -> Pages {
        match &self.pages {
            Some(pages) => Pages::checked(pages, self.len()).unwrap_or_default(),
            None => Pages::all(self.len()),
        }
    }
}
