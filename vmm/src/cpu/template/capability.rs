//! A `KVM_CAP_*` that a template asks for, by its number in `linux/kvm.h`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::number::shown;

/// `"131"`: KVM has to have it. `"!131"`: it need not.
///
/// rvmm asks for nothing in advance that a template could excuse KVM from; what it cannot do without fails where it is
/// used. So `Removed` is kept for who reads the configuration, and changes nothing but an earlier `Required`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvmCapability {
    /// No VM without it.
    Required(u32),
    /// The opposite.
    Removed(u32),
}

impl fmt::Display for KvmCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Required(number) => write!(f, "{number}"),
            Self::Removed(number) => write!(f, "!{number}"),
        }
    }
}

impl Serialize for KvmCapability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KvmCapability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (digits, make): (_, fn(u32) -> Self) = match text.strip_prefix('!') {
            Some(digits) => (digits, Self::Removed),
            None => (text.as_str(), Self::Required),
        };
        digits.parse().map(make).map_err(|_| {
            serde::de::Error::custom(format_args!(
                "\"{}\" is no KVM capability: write its number in linux/kvm.h, and ! in front to remove it",
                shown(&text)
            ))
        })
    }
}
