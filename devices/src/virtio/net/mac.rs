//! MAC addresses, given or generated.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The address of one Ethernet interface: neither a group of them nor none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress([u8; 6]);

/// Why an interface cannot have this address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MacAddressError {
    /// Not six bytes.
    #[error("MAC address '{text}' is malformed: write six bytes in hexadecimal, such as 02:00:00:00:00:01")]
    Malformed {
        /// What was given.
        text: String,
    },
    /// Bit 0 of the first byte is set.
    #[error(
        "MAC address '{text}' is a multicast address, which no interface can have: its first byte must be even"
    )]
    Multicast {
        /// What was given.
        text: String,
    },
    /// All bytes are 0.
    #[error("MAC address '{text}' is all zeroes, which no interface can have")]
    Zero {
        /// What was given.
        text: String,
    },
}

impl MacAddress {
    /// Bit 0 of the first byte: the address of a group.
    const MULTICAST: u8 = 1;
    /// Bit 1 of the first byte: assigned by whoever runs the network, not by a manufacturer.
    const LOCAL: u8 = 2;

    /// The six bytes in the order in which they are sent.
    pub fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// A locally administered address that is the same whenever `names` are: 46 bits of their hash.
    pub fn derived_from(names: &[&[u8]]) -> Self {
        // FNV-1a of 64 bits, with a byte between the names that no name has.
        let bytes = names.iter().flat_map(|name| name.iter().copied().chain([0]));
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        // Its low bits depend on its input better than its high ones.
        let [first, second, third, fourth, fifth, sixth, ..] = (hash ^ hash >> 32).to_le_bytes();
        Self([first & !Self::MULTICAST | Self::LOCAL, second, third, fourth, fifth, sixth])
    }
}

impl TryFrom<[u8; 6]> for MacAddress {
    type Error = MacAddressError;

    fn try_from(bytes: [u8; 6]) -> Result<Self, MacAddressError> {
        let [first, ..] = bytes;
        let address = Self(bytes);
        if first & Self::MULTICAST != 0 {
            return Err(MacAddressError::Multicast { text: address.to_string() });
        }
        if bytes == [0; 6] {
            return Err(MacAddressError::Zero { text: address.to_string() });
        }
        Ok(address)
    }
}

impl FromStr for MacAddress {
    type Err = MacAddressError;

    fn from_str(text: &str) -> Result<Self, MacAddressError> {
        let malformed = || MacAddressError::Malformed { text: text.to_owned() };
        let mut bytes = [0; 6];
        let mut fields = text.split(':');
        for byte in &mut bytes {
            let field = fields.next().filter(|field| field.len() == 2).ok_or_else(malformed)?;
            if !field.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(malformed());
            }
            *byte = u8::from_str_radix(field, 16).map_err(|_| malformed())?;
        }
        if fields.next().is_some() {
            return Err(malformed());
        }
        Self::try_from(bytes)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (byte, separator) in self.0.iter().zip(["", ":", ":", ":", ":", ":"]) {
            write!(formatter, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

impl Serialize for MacAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
