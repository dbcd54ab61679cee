//! What network interfaces of one VM must not share.

use std::collections::HashMap;

use super::{ConfigError, NetConfig, Publish};

/// Checks each interface, and all of them together.
pub(super) fn validate(interfaces: &[NetConfig], track_dirty_pages: bool) -> Result<(), ConfigError> {
    let mut owners: HashMap<String, &str> = HashMap::new();
    for (number, interface) in interfaces.iter().enumerate() {
        let id = interface.iface_id.as_str();
        if interfaces.iter().take(number).any(|other| other.iface_id == id) {
            return Err(ConfigError::DuplicateNet { id: id.to_owned() });
        }
        interface.validate()?;
        if interface.vhost && track_dirty_pages {
            return Err(ConfigError::VhostAndDirtyPages { id: id.to_owned() });
        }
        let tap = interface.host_dev_name.iter().map(|tap| format!("tap {tap}"));
        let ports = interface.user.iter().flat_map(|user| &user.publish);
        for what in tap.chain(ports.map(published)) {
            if let Some(first) = owners.insert(what.clone(), id) {
                return Err(ConfigError::SharedNet { first: first.to_owned(), second: id.to_owned(), what });
            }
        }
    }
    Ok(())
}

/// What of the host a published port takes; where it leads in the guest makes no difference.
fn published(port: &Publish) -> String {
    let Publish { address, host_port, protocol, .. } = port;
    let address = address.map(|address| format!(" of {address}")).unwrap_or_default();
    format!("published {protocol} port {host_port}{address}")
}
