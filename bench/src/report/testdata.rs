//! Results for tests. All of their values are invented.

use crate::results::Results;

/// All contenders; some are missing, some have failed.
pub(crate) fn invented() -> Results {
    serde_json::from_str(include_str!("../../tests/data/invented.json")).unwrap()
}
