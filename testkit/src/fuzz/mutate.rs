//! Changes to an input: single bytes, pieces of it, pieces of others, and what parsers stumble over.

use rand::Rng;
use rand::rngs::StdRng;

const TOKENS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\n",
    b"\0",
    b"null",
    b"1e999",
    b"-0",
    b"00",
    b"\\u0000",
    b"\\ud800",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\"events\":",
    b"\"type\":\"\"",
    b"\"createdAt\":7,",
    b"\"Action\":\"file_create\"",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":",
];

/// Changes the input in a few places, with pieces of `others` among what is put in.
pub(super) fn mutate(rng: &mut StdRng, input: &[u8], others: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=bytes.len());
        let end = rng.random_range(at..=bytes.len().min(at + 200));
        match rng.random_range(0..8) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 => insert(&mut bytes, at, TOKENS[rng.random_range(0..TOKENS.len())]),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let piece = bytes[at..end].to_vec();
                insert(&mut bytes, at, &piece);
            }
            5 => bytes.truncate(at),
            6 if !others.is_empty() => {
                let other = &others[rng.random_range(0..others.len())];
                let from = rng.random_range(0..=other.len());
                let to = rng.random_range(from..=other.len().min(from + 300));
                insert(&mut bytes, at, &other[from..to]);
            }
            _ => {
                let token = TOKENS[rng.random_range(0..TOKENS.len())];
                insert(&mut bytes, at, &token.repeat(rng.random_range(1..40)));
            }
        }
    }
    bytes
}

fn insert(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    bytes.splice(at..at, piece.iter().copied());
}
