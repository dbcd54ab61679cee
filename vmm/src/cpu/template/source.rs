//! Where a template comes from: written out in the configuration, a file, or one of rvmm's own.

use std::borrow::Cow;
use std::io;
use std::path::{self, Path};

use serde::{Deserialize, Deserializer, Serialize};

use super::builtin::Builtin;
use super::{CpuTemplate, TemplateFileError, builtins};
use crate::text_file;

/// `cpu-config` of a configuration: a template, or a name for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum CpuConfig {
    /// It is written here.
    Template(CpuTemplate),
    /// A template of rvmm's own, or the path of a file that has one.
    Named(String),
}

impl<'de> Deserialize<'de> for CpuConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> serde::de::Visitor<'de> for Either {
            type Value = CpuConfig;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a CPU template, or the name of one")
            }

            fn visit_str<E>(self, name: &str) -> Result<CpuConfig, E> {
                Ok(CpuConfig::Named(name.to_owned()))
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(self, map: M) -> Result<CpuConfig, M::Error> {
                CpuTemplate::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    .map(CpuConfig::Template)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl CpuConfig {
    /// Whether it names something that is no regular file, such as a FIFO, which would be waited for.
    pub fn is_special_file(&self) -> bool {
        match self {
            Self::Template(_) => false,
            Self::Named(name) => Path::new(name).metadata().is_ok_and(|metadata| !metadata.is_file()),
        }
    }

    /// Makes the path of a file absolute. A template of rvmm's own keeps its name.
    ///
    /// # Errors
    /// When the current folder is gone, or its path is not UTF-8.
    pub fn make_path_absolute(&mut self) -> io::Result<()> {
        match self {
            Self::Named(name) if builtin(name).is_none() => {
                let path = path::absolute(&*name)?.into_os_string();
                *name = path.into_string().map_err(|path| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("{} is not UTF-8", path.display()))
                })?;
            }
            Self::Named(_) | Self::Template(_) => {}
        }
        Ok(())
    }

    /// The template itself. A name without a slash is one of rvmm's own templates if there is such a one.
    ///
    /// # Errors
    /// There is no such template, or its file is none.
    pub fn template(&self) -> Result<Cow<'_, CpuTemplate>, TemplateFileError> {
        match self {
            Self::Template(template) => Ok(Cow::Borrowed(template)),
            Self::Named(name) => named(name).map(Cow::Owned),
        }
    }
}

fn builtin(name: &str) -> Option<&'static Builtin> {
    builtins().iter().find(|builtin| builtin.name == name)
}

fn named(name: &str) -> Result<CpuTemplate, TemplateFileError> {
    if let Some(builtin) = builtin(name) {
        return Ok((builtin.template)());
    }
    let path = Path::new(name);
    let text = text_file::read(path).map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound && !name.contains('/') {
            return TemplateFileError::Unknown { name: name.to_owned() };
        }
        TemplateFileError::Read { path: path.to_owned(), source }
    })?;
    CpuTemplate::from_json(&text).map_err(|source| TemplateFileError::Json { path: path.to_owned(), source })
}
