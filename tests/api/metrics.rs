//! What a VM counts, over the socket and in a file.

use std::collections::HashSet;
use std::fs;

use serde_json::{Value, json};

use super::guest;
use crate::support::api::ApiSocket;
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;
use crate::support::{Rvmm, poll, process};

#[test]
fn what_the_guest_does_is_counted() {
    require_kvm!();
    let socket = ApiSocket::new();
    let disk = Disk::new(8, "");
    let mut running = guest("serial-echo", &socket)
        .disk(&disk.path(), ",id=data")
        .stdin(std::process::Stdio::piped())
        .launch();
    running.wait_for("ready\n").send("abc").wait_for("abc");
    // A byte is counted once it is written, and may be read before.
    let output = |metrics: &Value| metrics["uart"]["output_bytes"] == "ready\nabc".len();
    assert!(poll(|| output(&socket.get("/rvmm/metrics.json").json())));
    let metrics = socket.get("/rvmm/metrics.json").json();
    assert!(metrics["utc_timestamp_ms"].as_u64().unwrap() > 1_700_000_000_000);
    assert_eq!(metrics["uart"]["input_bytes"], 3);
    assert!(metrics["vcpu"]["exits"]["io_out"].as_u64().unwrap() >= 9, "{metrics}");
    assert_eq!(metrics["block"]["data"]["reads"], 0);
    assert_eq!(metrics["block"]["data"]["transport"]["activations"], 0);
    let (connections, requests) = (&metrics["api_server"]["connections"], &metrics["api_server"]["requests"]);
    assert!(connections == requests && *requests != 0, "{metrics}");
    assert_eq!(metrics["vmm"]["pauses"], 0);
    socket.patch("/vm", &json!({"state": "Paused"})).assert_done();
    assert_eq!(socket.get("/rvmm/metrics.json").json()["vmm"]["pauses"], 1);
}

#[test]
fn the_text_form_is_one_that_prometheus_reads() {
    require_kvm!();
    let socket = ApiSocket::new();
    let disk = Disk::new(8, "");
    let id = format!("prometheus-{}", std::process::id());
    let mut running =
        guest("spin-forever", &socket).args(["--id", &id]).disk(&disk.path(), ",id=data").launch();
    running.wait_for("spinning\n");
    let text = socket.get("/rvmm/metrics").body;
    let (mut described, mut typed, mut seen) = (HashSet::new(), HashSet::new(), HashSet::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(described.insert(rest.split(' ').next().unwrap()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(typed.insert(name), "{line}");
            let is_gauge = name.starts_with("rvmm_api_server_process_startup_time");
            assert_eq!(kind, if is_gauge { "gauge" } else { "counter" }, "{line}");
            assert_eq!(name.ends_with("_total"), !is_gauge, "{line}");
        } else {
            let (name, rest) = line.split_once('{').unwrap();
            let (labels, value) = rest.split_once("} ").unwrap();
            assert!(described.contains(name) && typed.contains(name), "{line}");
            assert!(name.starts_with("rvmm_"), "{line}");
            assert!(labels.starts_with(&format!("id=\"{id}\"")), "{line}");
            value.parse::<u64>().unwrap();
            assert!(seen.insert((name, labels)), "twice: {line}");
        }
    }
    let reads = format!("rvmm_block_reads_total{{id=\"{id}\",device=\"data\"}} 0");
    assert!(text.lines().any(|line| line == reads), "{text}");
    // A byte is counted once it is written, and may be read before.
    let output = format!("rvmm_uart_output_bytes_total{{id=\"{id}\"}} 9");
    assert!(poll(|| socket.get("/rvmm/metrics").body.lines().any(|line| line == output)), "{text}");
}

#[test]
fn a_line_is_written_when_it_is_asked_for_and_at_the_end() {
    require_kvm!();
    let socket = ApiSocket::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics");
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(&path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let mut running = guest("spin-forever", &socket).arg("--metrics-path").arg(&path).launch();
    running.wait_for("spinning\n");
    socket.put("/actions", &json!({"action_type": "FlushMetrics"})).assert_done();
    assert_eq!(lines().len(), 1);
    running.signal(libc::SIGTERM);
    assert_eq!(running.end().code(), 128 + libc::SIGTERM);
    assert_eq!(lines().len(), 2);
    assert_eq!(lines()[1]["uart"]["output_bytes"], "spinning\n".len());
    assert_eq!(lines()[1]["metrics_file"]["lines"], 1);

    // Without a socket there is one line, the last.
    Rvmm::guest("hello").arg("--metrics-path").arg(&path).run().assert_clean();
    assert_eq!(lines().len(), 3);
}

#[test]
fn a_pipe_that_nobody_reads_holds_nobody_up() {
    require_kvm!();
    let socket = ApiSocket::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    process::make_fifo(&path);
    let mut running = guest("spin-forever", &socket).arg("--metrics-path").arg(&path).launch();
    let mut connection = socket.connect();
    for _ in 0..200 {
        connection.ask("PUT", "/actions", r#"{"action_type": "FlushMetrics"}"#).assert_done();
    }
    let metrics = socket.get("/rvmm/metrics.json").json();
    let (lines, lost) = (&metrics["metrics_file"]["lines"], &metrics["metrics_file"]["lost_lines"]);
    assert!(lines.as_u64().unwrap() > 0 && lost.as_u64().unwrap() > 0, "{lines} {lost}");
    running.signal(libc::SIGTERM);
    assert_eq!(running.end().code(), 128 + libc::SIGTERM);
}

#[test]
fn metrics_are_not_written_over_what_is_the_guests() {
    let disk = Disk::new(8, "data");
    let refused = Rvmm::guest("hello").disk(&disk.path(), "").arg("--metrics-path").arg(disk.path()).run();
    refused.assert_refused(1, &["disk.img", "the guest has it"]);
    assert_eq!(disk.content().len(), 8 * 512);
    let refused = Rvmm::guest("hello").args(["--metrics-path", "/nowhere/at/all"]).run();
    refused.assert_refused(1, &["/nowhere/at/all"]);
}
