//! Linux guests that read their metadata.

use serde_json::{Value, json};

use super::guest::COMPLAINTS;
use super::net::{Host, OUTSIDE};
use super::{Guest, require_linux_guests};
use crate::support::api::ApiSocket;
use crate::support::disk::Disk;

/// A tap that is down, and nobody behind it.
const DOWN: &str = "ip tuntap add tap0 mode tap";
/// How a guest without any other network reaches the service.
const ROUTE: &str =
    "ip link set eth0 up; ip address add 192.168.7.7/32 dev eth0; ip route add 169.254.169.254 dev eth0; ";

/// A guest with the interface `net` and a metadata service.
fn guest(host: &Host, net: &Value, version: &str) -> (Guest, [Disk; 2]) {
    let config = json!({
        "network-interfaces": [net],
        "entropy": {},
        "mmds-config": {"network_interfaces": ["net0"], "version": version},
    });
    let user_data = "0123456789".repeat(4000);
    let metadata =
        json!({"latest": {"meta-data": {"id": "i-1", "net": {"mac": "x"}}, "user-data": user_data}});
    let files = [&config, &metadata].map(|content| Disk::with_content(content.to_string().as_bytes()));
    let [config, metadata] = &files;
    let guest = host.guest(|rvmm| Guest::debian_from(rvmm, "6_12"));
    let guest = guest.arg("--config-file").arg(config.path()).arg("--metadata").arg(metadata.path());
    (guest, files)
}

#[test]
fn a_guest_reads_metadata_by_a_tap_that_is_down_and_by_passt() {
    require_linux_guests!();
    for (script, net, parameter, route) in [
        (DOWN, json!({"iface_id": "net0", "host_dev_name": "tap0"}), "rvmm.net=off", ROUTE),
        // By way of its gateway.
        (OUTSIDE, json!({"iface_id": "net0", "user": {}}), "", ""),
    ] {
        let host = Host::new(script);
        let (guest, _files) = guest(&host, &net, "V1");
        let report = guest.parameter(parameter).run(&format!(
            "{route}url=http://169.254.169.254/latest; echo id $(wget -q -O - $url/meta-data/id); \
             echo keys $(wget -q -O - $url/meta-data/); \
             echo json $(wget -q -O - --header 'Accept: application/json' $url/meta-data); \
             echo sum $(wget -q -O - $url/user-data | md5sum); \
             wget -q -O - $url/nothing 2>&1; ping -c 1 169.254.169.254; {COMPLAINTS}"
        ));
        report.assert_no_complaints();
        assert_eq!(report.value("id"), "i-1");
        assert_eq!(report.value("keys"), "id net/");
        assert_eq!(report.value("json"), r#"{"id":"i-1","net":{"mac":"x"}}"#);
        assert_eq!(report.value("sum"), "faa73f41a9fe5ea11bff179c5edcb864 -");
        assert!(report.text().contains("404 Not Found"), "{}", report.text());
        assert!(report.text().contains("1 packets received, 0% packet loss"), "{}", report.text());
    }
}

#[test]
fn a_guest_reads_metadata_with_a_token_and_sees_them_change() {
    require_linux_guests!();
    let host = Host::new(DOWN);
    let socket = ApiSocket::new();
    let (guest, _files) = guest(&host, &json!({"iface_id": "net0", "host_dev_name": "tap0"}), "V2");
    // Nothing is split at blanks, for want of double quotes.
    let mut running = guest.arg("--api-sock").arg(socket.path()).parameter("rvmm.net=off").running(&format!(
        "{ROUTE}IFS=; ask() {{ printf '%s HTTP/1.1\\r\\nConnection: close\\r\\n%s\\r\\n\\r\\n' $1 $2 | nc 169.254.169.254 80; }}; \
         id=/latest/meta-data/id; echo without $(ask GET\\ $id A:b | head -n 1); \
         t=$(ask 'PUT /latest/api/token' 'X-metadata-token-ttl-seconds: 60' | tail -n 1); \
         echo with $(ask GET\\ $id X-metadata-token:$t | tail -n 1); echo now; \
         until wget -q -O - --header X-metadata-token:$t http://169.254.169.254$id | grep -q i-2; do sleep 0.1; done; echo changed"
    )).launch();
    running.wait_for("now\r\n");
    let printed = running.printed().replace('\r', "");
    assert!(printed.contains("without HTTP/1.1 401 Unauthorized\n"), "{printed}");
    assert!(printed.contains("with i-1\n"), "{printed}");
    let counts = socket.get("/rvmm/metrics.json").json()["mmds"].clone();
    assert_eq!((&counts["tokens"], &counts["rx_no_token"]), (&json!(1), &json!(1)), "{counts}");
    socket.patch("/mmds", &json!({"latest": {"meta-data": {"id": "i-2"}}})).assert_done();
    running.wait_for("changed\r\n");
    running.end().assert_clean();
}
