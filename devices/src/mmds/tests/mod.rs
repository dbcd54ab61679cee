//! The service as a guest sees it, without a network device: `store` and `token` by themselves, `http` request by request,
//! `hostile` frame by frame. With a device: `virtio::net::tests::metadata`.

pub(crate) mod guest;
mod hostile;
mod http;
mod store;

use serde_json::json;

use super::*;

fn service(version: MmdsVersion, document: serde_json::Value) -> Mmds {
    let store = Arc::new(MmdsStore::default());
    store.put(document).unwrap();
    Mmds::new(&config(version), store)
}

fn config(version: MmdsVersion) -> MmdsConfig {
    MmdsConfig {
        network_interfaces: vec!["net0".to_owned()],
        version,
        ipv4_address: None,
        imds_compat: false,
    }
}

#[test]
fn a_configuration_has_defaults_and_the_names_of_the_api() {
    let config: MmdsConfig = serde_json::from_value(json!({"network_interfaces": ["net0"]})).unwrap();
    assert_eq!(
        (config.version, config.address(), config.imds_compat),
        (MmdsVersion::V1, Ipv4Addr::new(169, 254, 169, 254), false)
    );
    let given = json!({"network_interfaces": ["net0"], "version": "V2", "ipv4_address": "169.254.170.2", "imds_compat": true});
    let config: MmdsConfig = serde_json::from_value(given.clone()).unwrap();
    assert_eq!(serde_json::to_value(config).unwrap(), given);
    for wrong in [
        json!({}),
        json!({"network_interfaces": ["net0"], "version": "V3"}),
        json!({"network_interfaces": ["net0"], "ipv4_address": "169.254.170"}),
        json!({"network_interfaces": ["net0"], "colour": "red"}),
    ] {
        serde_json::from_value::<MmdsConfig>(wrong.clone()).expect_err(&wrong.to_string());
    }
}

#[test]
fn what_cannot_be_is_refused_with_its_value() {
    let tap = |id: &str, vhost| crate::virtio::net::NetConfig {
        iface_id: id.to_owned(),
        host_dev_name: Some("tap0".to_owned()),
        vhost,
        ..Default::default()
    };
    let interfaces = [tap("net0", false), tap("fast", true)];
    let check = |ids: &[&str], address: Option<[u8; 4]>| {
        let config = MmdsConfig {
            network_interfaces: ids.iter().map(ToString::to_string).collect(),
            ipv4_address: address.map(Ipv4Addr::from),
            ..config(MmdsVersion::V1)
        };
        config.validate(&interfaces).map_err(|error| error.to_string())
    };
    check(&["net0"], None).unwrap();
    check(&["net0"], Some([169, 254, 1, 0])).unwrap();
    check(&["net0"], Some([169, 254, 254, 255])).unwrap();
    for (ids, address, finding) in [
        (&[][..], None, "network_interfaces is empty"),
        (&["net0", "net1"], None, "no network interface \"net1\"; there are: net0, fast"),
        (&["fast"], None, "\"fast\" has vhost"),
        (&["net0"], Some([10, 0, 0, 1]), "10.0.0.1 is not between"),
        (&["net0"], Some([169, 254, 0, 255]), "169.254.0.255 is not between"),
        (&["net0"], Some([169, 254, 255, 0]), "169.254.255.0 is not between"),
    ] {
        let error = check(ids, address).unwrap_err();
        assert!(error.contains(finding), "{error}");
    }
}
