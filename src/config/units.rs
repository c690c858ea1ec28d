//! Quantities with their units: `"64MiB"`, `"50ms"`.

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

/// A number of bytes; TOML takes `"64MiB"`, `"1GiB"`, `"512KiB"`, `"100B"` or a bare integer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// So many mebibytes.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    /// So many gibibytes.
    pub const fn gib(n: u64) -> Self {
        Self(n << 30)
    }
    /// As a count of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(_deserializer: D) -> Result<Self, D::Error> {
        unimplemented!()
    }
}

/// `#[serde(with = "units::duration")]`: `"50ms"`, `"10s"`, `"5m"`, `"24h"`, `"7d"`.
pub mod duration {
    use super::*;

    /// Reads a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(_deserializer: D) -> Result<Duration, D::Error> {
        unimplemented!()
    }
}

/// Reads addresses or networks in CIDR notation.
pub fn networks<'de, D: Deserializer<'de>>(_deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    unimplemented!()
}
