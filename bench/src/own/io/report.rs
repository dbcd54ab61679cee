//! The tables, and the same as JSON.

#![allow(clippy::cast_precision_loss, reason = "counts of events, for ratios")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::metric::{METRICS, Metric};
use super::session::Sample;
use super::vmms::{Kind, Vmm};
use crate::args::Group;
use crate::own::host;

/// Every sample, by VMM and measurement.
#[derive(Default)]
pub(crate) struct Results {
    series: Vec<Series>,
}

/// What one VMM has shown in one measurement, round by round.
struct Series {
    group: Group,
    /// The measurement's name.
    name: String,
    vmm: String,
    is_rvmm: bool,
    samples: Vec<Sample>,
}

impl Series {
    fn figure(&self, field: &str) -> Option<f64> {
        median(self.samples.iter().filter_map(|sample| sample.figures.get(field)?.as_f64()))
    }

    /// Median of a count for each request, or for each MiB, whichever the load generator counts.
    fn per_unit(&self, count: impl Fn(&Sample) -> Option<u64>) -> Option<f64> {
        median(self.samples.iter().filter_map(|sample| Some(count(sample)? as f64 / units(&sample.figures)?)))
    }
}

fn units(figures: &Value) -> Option<f64> {
    let field = |name: &str| figures.get(name).and_then(Value::as_f64);
    field("requests").or_else(|| field("mib")).or_else(|| Some(field("bytes")? / f64::from(1 << 20)))
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*values.get(middle - 1)?, upper))
}

impl Results {
    pub(crate) fn add(&mut self, group: Group, vmm: &Vmm, sample: Sample) {
        let known =
            self.series.iter_mut().find(|series| series.vmm == vmm.name && series.name == sample.name);
        match known {
            Some(series) => series.samples.push(sample),
            None => self.series.push(Series {
                group,
                name: sample.name.clone(),
                vmm: vmm.name.clone(),
                is_rvmm: vmm.kind == Kind::Rvmm,
                samples: vec![sample],
            }),
        }
    }

    fn of<'a>(&'a self, metric: &'a Metric) -> impl Iterator<Item = &'a Series> {
        self.series.iter().filter(|series| series.name == metric.name)
    }

    /// The best median of the VMMs that are not rvmm.
    fn best_other(&self, metric: &Metric) -> Option<f64> {
        let others = self.of(metric).filter(|series| !series.is_rvmm);
        others.filter_map(|series| series.figure(metric.field)).reduce(|a, b| metric.better.best(a, b))
    }

    /// Whether nothing was measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// A table for each metric.
    pub(crate) fn tables(&self) -> String {
        let mut text = String::new();
        for metric in &METRICS {
            if self.of(metric).next().is_none() {
                continue;
            }
            let _ = writeln!(text, "\n{}, {}", metric.title, metric.unit);
            let _ = writeln!(
                text,
                "  {:<24} {:>10} {:>10} {:>10} {:>7}  {:>7} {:>8} {:>8} {:>8} {:>8}  system calls",
                "", "median", "min", "max", "ratio", "exits", "to user", "halts", "vCPU us", "other us"
            );
            for series in self.of(metric) {
                text.extend(self.row(metric, series));
            }
        }
        text.push_str(
            "\nratio: to the best of the VMMs that are not rvmm, above 1 is better. Exits, of them those to user space, halts, \
             CPU time of vCPU and other threads and system calls are for each request, or for each MiB of a stream.\n",
        );
        text
    }

    fn row(&self, metric: &Metric, series: &Series) -> Option<String> {
        let figures =
            || series.samples.iter().filter_map(|sample| sample.figures.get(metric.field)?.as_f64());
        let own = median(figures())?;
        let ratio = self
            .best_other(metric)
            .map_or(String::new(), |other| format!("{:.2}", metric.better.ratio(own, other)));
        let number = |value: Option<f64>, digits: usize| {
            value.map_or(String::new(), |value| format!("{value:.digits$}"))
        };
        let kvm = |name: &str| number(series.per_unit(|sample| sample.counters.kvm.get(name).copied()), 2);
        let user = number(
            series.per_unit(|sample| {
                let kvm = &sample.counters.kvm;
                Some(kvm.get("io_exits")? + kvm.get("mmio_exits")?)
            }),
            2,
        );
        let micros = |time: fn(&Sample) -> u64| {
            number(series.per_unit(|sample| Some(time(sample))).map(|ns| ns / 1e3), 1)
        };
        // Milliseconds are fractions.
        let digits = if own < 10.0 { 3 } else { 1 };
        Some(format!(
            "  {:<24} {:>10.digits$} {:>10.digits$} {:>10.digits$} {:>7}  {:>7} {:>8} {:>8} {:>8} {:>8}  {}\n",
            series.vmm,
            own,
            figures().fold(f64::INFINITY, f64::min),
            figures().fold(f64::NEG_INFINITY, f64::max),
            ratio,
            kvm("exits"),
            user,
            kvm("halt_exits"),
            micros(|sample| sample.counters.vcpu_ns),
            micros(|sample| sample.counters.device_ns),
            system_calls(series)
        ))
    }

    /// Everything.
    pub(crate) fn json(&self) -> Value {
        let metrics: Vec<Value> = METRICS
            .iter()
            .flat_map(|metric| self.of(metric).map(move |series| (metric, series)))
            .map(|(metric, series)| {
                let own = series.figure(metric.field);
                let ratio =
                    own.zip(self.best_other(metric)).map(|(own, other)| metric.better.ratio(own, other));
                json!({
                    "group": series.group, "metric": metric.name, "title": metric.title, "unit": metric.unit,
                    "vmm": series.vmm, "median": own, "ratio": ratio,
                    "rounds": series.samples.iter().map(|sample| json!({
                        "figures": sample.figures, "counters": sample.counters, "syscalls": sample.syscalls,
                    })).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({"host": host::describe(), "results": metrics})
    }
}

/// The system calls for each request that matter, most frequent first.
fn system_calls(series: &Series) -> String {
    let mut names: BTreeMap<&str, f64> = BTreeMap::new();
    for name in series.samples.iter().flat_map(|sample| sample.syscalls.keys()) {
        if let Some(count) = series.per_unit(|sample| sample.syscalls.get(name).copied()) {
            names.insert(name, count);
        }
    }
    let mut names: Vec<(&str, f64)> = names.into_iter().filter(|(_, count)| *count >= 0.01).collect();
    names.sort_by(|a, b| b.1.total_cmp(&a.1));
    names.iter().map(|(name, count)| format!("{name} {count:.2}")).collect::<Vec<_>>().join(", ")
}
