//! What the VM counts: a registry of every device's counters, and the two forms in which they are read.
//!
//! A source is anything that serializes as an object of counters and gauges, perhaps with objects of them in it. It is registered
//! once, by the kind of thing that counts and, where there can be several of a kind, an id. A counter that a source gets
//! later appears in both forms by itself.
//!
//! As JSON: `{"utc_timestamp_ms": N, "KIND": {"COUNTER": N, …}, "KIND": {"ID": {"COUNTER": N, …}, …}, …}`. For
//! Prometheus: [`prometheus`].

mod file;
pub mod prometheus;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use devices::metrics::TransportMetrics;
pub use devices::metrics::{Counter, Gauge};
use serde::Serialize;
use serde_json::{Map, Value};

pub use file::{MetricsConfig, MetricsFile, MetricsFileMetrics};

/// Something whose counters can be read at any time, from any thread.
pub trait Source: Send + Sync {
    /// The values now.
    fn values(&self) -> Value;
}

impl<T: Serialize + Send + Sync> Source for T {
    fn values(&self) -> Value {
        // Fails for maps whose keys are no strings, which no metrics have.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// One registered source.
#[derive(Clone)]
struct Entry {
    kind: &'static str,
    id: Option<String>,
    source: Arc<dyn Source>,
    transport: Option<Arc<TransportMetrics>>,
}

/// All that counts in one VM, in the order in which it was registered.
#[derive(Clone, Default)]
pub struct Registry(Vec<Entry>);

impl Registry {
    /// Registers the only source of `kind`, such as `"vcpu"`.
    pub fn add(&mut self, kind: &'static str, source: Arc<dyn Source>) {
        self.0.push(Entry { kind, id: None, source, transport: None });
    }

    /// Registers a virtio device with its transport. One that can be there several times has its `id`.
    pub fn add_virtio(
        &mut self,
        kind: &'static str,
        id: Option<&str>,
        source: Arc<dyn Source>,
        transport: Arc<TransportMetrics>,
    ) {
        self.0.push(Entry { kind, id: id.map(str::to_owned), source, transport: Some(transport) });
    }

    /// Reads every counter.
    pub fn gather(&self) -> Snapshot {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let groups = self.0.iter().map(|entry| {
            let mut values = entry.source.values();
            if let (Some(transport), Value::Object(values)) = (&entry.transport, &mut values) {
                values.insert("transport".to_owned(), transport.values());
            }
            Group { kind: entry.kind, id: entry.id.clone(), values }
        });
        Snapshot {
            utc_timestamp_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            groups: groups.collect(),
        }
    }
}

/// The counters of one source.
#[derive(Clone, Debug, PartialEq)]
struct Group {
    kind: &'static str,
    id: Option<String>,
    values: Value,
}

/// Every counter at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    utc_timestamp_ms: u64,
    groups: Vec<Group>,
}

impl Snapshot {
    /// Adds what is counted elsewhere, by a source that is not part of the VM.
    pub fn append(&mut self, other: Self) {
        self.groups.extend(other.groups);
    }

    /// The one JSON object.
    pub fn to_json(&self) -> Value {
        let mut all = Map::new();
        all.insert("utc_timestamp_ms".to_owned(), self.utc_timestamp_ms.into());
        for Group { kind, id, values } in &self.groups {
            let values = numbers(values);
            let Some(id) = id else {
                all.insert((*kind).to_owned(), values);
                continue;
            };
            if let Value::Object(of_kind) = all.entry(*kind).or_insert_with(|| Value::Object(Map::new())) {
                of_kind.insert(id.clone(), values);
            }
        }
        Value::Object(all)
    }
}

/// The value of a serialized gauge, if `value` is one.
fn gauge(value: &Value) -> Option<&Value> {
    value.as_object().filter(|members| members.len() == 1).and_then(|members| members.get(Gauge::KEY))
}

/// `value` with each gauge as a number, as a counter is.
fn numbers(value: &Value) -> Value {
    match value {
        Value::Object(members) => gauge(value).cloned().unwrap_or_else(|| {
            Value::Object(members.iter().map(|(key, value)| (key.clone(), numbers(value))).collect())
        }),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
