//! The metadata service, as far as the host sees it.

use serde_json::json;

use super::guest;
use crate::support::Rvmm;
use crate::support::api::ApiSocket;
use crate::support::disk::Disk;
use crate::support::kvm::require_kvm;

#[test]
fn metadata_is_written_read_and_changed_before_the_vm_starts_and_while_it_runs() {
    require_kvm!();
    for running in [false, true] {
        let socket = ApiSocket::new();
        let rvmm = if running {
            guest("hlt-forever", &socket)
        } else {
            Rvmm::new().arg("--api-sock").arg(socket.path())
        };
        let _running = rvmm.launch();
        assert_eq!(socket.get("/mmds").json(), json!({}));
        socket.patch("/mmds", &json!({"a": 1})).assert_refused("not initialized");
        socket.put("/mmds", &json!({"a": {"b": 1}, "c": [1]})).assert_done();
        socket.patch("/mmds", &json!({"a": {"b": null, "d": "e"}})).assert_done();
        let metadata = json!({"a": {"d": "e"}, "c": [1]});
        assert_eq!(socket.get("/mmds").json(), metadata);
        socket.put("/mmds", &json!([1, 2])).assert_refused("not an array");
        socket.connect().ask("PUT", "/mmds", "{").assert_refused("EOF");
        assert_eq!(socket.get("/mmds").json(), metadata);
    }
}

#[test]
fn metadata_that_is_too_long_is_refused_as_such_and_changes_nothing() {
    require_kvm!();
    let socket = ApiSocket::new();
    let rvmm = Rvmm::new().arg("--api-sock").arg(socket.path()).arg("--mmds-size-limit").arg("30");
    let _running = rvmm.launch();
    let longest = json!({"a": "0123456789012345678901"});
    assert_eq!(longest.to_string().len(), 30);
    socket.put("/mmds", &longest).assert_done();
    for answer in [
        socket.put("/mmds", &json!({"a": "01234567890123456789012"})),
        socket.patch("/mmds", &json!({"b": 1})),
    ] {
        assert_eq!(answer.status, 413, "{answer:?}");
        assert!(answer.body.contains("its limit is 30"), "{answer:?}");
    }
    assert_eq!(socket.get("/mmds").json(), longest);
}

#[test]
fn the_service_is_configured_before_the_vm_starts_for_interfaces_that_are_there() {
    require_kvm!();
    let socket = ApiSocket::new();
    let _running = Rvmm::new().arg("--api-sock").arg(socket.path()).launch();
    let config = |more: serde_json::Value| {
        let mut config = json!({"network_interfaces": ["eth0"]});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    socket.put("/mmds/config", &config(json!({}))).assert_refused("no network interface \"eth0\"");
    for (id, vhost) in [("eth0", false), ("fast", true)] {
        let net = json!({"iface_id": id, "host_dev_name": format!("tap-{id}"), "vhost": vhost});
        socket.put(&format!("/network-interfaces/{id}"), &net).assert_done();
    }
    assert_eq!(socket.get("/vm/config").json()["mmds-config"], json!(null));
    socket.put("/mmds/config", &json!({"network_interfaces": []})).assert_refused("is empty");
    socket.put("/mmds/config", &json!({"network_interfaces": ["eth0", "fast"]})).assert_refused("vhost");
    socket.put("/mmds/config", &config(json!({"ipv4_address": "10.0.0.1"}))).assert_refused("10.0.0.1");
    socket.put("/mmds/config", &config(json!({"ipv4_address": ""}))).assert_refused("IPv4");
    socket.put("/mmds/config", &config(json!({"version": "V3"}))).assert_refused("unknown variant `V3`");
    socket
        .put("/mmds/config", &config(json!({"version": "V2", "ipv4_address": "169.254.170.2"})))
        .assert_done();
    let expected = json!({
        "network_interfaces": ["eth0"], "version": "V2", "ipv4_address": "169.254.170.2", "imds_compat": false
    });
    assert_eq!(socket.get("/vm/config").json()["mmds-config"], expected);

    let socket = ApiSocket::new();
    let _running = guest("hlt-forever", &socket).launch();
    socket.put("/mmds/config", &config(json!({}))).assert_refused("the VM is running");
}

#[test]
fn metadata_comes_from_a_file_as_well() {
    require_kvm!();
    let socket = ApiSocket::new();
    let file = Disk::with_content(br#"{"latest": {"meta-data": {"id": "i-1"}}}"#);
    let _running = guest("hlt-forever", &socket).arg("--metadata").arg(file.path()).launch();
    assert_eq!(socket.get("/mmds").json()["latest"]["meta-data"]["id"], "i-1");

    for (content, limit, finding) in
        [("{", "100", "EOF"), ("[]", "100", "not an array"), (r#"{"a":"0123"}"#, "5", "its limit is 5")]
    {
        let file = Disk::with_content(content.as_bytes());
        let rvmm = Rvmm::guest("hello").arg("--metadata").arg(file.path());
        let ended = rvmm.args(["--mmds-size-limit", limit]).run();
        assert_eq!(ended.code(), 1);
        assert!(ended.stderr.contains("--metadata ") && ended.stderr.contains(finding), "{ended:#?}");
    }
}

#[test]
fn metadata_that_no_interface_leads_to_is_warned_of() {
    require_kvm!();
    let file = Disk::with_content(br#"{"id": "i-1"}"#);
    let ended = Rvmm::guest("hello").arg("--metadata").arg(file.path()).run();
    assert_eq!(ended.code(), 0);
    assert_eq!(ended.stderr.lines().count(), 1, "{ended:#?}");
    assert!(ended.stderr.contains("--metadata ") && ended.stderr.contains("mmds-config"), "{ended:#?}");
}
