//! Configurations, and what the guest reads of them.

use super::*;

fn parse(json: &str) -> Result<NetConfig, String> {
    let config: NetConfig = serde_json::from_str(json).map_err(|error| error.to_string())?;
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

#[test]
fn a_tap_or_passt_with_the_names_of_the_api() {
    let tap = parse(
        r#"{"iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "06:00:AC:10:00:02", "mtu": 9000,
            "rx_rate_limiter": {"bandwidth": {"size": 1, "refill_time": 1}}}"#,
    )
    .unwrap();
    assert_eq!(tap.guest_mac.unwrap().bytes(), [6, 0, 0xac, 0x10, 0, 2]);
    assert_eq!(serde_json::from_str::<NetConfig>(&serde_json::to_string(&tap).unwrap()).unwrap(), tap);
    let user = parse(
        r#"{"iface_id": "eth0", "user": {"publish": ["8080:80", "127.0.0.1:53:53/udp", "[::1]:1:2/tcp"]}}"#,
    )
    .unwrap();
    let publish: Vec<String> = user.user.unwrap().publish.iter().map(ToString::to_string).collect();
    assert_eq!(publish, ["8080:80", "127.0.0.1:53:53/udp", "[::1]:1:2"]);
}

#[test]
fn what_cannot_be_is_refused_with_its_value() {
    for (json, finding) in [
        (r#"{"iface_id": "e"}"#, "one of host_dev_name (a tap) and user (passt)"),
        (r#"{"iface_id": "e", "host_dev_name": "t", "user": {}}"#, "not both"),
        (r#"{"iface_id": "", "host_dev_name": "t"}"#, "interface id"),
        (r#"{"iface_id": "a/b", "host_dev_name": "t"}"#, "interface id"),
        (r#"{"iface_id": "e", "host_dev_name": ""}"#, "name of a tap"),
        (r#"{"iface_id": "e", "host_dev_name": "sixteen-letters."}"#, "1 to 15 characters"),
        (r#"{"iface_id": "e", "host_dev_name": "tap%d"}"#, "tap%d"),
        (r#"{"iface_id": "e", "host_dev_name": "a/b"}"#, "a/b"),
        (r#"{"iface_id": "e", "host_dev_name": ".."}"#, "name of a tap"),
        (r#"{"iface_id": "e", "host_dev_name": "t", "mtu": 67}"#, "an MTU of 67: 68 to 65535"),
        (r#"{"iface_id": "e", "host_dev_name": "t", "mtu": 65536}"#, "an MTU of 65536: 68 to 65535"),
        (r#"{"iface_id": "e", "user": {}, "mtu": 65521}"#, "68 to 65520"),
        (r#"{"iface_id": "e", "host_dev_name": "t", "guest_mac": "01:00:00:00:00:00"}"#, "multicast"),
        (r#"{"iface_id": "e", "host_dev_name": "t", "guest_mac": "ff:ff:ff:ff:ff:ff"}"#, "multicast"),
        (r#"{"iface_id": "e", "host_dev_name": "t", "guest_mac": "00:00:00:00:00:00"}"#, "all zeroes"),
        (r#"{"iface_id": "e", "host_dev_name": "t", "guest_mac": "02:00:00:00:00"}"#, "malformed"),
        (r#"{"iface_id": "e", "host_dev_name": "t", "guest_mac": "02-00-00-00-00-01"}"#, "malformed"),
        (r#"{"iface_id": "e", "host_dev_name": "t", "guest_mac": "02:00:00:00:00:+1"}"#, "malformed"),
        (r#"{"iface_id": "e", "user": {"publish": ["80"]}}"#, "guest's port is missing"),
        (r#"{"iface_id": "e", "user": {"publish": ["0:80"]}}"#, "1 to 65535"),
        (r#"{"iface_id": "e", "user": {"publish": ["80:65536"]}}"#, "1 to 65535"),
        (r#"{"iface_id": "e", "user": {"publish": ["80:+1"]}}"#, "1 to 65535"),
        (r#"{"iface_id": "e", "user": {"publish": ["80:80/sctp"]}}"#, "neither tcp nor udp"),
        (r#"{"iface_id": "e", "user": {"publish": ["localhost:80:80"]}}"#, "neither IPv4 nor [IPv6]"),
        (r#"{"iface_id": "e", "user": {"publish": ["::1:80:80"]}}"#, "neither IPv4 nor [IPv6]"),
        (r#"{"iface_id": "e", "user": {"publish": ["80:80", "80:81"]}}"#, "TCP port 80 is published twice"),
        (r#"{"iface_id": "e", "user": {}, "vhost": true}"#, "vhost is for a tap"),
        (
            r#"{"iface_id": "e", "host_dev_name": "t", "vhost": true, "rx_rate_limiter": {}}"#,
            "without rate limiters",
        ),
        (r#"{"iface_id": "e", "user": {"ports": []}}"#, "unknown field `ports`"),
    ] {
        let error = parse(json).unwrap_err();
        assert!(error.contains(finding), "{json}: {error}");
    }
    parse(r#"{"iface_id": "e", "user": {"publish": ["80:80", "80:80/udp"]}}"#).unwrap();
}

#[test]
fn the_guest_reads_its_address_and_mtu() {
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let config = NetConfig { mtu: Some(9000), ..config() };
    let net = Fixture::new(&config, Peer::Stream(theirs), ());
    let expected = [2, 0, 0, 0, 0, 7, 1, 0, 1, 0, 0x28, 0x23];
    assert_eq!(net.harness.config(0, 12), expected);
    assert_eq!(net.harness.config(4, 4), expected[4..8]);
    assert_eq!(net.harness.config(12, 4), [0; 4], "past the end");
}

#[test]
fn a_generated_address_is_one_interface_s_own_and_stays() {
    let derive = |names: &[&[u8]]| MacAddress::derived_from(names);
    assert_eq!(derive(&[b"host", b"tap0"]), derive(&[b"host", b"tap0"]));
    assert_ne!(derive(&[b"host", b"tap0"]), derive(&[b"host", b"tap1"]));
    assert_ne!(derive(&[b"host", b"tap0"]), derive(&[b"hos", b"ttap0"]));
    for number in 0..100_u8 {
        let [first, ..] = derive(&[&[number]]).bytes();
        assert_eq!(first & 3, 2, "locally administered, and of one interface");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let user = UserNetConfig {
        publish: vec![format!("127.0.0.1:{port}:80").parse().unwrap()],
        ..Default::default()
    };
    let config = NetConfig { iface_id: "net0".to_owned(), user: Some(user), ..NetConfig::default() };
    let error = NetDevice::open(&config).err().unwrap().to_string();
    assert!(error.contains(&format!("TCP port {port} is taken")), "{error}");
}
