//! What was measured of several VMMs, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::summary::Summary;

/// One thing that was measured of one VMM.
pub(crate) struct Measured {
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) vmm: &'static str,
    pub(crate) summary: Summary,
}

/// The table. Ratios are to the first VMM of which the same was measured, if there is another.
pub(crate) fn table(all: &[Measured]) -> String {
    let mut text =
        format!("{:<28} {:<12} {:>10} {:>9} {:>9}   {:>7}\n", "", "", "median", "p90", "min", "ratio");
    for Measured { what, unit, vmm, summary } in all {
        let Summary { median, p90, min } = summary;
        let _ = write!(text, "{what:<28} {vmm:<12} {median:>7.2} {unit} {p90:>9.2} {min:>9.2}");
        let mut same = all.iter().filter(|other| other.what == *what);
        if let (Some(base), Some(_)) = (same.next(), same.next()) {
            let _ = write!(text, "   {:>7.2}", median / base.summary.median);
        }
        text.push('\n');
    }
    text
}

/// The same as JSON.
pub(crate) fn json(all: &[Measured]) -> Value {
    let measured = all.iter().map(|Measured { what, unit, vmm, summary }| {
        json!({"what": what, "unit": unit, "vmm": vmm, "summary": summary.json()})
    });
    measured.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(what: &'static str, vmm: &'static str, value: f64) -> Measured {
        Measured { what, unit: "ms", vmm, summary: Summary::of([value]) }
    }

    #[test]
    fn one_that_is_alone_has_no_ratio() {
        let all =
            [measured("start", "rvmm", 2.0), measured("start", "other", 3.0), measured("end", "rvmm", 5.0)];
        let text = table(&all);
        let ends: Vec<_> = text.lines().map(|line| line.split_whitespace().last().unwrap_or("")).collect();
        assert_eq!(ends, ["ratio", "1.00", "1.50", "5.00"], "{text}");
        assert_eq!(text.lines().nth(3).map(|line| line.split_whitespace().count()), Some(6), "{text}");
    }
}
