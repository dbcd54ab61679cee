//! Numbers that may be none: JSON has no NaN, so that `null` is written, and read, for it.

use serde::{Deserialize, Deserializer};

/// A number.
pub(super) fn one<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Option::deserialize(from).map(or_nan)
}

/// Two of them.
pub(super) fn two<'de, D: Deserializer<'de>>(from: D) -> Result<[f64; 2], D::Error> {
    <[Option<f64>; 2]>::deserialize(from).map(|numbers| numbers.map(or_nan))
}

/// A list of them.
pub(super) fn many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    Vec::deserialize(from).map(|numbers| numbers.into_iter().map(or_nan).collect())
}

fn or_nan(number: Option<f64>) -> f64 {
    number.unwrap_or(f64::NAN)
}
