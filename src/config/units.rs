//! Quantities with their units: `"64MiB"`, `"1m30s"`, `"10.0.0.0/8"`.
//!
//! Plain functions from text: the error is a sentence that says what to write instead.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

/// A number of bytes: `"64MiB"`, `"1GiB"`, `"512KiB"`, `"10MB"`, `"100B"` or a bare whole number.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

const BYTE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

const WANTED_BYTES: &str =
    "a size in bytes with its unit, such as \"64MiB\", \"1GiB\", \"512KiB\" or \"10MB\"";

impl ByteSize {
    /// So many kibibytes.
    pub const fn kib(n: u64) -> Self {
        Self(n << 10)
    }
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

impl fmt::Display for ByteSize {
    /// In the largest binary unit that divides it without rest.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = BYTE_UNITS.iter().find(|(name, factor)| {
            name.ends_with("iB") && self.0 != 0 && self.0.is_multiple_of(*factor)
        });
        match unit {
            Some((name, factor)) => write!(f, "{}{name}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl fmt::Debug for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (digits, unit) = split_number(text);
        if digits.is_empty() {
            return Err(WANTED_BYTES.to_owned());
        }
        if unit.starts_with('.') || unit.starts_with(',') {
            return Err(format!("a whole number: {WANTED_BYTES}"));
        }
        let factor = if unit.is_empty() {
            1
        } else {
            BYTE_UNITS
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit))
                .map(|(_, factor)| *factor)
                .ok_or_else(|| WANTED_BYTES.to_owned())?
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| "a size below 16 million TiB".to_owned())
    }
}

const WANTED_DURATION: &str =
    "a duration with its unit, such as \"50ms\", \"10s\", \"5m\", \"24h\", \"7d\" or \"1m30s\"";

/// Longest to shortest: the order in which the parts of `1d12h` stand.
const TIME_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// No duration of this configuration means more than ten years, and arithmetic on instants stays safe.
const LONGEST_MILLIS: u64 = 3_650 * 86_400_000;

/// Reads `"50ms"`, `"10s"`, `"5m"`, `"24h"`, `"7d"` or parts of falling size, `"1m30s"`.
///
/// # Errors
/// The sentence says what to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.starts_with('-') {
        return Err(format!("not less than nothing: {WANTED_DURATION}"));
    }
    if rest.is_empty() {
        return Err(WANTED_DURATION.to_owned());
    }
    let mut total: u64 = 0;
    let mut units_left = &TIME_UNITS[..];
    while !rest.is_empty() {
        let (digits, tail) = split_number(rest);
        if digits.is_empty() {
            return Err(WANTED_DURATION.to_owned());
        }
        let unit_length = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_length);
        if unit.is_empty() && after.is_empty() {
            return Err(add_a_time_unit(digits));
        }
        let Some(index) = units_left.iter().position(|(name, _)| *name == unit) else {
            return Err(WANTED_DURATION.to_owned());
        };
        total = digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(units_left[index].1))
            .and_then(|millis| total.checked_add(millis))
            .filter(|millis| *millis <= LONGEST_MILLIS)
            .ok_or_else(|| "at most \"3650d\"".to_owned())?;
        units_left = &units_left[index + 1..];
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total))
}

/// What to answer to a bare number where a duration is wanted.
pub(crate) fn add_a_time_unit(number: &str) -> String {
    format!(
        "add a unit: \"{number}ms\", \"{number}s\", \"{number}m\", \"{number}h\" or \"{number}d\""
    )
}

/// Writes a duration the way it is read: `1m30s`.
pub fn format_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, factor) in TIME_UNITS {
        if millis >= factor {
            text.push_str(&format!("{}{unit}", millis / factor));
            millis %= factor;
        }
    }
    text
}

/// Reads an address (`"10.1.2.3"`, `"::1"`) or a network (`"10.0.0.0/8"`).
///
/// # Errors
/// The sentence says what to write instead.
pub fn parse_network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    text.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| {
        "an address or a network, such as \"10.1.2.3\", \"10.0.0.0/8\" or \"fd00::/8\"; host names are not looked up"
            .to_owned()
    })
}

fn split_number(text: &str) -> (&str, &str) {
    let length = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, rest) = text.split_at(length);
    (digits, rest.trim_start())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        let cases = [
            ("64MiB", 64 << 20),
            ("1GiB", 1 << 30),
            ("512KiB", 512 << 10),
            ("10MB", 10_000_000),
            ("100B", 100),
            ("4096", 4096),
            ("0", 0),
            (" 64 mib ", 64 << 20),
            ("2TiB", 2 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse::<ByteSize>(), Ok(ByteSize(bytes)), "{text}");
        }
    }

    #[test]
    fn sizes_that_mean_nothing_are_refused() {
        for text in [
            "",
            "MiB",
            "64M",
            "64 Mb ps",
            "-1",
            "1.5GiB",
            "1,5GiB",
            "99999999TiB",
            "18446744073709551616",
        ] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert!(
            "1.5GiB"
                .parse::<ByteSize>()
                .unwrap_err()
                .contains("whole number")
        );
    }

    #[test]
    fn a_size_is_shown_in_its_largest_exact_unit() {
        assert_eq!(ByteSize::mib(64).to_string(), "64MiB");
        assert_eq!(ByteSize::mib(1024).to_string(), "1GiB");
        assert_eq!(ByteSize(1_000_001).to_string(), "1000001B");
        assert_eq!(ByteSize(0).to_string(), "0B");
    }

    #[test]
    fn durations_are_read_with_their_units() {
        let cases = [
            ("50ms", 50),
            ("10s", 10_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("1m30s", 90_000),
            ("1m 30s", 90_000),
            ("1h500ms", 3_600_500),
            ("0s", 0),
        ];
        for (text, millis) in cases {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(millis)),
                "{text}"
            );
        }
    }

    #[test]
    fn durations_without_unit_sign_or_sense_are_refused() {
        let cases = [
            ("10", "add a unit: \"10ms\""),
            ("1m30", "add a unit"),
            ("-5s", "not less than nothing"),
            ("", "a duration with its unit"),
            ("s", "a duration with its unit"),
            ("5min", "a duration with its unit"),
            ("30s1m", "a duration with its unit"),
            ("1s1s", "a duration with its unit"),
            ("1.5s", "a duration with its unit"),
            ("4000d", "at most \"3650d\""),
            ("99999999999999999999s", "at most \"3650d\""),
        ];
        for (text, wanted) in cases {
            let error = parse_duration(text).unwrap_err();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn networks_are_addresses_or_prefixes() {
        assert_eq!(
            parse_network("10.1.2.3").unwrap().to_string(),
            "10.1.2.3/32"
        );
        assert_eq!(
            parse_network("10.1.2.3/8").unwrap().to_string(),
            "10.0.0.0/8"
        );
        assert_eq!(parse_network("::1").unwrap().to_string(), "::1/128");
        for text in ["", "proxy", "10.0.0.0/33", "10.0.0"] {
            assert!(parse_network(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(bytes: u64, millis in 0..LONGEST_MILLIS) {
            let size = ByteSize(bytes);
            prop_assert_eq!(size.to_string().parse::<ByteSize>(), Ok(size));
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = text.parse::<ByteSize>();
            let _ = parse_duration(&text);
            let _ = parse_network(&text);
        }
    }
}
