//! `machine-config.cpu_template`: the templates that Firecracker has by name, each for certain processors, and has
//! deprecated. rvmm has none of them, and does not let a guest start that expects one.

use serde::{Deserialize, Deserializer};

use super::number::shown;

/// The one name that is accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StaticTemplate {
    /// The CPU as it is.
    #[default]
    None,
}

impl<'de> Deserialize<'de> for StaticTemplate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Option::<String>::deserialize(deserializer)?;
        match name.as_deref() {
            None | Some("None") => Ok(Self::None),
            Some(other) => Err(serde::de::Error::custom(format_args!(
                "cpu_template \"{}\": static CPU templates are deprecated, and rvmm has none but \"None\"; say what to \
                 change with cpu-config (--cpu-template FILE, PUT /cpu-config)",
                shown(other)
            ))),
        }
    }
}
