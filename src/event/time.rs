//! Times as others write them.

use jiff::Timestamp;

/// The digits of a second's fraction that a [`Timestamp`] keeps.
const DIGITS: usize = 9;

/// Reads an RFC 3339 time, whose fraction of a second may have any number of digits. Where those that are
/// cut off are not all zero, the last that is kept is not zero either: rounded down or up to milliseconds,
/// it is what the whole time would be.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    text.parse().ok().or_else(|| shortened(text)?.parse().ok())
}

/// Reads a bound of a query: a time as [`parse_time`] takes it, or a date alone (midnight UTC). RFC 3339 goes
/// on for a day and a half after the last time that can be counted: for ever, in a query.
pub fn parse_bound(text: &str) -> Option<Timestamp> {
    let whole = if text.len() == 10 {
        format!("{text}T00:00:00Z")
    } else {
        text.to_owned()
    };
    parse_time(&whole).or_else(|| {
        let last_days = ["9999-12-30T", "9999-12-31T"];
        let end = last_days.iter().find_map(|day| whole.strip_prefix(day))?;
        parse_time(&format!("9999-12-01T{end}")).map(|_| Timestamp::MAX)
    })
}

/// The same time with as many digits as are kept; `None` when it has fewer.
fn shortened(text: &str) -> Option<String> {
    let (start, rest) = text.split_once(['.', ','])?;
    let is_no_digit = |each: char| !each.is_ascii_digit();
    let (digits, zone) = rest.split_at(rest.find(is_no_digit).unwrap_or(rest.len()));
    let (kept, cut) = digits.split_at_checked(DIGITS)?;
    let kept = match kept.strip_suffix('0') {
        Some(front) if cut.contains(|each: char| each != '0') => format!("{front}1"),
        _ => kept.to_owned(),
    };
    Some(format!("{start}.{kept}{zone}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_has_any_number_of_digits() {
        for (given, kept) in [
            ("39Z", "39Z"),
            ("39.1239Z", "39.1239Z"),
            ("39.123456789Z", "39.123456789Z"),
            ("39.1234567899+00:00", "39.123456789Z"),
            ("39.123000000000Z", "39.123Z"),
            ("39.12300000000000001Z", "39.123000001Z"),
            ("39.0009999999999Z", "39.000999999Z"),
            ("39,1234567891Z", "39.123456789Z"),
            ("39.9999999999999999999Z", "39.999999999Z"),
        ] {
            let given = parse_time(&format!("2026-11-24T04:05:{given}"));
            let kept = format!("2026-11-24T04:05:{kept}").parse().unwrap();
            assert_eq!(given, Some(kept));
        }
    }

    #[test]
    fn what_is_no_time_stays_none() {
        for text in [
            "",
            "soon",
            "2026-11-24T04:05:39.Z",
            "2026-11-24T04:05:39.1234567891",
            "2026-11-24T04:05:39.1234567891ü",
            "2026-11-24T04:05:61.1234567891Z",
            "2026-11-24T04:05:39.1234567891.1Z",
        ] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
