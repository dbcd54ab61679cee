//! Which bits of a register become what: `0bxx10` leaves bits 3 and 2, sets bit 1, clears bit 0.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::number::shown;

/// Changes to a register of `BITS` (32 or 64) bits. The default changes none.
///
/// Its text has a character for each bit, the highest first: `x` leaves it, `0` and `1` set it. `0b` in front is
/// optional, `_` separates, and bits in front of the text's first are left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bitmap<const BITS: u32> {
    /// The bits that get a value.
    changed: u64,
    /// Their values; no other bit is set.
    values: u64,
}

/// A text that is no bitmap.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BitmapError {
    /// More bits than the register has.
    #[error("bitmap \"{text}\" has more than the {bits} bits of its register")]
    TooLong {
        /// What was given.
        text: String,
        /// What there is room for.
        bits: u32,
    },
    /// A character that means nothing.
    #[error("bitmap \"{text}\" has {found:?}: a bit is x (leave it), 0 or 1, and _ separates")]
    Character {
        /// What was given.
        text: String,
        /// What is not understood.
        found: char,
    },
}

impl<const BITS: u32> Bitmap<BITS> {
    /// Sets the bits of `mask` to 0 and leaves the others.
    pub const fn clear(mask: u64) -> Self {
        Self { changed: mask, values: 0 }
    }

    /// The bits that get a value.
    pub fn changed(self) -> u64 {
        self.changed
    }

    /// `value` with the bits changed.
    pub fn apply(self, value: u64) -> u64 {
        (value & !self.changed) | self.values
    }
}

impl<const BITS: u32> FromStr for Bitmap<BITS> {
    type Err = BitmapError;

    fn from_str(text: &str) -> Result<Self, BitmapError> {
        let mut bitmap = Self::default();
        let mut position = 0;
        for character in text.strip_prefix("0b").unwrap_or(text).chars().rev() {
            if character == '_' {
                continue;
            }
            if position == BITS {
                return Err(BitmapError::TooLong { text: shown(text), bits: BITS });
            }
            let (changed, value) = match character {
                'x' => (0, 0),
                '0' => (1, 0),
                '1' => (1, 1),
                found => return Err(BitmapError::Character { text: shown(text), found }),
            };
            bitmap.changed |= changed << position;
            bitmap.values |= value << position;
            position += 1;
        }
        Ok(bitmap)
    }
}

impl<const BITS: u32> fmt::Display for Bitmap<BITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0b")?;
        for position in (0..BITS).rev() {
            let bit = |word: u64| word >> position & 1 == 1;
            f.write_str(match (bit(self.changed), bit(self.values)) {
                (false, _) => "x",
                (true, false) => "0",
                (true, true) => "1",
            })?;
        }
        Ok(())
    }
}

impl<const BITS: u32> Serialize for Bitmap<BITS> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de, const BITS: u32> Deserialize<'de> for Bitmap<BITS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
