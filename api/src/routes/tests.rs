use serde_json::{Value, json};
use vmm::config::{CreateSnapshot, Part, SnapshotType};
use vmm::controller::{DriveUpdate, Instance, OnReset, State};

use super::*;

/// What the VM is asked for.
#[track_caller]
fn asked(method: &str, path: &str, body: &str) -> Request {
    match Call::parse(method, path, body.as_bytes()) {
        Ok(Call::Ask(request, _)) => request,
        other => panic!("{method} {path} {body}: {other:?}"),
    }
}

/// Why the request is refused, as the client reads it.
#[track_caller]
fn refused(method: &str, path: &str, body: &str) -> String {
    let fault = Call::parse(method, path, body.as_bytes()).expect_err(path);
    let reply = Reply::from(fault);
    assert_eq!((reply.status.as_u16(), reply.content_type), (400, Some("application/json")));
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    body["fault_message"].as_str().unwrap().to_owned()
}

#[test]
fn each_path_asks_the_vm_for_what_it_names() {
    assert_eq!(asked("GET", "/", ""), Request::GetInstance);
    assert_eq!(asked("GET", "/vm/config", ""), Request::GetConfig);
    assert_eq!(asked("GET", "/machine-config", ""), Request::GetConfig);
    assert_eq!(asked("GET", "/balloon", ""), Request::GetBalloon);
    assert_eq!(asked("GET", "/balloon/statistics", ""), Request::GetBalloonStatistics);
    assert_eq!(asked("GET", "/rvmm/metrics", ""), Request::GetMetrics);
    assert_eq!(asked("GET", "/rvmm/metrics.json", ""), Request::GetMetrics);
    assert_eq!(asked("PATCH", "/vm", r#"{"state": "Paused"}"#), Request::Pause);
    assert_eq!(asked("PATCH", "/vm", r#"{"state": "Resumed"}"#), Request::Resume);
    for (action, request) in [
        ("InstanceStart", Request::Start),
        ("SendCtrlAltDel", Request::SendCtrlAltDel),
        ("FlushMetrics", Request::FlushMetrics),
    ] {
        assert_eq!(asked("PUT", "/actions", &json!({"action_type": action}).to_string()), request);
    }
    let press = r#"{"action_type": "PressPowerButton"}"#;
    assert_eq!(asked("PUT", "/rvmm/actions", press), Request::PressPowerButton);
    assert_eq!(asked("GET", "/rvmm/instance", ""), Request::GetInstance);
    let drive =
        r#"{"drive_id": "a", "path_on_host": "b", "rate_limiter": {"ops": {"size": 1, "refill_time": 2}}}"#;
    let Request::UpdateDrive(DriveUpdate { drive_id, path_on_host, rate_limiter }) =
        asked("PATCH", "/drives/a", drive)
    else {
        panic!("not a drive's update");
    };
    assert_eq!((drive_id.as_str(), path_on_host), ("a", Some("b".into())));
    assert_eq!(rate_limiter.unwrap().ops.unwrap().refill_time, 2);
    let net = r#"{"iface_id": "eth0", "tx_rate_limiter": {}}"#;
    assert!(matches!(asked("PATCH", "/network-interfaces/eth0", net), Request::UpdateNet(_)));
    assert!(matches!(asked("PATCH", "/balloon", r#"{"amount_mib": 4294967295}"#), Request::UpdateBalloon(_)));
    let statistics = r#"{"stats_polling_interval_s": 5}"#;
    assert!(matches!(asked("PATCH", "/balloon/statistics", statistics), Request::UpdateBalloonStatistics(_)));
}

#[test]
fn a_slash_at_the_end_makes_no_difference() {
    assert_eq!(asked("GET", "/vm/config/", ""), Request::GetConfig);
    assert_eq!(asked("GET", "", ""), Request::GetInstance);
}

#[test]
fn what_is_no_endpoint_is_named_with_its_method() {
    for (method, path) in [
        ("GET", "/nothing"),
        ("PUT", "/"),
        ("DELETE", "/drives/a"),
        ("POST", "/actions"),
        ("get", "/"),
        ("GET", "/vm/config/more"),
        ("PATCH", "/drives"),
        ("PATCH", "/drives/a/b"),
        ("PUT", "/vm"),
        ("GET", "/rvmm"),
        ("GET", "//vm//config"),
    ] {
        let message = refused(method, path, "");
        assert_eq!(message, format!("Invalid request method and/or path: {method} {path}."));
    }
}

#[test]
fn each_resource_is_a_part_of_the_configuration() {
    let part = |path: &str, body: Value| match asked("PUT", path, &body.to_string()) {
        Request::Configure(part) => *part,
        other => panic!("{path}: {other:?}"),
    };
    assert!(matches!(part("/boot-source", json!({"kernel_image_path": "k"})), Part::BootSource(_)));
    assert!(matches!(part("/machine-config", json!({"vcpu_count": 1, "mem_size_mib": 1})), Part::Machine(_)));
    assert!(matches!(part("/drives/a", json!({"drive_id": "a", "is_root_device": true})), Part::Drive(_)));
    let net = json!({"iface_id": "a", "host_dev_name": "tap0"});
    assert!(matches!(part("/network-interfaces/a", net), Part::Net(_)));
    assert!(matches!(part("/vsock", json!({"guest_cid": 3, "uds_path": "v"})), Part::Vsock(_)));
    assert!(matches!(part("/balloon", json!({"amount_mib": 1, "deflate_on_oom": true})), Part::Balloon(_)));
    assert!(matches!(part("/cpu-config", json!({"msr_modifiers": []})), Part::Cpu(_)));
    assert!(matches!(part("/entropy", json!({})), Part::Entropy(_)));
    assert!(matches!(part("/serial", json!({"serial_out_path": "s"})), Part::Serial(_)));
    assert!(matches!(part("/metrics", json!({"metrics_path": "m"})), Part::Metrics(_)));
    assert!(matches!(asked("PUT", "/logger", "{}"), Request::SetLogger(_)));
    let some = asked("PATCH", "/machine-config", r#"{"vcpu_count": 2}"#);
    assert!(matches!(some, Request::Configure(part) if matches!(*part, Part::MachineUpdate(_))));
    assert!(
        refused("PUT", "/drives/a", r#"{"drive_id": "b", "is_root_device": true}"#)
            .contains("does not match")
    );
    assert!(refused("PUT", "/pmem/a", "{}").contains("not supported yet"));
}

#[test]
fn reads_take_no_body_and_writes_need_one() {
    assert_eq!(refused("GET", "/", "{}"), "GET request cannot have a body.");
    assert_eq!(refused("PUT", "/actions", ""), "Empty PUT request.");
    assert_eq!(refused("PATCH", "/drives/a", ""), "Empty PATCH request.");
}

#[test]
fn wrong_bodies_are_refused_by_what_is_wrong_with_them() {
    let deep = "[".repeat(10_000);
    for (method, path, body, part) in [
        ("PATCH", "/vm", "{", "EOF while parsing"),
        ("PATCH", "/vm", "{} {}", "missing field `state`"),
        ("PATCH", "/vm", r#"{"state": "Paused"} x"#, "trailing characters"),
        ("PATCH", "/vm", r#"{"state": "Stopped"}"#, "unknown variant `Stopped`"),
        ("PATCH", "/vm", r#"{"state": "Paused", "colour": 1}"#, "unknown field `colour`"),
        ("PATCH", "/vm", r#"{"state": "Paused", "state": "Paused"}"#, "duplicate field `state`"),
        ("PATCH", "/vm", r#"{"state": 1}"#, "expected value"),
        ("PATCH", "/vm", "\u{feff}{}", "expected value"),
        ("PUT", "/actions", r#"{"action_type": "Explode"}"#, "unknown variant `Explode`"),
        ("PATCH", "/drives/a", r#"{"drive_id": "b"}"#, "does not match"),
        ("PATCH", "/drives/a", r#"{"path_on_host": "b"}"#, "missing field `drive_id`"),
        ("PATCH", "/network-interfaces/a", r#"{"iface_id": "b"}"#, "does not match"),
        ("PATCH", "/balloon", r#"{"amount_mib": -1}"#, "invalid value"),
        ("PATCH", "/balloon", r#"{"amount_mib": 4294967296}"#, "invalid value"),
        ("PATCH", "/balloon/statistics", r#"{"stats_polling_interval_s": 65536}"#, "invalid value"),
        ("PATCH", "/balloon", &deep, "expected an object"),
        (
            "PUT",
            "/entropy",
            r#"{"rate_limiter": []}"#,
            "rate_limiter: invalid type: an array, expected an object",
        ),
        ("PUT", "/cpu-config", r#"{"msr_modifiers": [{"addr": "16"}]}"#, "\"16\" is no number"),
        ("PUT", "/cpu-config", r#""emulated""#, "invalid type: string"),
        ("PUT", "/machine-config", r#"{"cpu_template": "T2"}"#, "cpu-config"),
    ] {
        let message = refused(method, path, body);
        assert!(message.contains(part), "{body}: {message}");
    }
    let not_unicode = Call::parse("PATCH", "/vm", b"{\"state\": \"\xff\"}").unwrap_err();
    assert!(matches!(not_unicode, Fault::Json(_)), "{not_unicode}");
}

#[test]
fn a_snapshot_is_created_and_loaded_by_files_or_by_a_folder() {
    let Request::CreateSnapshot(create) =
        asked("PUT", "/snapshot/create", r#"{"snapshot_path": "d", "live": true}"#)
    else {
        panic!("not a snapshot");
    };
    assert_eq!(*create, CreateSnapshot { live: true, ..CreateSnapshot::full("d".as_ref()) });
    let files = r#"{"snapshot_path": "s", "mem_file_path": "m", "snapshot_type": "Diff"}"#;
    let Request::CreateSnapshot(create) = asked("PUT", "/snapshot/create", files) else {
        panic!("not a snapshot");
    };
    assert_eq!((create.mem_file_path, create.snapshot_type), (Some("m".into()), SnapshotType::Diff));
    for body in [
        json!({"snapshot_path": "d"}),
        json!({"snapshot_path": "s", "mem_file_path": "m", "enable_diff_snapshots": true}),
        json!({"snapshot_path": "s", "mem_backend": {"backend_type": "Uffd", "backend_path": "u"},
            "resume_vm": true, "network_overrides": [{"iface_id": "eth0", "host_dev_name": "tap1"}],
            "vsock_override": {"uds_path": "v"}, "clock_realtime": false, "huge_pages": "2M"}),
    ] {
        let asked = asked("PUT", "/snapshot/load", &body.to_string());
        assert!(matches!(asked, Request::LoadSnapshot(_)), "{body}: {asked:?}");
    }
}

#[test]
fn a_snapshot_whose_files_are_not_named_or_named_twice_is_refused() {
    for (path, body, part) in [
        ("create", json!({"mem_file_path": "m"}), "missing field `snapshot_path`"),
        ("create", json!({"snapshot_path": ""}), "snapshot_path is empty"),
        ("create", json!({"snapshot_path": "s", "mem_file_path": ""}), "mem_file_path is empty"),
        ("create", json!({"snapshot_path": "s", "mem_file_path": "s"}), "the same as snapshot_path"),
        ("create", json!({"snapshot_path": "s", "snapshot_type": "Half"}), "unknown variant `Half`"),
        ("create", json!({"snapshot_path": "s", "base": "", "snapshot_type": "Diff"}), "base is empty"),
        ("create", json!({"snapshot_path": "s", "version": "1"}), "unknown field `version`"),
        ("load", json!({"snapshot_path": ""}), "snapshot_path is empty"),
        ("load", json!({"snapshot_path": "s", "mem_file_path": ""}), "mem_file_path is empty"),
        (
            "load",
            json!({"snapshot_path": "s", "mem_file_path": "m",
                "mem_backend": {"backend_type": "File", "backend_path": "m"}}),
            "mem_file_path and mem_backend exclude each other",
        ),
        (
            "load",
            json!({"snapshot_path": "s", "mem_backend": {"backend_type": "File", "backend_path": ""}}),
            "mem_backend.backend_path is empty",
        ),
        (
            "load",
            json!({"snapshot_path": "s", "mem_backend": {"backend_type": "Nfs"}}),
            "unknown variant `Nfs`",
        ),
        (
            "load",
            json!({"snapshot_path": "s", "drive_overrides": [{"drive_id": "a", "path_on_host": ""}]}),
            "is empty",
        ),
        ("load", json!({"snapshot_path": "s", "vsock_override": {"uds_path": ""}}), "uds_path is empty"),
    ] {
        let message = refused("PUT", &format!("/snapshot/{path}"), &body.to_string());
        assert!(message.contains(part), "{body}: {message}");
    }
}

#[test]
fn what_the_vm_answers_becomes_json_with_the_names_of_the_wire() {
    let Ok(Call::Ask(_, to_reply)) = Call::parse("GET", "/", b"") else { panic!("not a question") };
    let reply = to_reply(Response::Instance(Instance {
        id: "web".to_owned(),
        state: State::NotStarted,
        on_reset: OnReset::Exit,
    }));
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let expected = json!({"id": "web", "state": "Not started", "vmm_version": env!("CARGO_PKG_VERSION"), "app_name": "rvmm"});
    assert_eq!((reply.status.as_u16(), body), (200, expected));
    // An answer to something else is our mistake, not the client's.
    assert_eq!(to_reply(Response::Done).status.as_u16(), 500);

    let Ok(Call::Ask(_, to_reply)) = Call::parse("PATCH", "/vm", br#"{"state": "Paused"}"#) else {
        panic!("not a question")
    };
    let reply = to_reply(Response::Done);
    assert_eq!((reply.status.as_u16(), reply.body.len(), reply.content_type), (204, 0, None));
}

#[test]
fn the_version_is_that_of_the_api() {
    let Ok(Call::Answered(reply)) = Call::parse("GET", "/version", b"") else { panic!("not answered") };
    assert_eq!(reply.body, br#"{"firecracker_version":"1.17.0"}"#);
}
