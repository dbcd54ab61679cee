//! What a list of figures comes to.

/// Median, nine tenths and the least of some figures; of none, no numbers.
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) p90: f64,
    pub(crate) min: f64,
}

impl Summary {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let last = values.len().saturating_sub(1);
            values.get(last * percent / 100).copied().unwrap_or(f64::NAN)
        };
        Self { median: at(50), p90: at(90), min: at(0) }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({"median": self.median, "p90": self.p90, "min": self.min})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_of_figures_that_were_taken() {
        let Summary { median, p90, min } = Summary::of((1..=10).rev().map(f64::from));
        assert_eq!(format!("{median} {p90} {min}"), "5 9 1");
        assert!(Summary::of([]).median.is_nan());
    }
}
