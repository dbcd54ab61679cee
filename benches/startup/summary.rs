//! What a list of figures comes to.

/// Median, nine tenths and the least of some figures.
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) p90: f64,
    pub(crate) min: f64,
}

impl Summary {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |percent: usize| values[(values.len() - 1) * percent / 100];
        Self { median: at(50), p90: at(90), min: at(0) }
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({"median": self.median, "p90": self.p90, "min": self.min})
    }
}
