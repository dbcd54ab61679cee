//! What network interfaces of one VM must not share.

use std::collections::HashMap;

use super::{ConfigError, NetConfig};

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
        for what in tap.chain(ports.map(|port| format!("published port {port}"))) {
            if let Some(first) = owners.insert(what.clone(), id) {
                return Err(ConfigError::SharedNet { first: first.to_owned(), second: id.to_owned(), what });
            }
        }
    }
    Ok(())
}
