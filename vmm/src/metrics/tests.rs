use super::*;

#[derive(Serialize)]
struct Disk {
    reads: u64,
    read_bytes: u64,
}

#[derive(Serialize)]
struct Exits {
    exits: Ports,
}

#[derive(Serialize)]
struct Ports {
    io_in: u64,
}

fn disk(reads: u64) -> Arc<Disk> {
    Arc::new(Disk { reads, read_bytes: reads * 512 })
}

fn snapshot() -> Snapshot {
    let mut registry = Registry::default();
    let transport = Arc::new(TransportMetrics::default());
    transport.interrupts.add(7);
    registry.add("vcpu", Arc::new(Exits { exits: Ports { io_in: 9 } }));
    registry.add_virtio("block", Some("rootfs"), disk(1), transport.clone());
    registry.add_virtio("block", Some("transport"), disk(2), Arc::default());
    registry.add_virtio("entropy", None, disk(3), transport);
    registry.gather()
}

#[test]
fn the_json_form_is_one_object_by_kind_and_id() {
    let json = snapshot().to_json();
    assert!(json["utc_timestamp_ms"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(json["vcpu"], serde_json::json!({"exits": {"io_in": 9}}));
    assert_eq!(json["block"]["rootfs"]["reads"], 1);
    assert_eq!(json["block"]["rootfs"]["transport"]["interrupts"], 7);
    assert_eq!(json["block"]["transport"]["read_bytes"], 1024);
    assert_eq!(json["entropy"]["reads"], 3);
}

#[test]
fn the_prometheus_form_has_each_family_once_with_its_samples_together() {
    let text = snapshot().to_prometheus("web");
    let expected = "\
# HELP rvmm_block_reads_total block: reads
# TYPE rvmm_block_reads_total counter
rvmm_block_reads_total{id=\"web\",device=\"rootfs\"} 1
rvmm_block_reads_total{id=\"web\",device=\"transport\"} 2
";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("\nrvmm_vcpu_exits_io_in_total{id=\"web\"} 9\n"), "{text}");
    assert!(
        text.contains("\nrvmm_block_transport_interrupts_total{id=\"web\",device=\"rootfs\"} 7\n"),
        "{text}"
    );
    for line in text.lines().filter(|line| line.starts_with("# TYPE ")) {
        assert_eq!(text.matches(line).count(), 1, "{line}");
    }
    assert!(!text.contains("timestamp"), "{text}");
    assert!(text.ends_with('\n'));
}

#[test]
fn labels_are_escaped() {
    let mut registry = Registry::default();
    registry.add_virtio("block", Some("a\"b\\c\nd"), disk(1), Arc::default());
    let text = registry.gather().to_prometheus("");
    assert!(text.contains(r#"{id="",device="a\"b\\c\nd"} 1"#), "{text}");
}

/// As the source of a registry has it.
#[derive(Default, Serialize)]
struct Process {
    requests: Counter,
    startup_us: Gauge,
}

#[test]
fn a_gauge_is_no_counter_for_prometheus_and_a_number_as_json() {
    let process = Process::default();
    process.requests.add(3);
    process.startup_us.set(4);
    process.startup_us.set(2);
    let mut registry = Registry::default();
    registry.add("process", Arc::new(process));
    let snapshot = registry.gather();
    assert_eq!(snapshot.to_json()["process"], serde_json::json!({"requests": 3, "startup_us": 2}));
    let text = snapshot.to_prometheus("web");
    let expected = "\
# HELP rvmm_process_requests_total process: requests
# TYPE rvmm_process_requests_total counter
rvmm_process_requests_total{id=\"web\"} 3
# HELP rvmm_process_startup_us process: startup us
# TYPE rvmm_process_startup_us gauge
rvmm_process_startup_us{id=\"web\"} 2
";
    assert_eq!(text, expected);
}
