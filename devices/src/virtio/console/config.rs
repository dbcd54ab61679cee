//! The key `console` of a configuration, which is rvmm's own: the REST API that it otherwise follows has no such device.

use serde::{Deserialize, Serialize};

/// The configuration of a virtio console. Where its bytes go is for the VMM to say, not for the VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsoleConfig {}
