//! What a list of figures comes to.

use crate::report::statistics;

/// Median, nine tenths and the least of some figures; of none, no numbers.
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) p90: f64,
    pub(crate) min: f64,
}

impl Summary {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        statistics::Summary::of(values).map_or(
            Self { median: f64::NAN, p90: f64::NAN, min: f64::NAN },
            |statistics::Summary { median, p90, min, .. }| Self { median, p90, min },
        )
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({"median": self.median, "p90": self.p90, "min": self.min})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_report() {
        let Summary { median, p90, min } = Summary::of((1..=10).rev().map(f64::from));
        assert_eq!(format!("{median} {p90} {min}"), "5.5 9.1 1");
        assert!(Summary::of([]).median.is_nan());
    }
}
