//! Why a saved state is refused.

use std::fmt::Display;

/// A saved state that cannot be restored, or a state that cannot be saved, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StateError(String);

impl StateError {
    /// An error that says `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// The same, said of `part`: `drive "a": …`.
    #[must_use]
    pub fn within(self, part: impl Display) -> Self {
        Self(format!("{part}: {}", self.0))
    }
}
