//! Stand-ins for the servers that Daybook reads from, for `daybook demo` and for the tests.
//!
//! Each one behaves as its original was measured to behave, its faults included, and speaks to
//! the pipeline only over what the original offers: HTTP, a file, signed requests. None of them
//! knows anything of the pipeline.
//!
//! Invariants:
//! - *Deterministic*: the same seed gives the same people and the same order of events.
//! - *Accountable*: everything that was promised to the pipeline stands in a [`Tally`], so that
//!   whoever asks afterwards can compare the timeline with it, event by event or count by count.
//! - *Bounded*: with its limits set, a simulator runs for a month in constant memory.

pub mod authentik;
pub mod ocis;
pub mod people;
pub mod platform;
pub mod stalwart;
mod tally;
pub mod workspace;

pub use tally::Tally;

use jiff::Timestamp;
use rand::Rng;

/// A random version 4 UUID, with dashes.
pub(crate) fn uuid4(rng: &mut impl Rng) -> String {
    let mut bytes = [0_u8; 16];
    rng.fill(&mut bytes);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let digits = hex(&bytes);
    format!(
        "{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..]
    )
}

/// `digits` random lower-case hexadecimal digits (an even number).
pub(crate) fn hex_token(rng: &mut impl Rng, digits: usize) -> String {
    let mut bytes = vec![0_u8; digits / 2];
    rng.fill(&mut bytes[..]);
    hex(&bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| {
            [
                char::from(DIGITS[usize::from(byte >> 4)]),
                char::from(DIGITS[usize::from(byte & 0x0f)]),
            ]
        })
        .collect()
}

/// RFC 3339 in whole seconds, as OCIS and Stalwart write it.
pub(crate) fn whole_seconds(at: Timestamp) -> String {
    format!("{at:.0}")
}

/// A member of a list that is never empty.
pub(crate) fn pick<'a, T>(rng: &mut impl Rng, list: &'a [T]) -> &'a T {
    &list[rng.random_range(0..list.len())]
}

/// Makes the process's TLS provider known; reqwest refuses to build a client without one.
pub(crate) fn ensure_tls_provider() {
    // Failing means that one is installed already, which is all that is wanted.
    let _already = rustls::crypto::ring::default_provider().install_default();
}

/// A client for a Daybook nearby, over plain HTTP: no proxy is asked for the way, and no certificate of
/// this machine's is read.
pub(crate) fn client_nearby() -> reqwest::Client {
    ensure_tls_provider();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]);
    // Nothing is left that can fail.
    client.build().unwrap_or_default()
}
