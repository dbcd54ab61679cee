//! The text form that Prometheus collects (its exposition format, version 0.0.4).
//!
//! `rvmm_KIND_COUNTER_total{id="VM",device="ID"} N`, where objects in objects join their names with `_`. `device` is
//! there when a kind can have several. The name of a gauge has no `_total`.

use std::fmt::{self, Write as _};

use serde_json::Value;

use super::{Group, Snapshot, gauge};

/// The media type of the text form.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// One number with what it belongs to.
struct Sample<'a> {
    /// `rvmm_block_reads_total`.
    name: String,
    /// `reads`: what the counter is called where it is counted.
    words: String,
    /// `counter` or `gauge`.
    metric_type: &'static str,
    kind: &'static str,
    device: Option<&'a str>,
    value: u64,
}

impl Snapshot {
    /// The text form; every sample is labelled with `id`, the VM's name.
    pub fn to_prometheus(&self, id: &str) -> String {
        let mut samples = Vec::new();
        self.groups.iter().for_each(|group| collect(group, "", &group.values, &mut samples));
        // All samples of one name have to stand together, in the order in which names first appear.
        let mut names: Vec<&str> = Vec::new();
        for sample in &samples {
            if !names.contains(&sample.name.as_str()) {
                names.push(&sample.name);
            }
        }
        let mut text = String::new();
        for name in names {
            // Writing to a String cannot fail.
            let _ = write_family(&mut text, id, samples.iter().filter(|sample| sample.name == name));
        }
        text
    }
}

fn collect<'a>(group: &'a Group, path: &str, value: &'a Value, samples: &mut Vec<Sample<'a>>) {
    let (value, metric_type, suffix) = match gauge(value) {
        Some(value) => (value, "gauge", ""),
        None => (value, "counter", "_total"),
    };
    match value {
        Value::Object(members) => {
            for (key, value) in members {
                let path = if path.is_empty() { key.clone() } else { format!("{path}_{key}") };
                collect(group, &path, value, samples);
            }
        }
        Value::Number(number) => {
            let Some(value) = number.as_u64() else { return };
            samples.push(Sample {
                name: format!("rvmm_{}_{}{suffix}", Name(group.kind), Name(path)),
                words: path.replace('_', " "),
                metric_type,
                kind: group.kind,
                device: group.id.as_deref(),
                value,
            });
        }
        _ => {}
    }
}

fn write_family<'a>(
    text: &mut String,
    id: &str,
    samples: impl Iterator<Item = &'a Sample<'a>>,
) -> fmt::Result {
    for (number, sample) in samples.enumerate() {
        let Sample { name, words, metric_type, kind, device, value } = sample;
        if number == 0 {
            writeln!(text, "# HELP {name} {kind}: {words}")?;
            writeln!(text, "# TYPE {name} {metric_type}")?;
        }
        write!(text, "{name}{{id=\"{}\"", Label(id))?;
        if let Some(device) = device {
            write!(text, ",device=\"{}\"", Label(device))?;
        }
        writeln!(text, "}} {value}")?;
    }
    Ok(())
}

/// A part of a metric's name, which has letters, digits and `_` only.
struct Name<'a>(&'a str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| {
            f.write_char(if character.is_ascii_alphanumeric() { character } else { '_' })
        })
    }
}

/// A label's value.
struct Label<'a>(&'a str);

impl fmt::Display for Label<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}
