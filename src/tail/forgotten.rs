//! Which keys the files had that were passed so long ago that they are not remembered any more.
//!
//! Four bits stand for a key, so that this never grows. In time the bits of a key that no file had are set by those of
//! others, and its file gets a number that it would not need.

use serde::{Deserialize, Serialize};

use super::cursor::generation;

/// So many places can be told by three hexadecimal digits.
const BITS: usize = 16 * 16 * 16;

/// The keys, without their `~n`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The highest `n` of all.
    newest: u64,
    bits: Vec<u32>,
}

impl Forgotten {
    pub(super) fn is_empty(&self) -> bool {
        self.newest == 0
    }

    pub(super) fn add(&mut self, key: &str) {
        let (base, number) = generation(key);
        self.newest = self.newest.max(number);
        self.bits.resize(BITS / 32, 0);
        for place in places(base) {
            self.bits[place / 32] |= 1 << (place % 32);
        }
    }

    /// No file had this key with a higher `n`; 0: none had it at all.
    pub(super) fn newest_of(&self, base: &str) -> u64 {
        let is_set = |place: usize| {
            let bits = self.bits.get(place / 32).copied().unwrap_or_default();
            bits & (1 << (place % 32)) != 0
        };
        if places(base).all(is_set) {
            self.newest
        } else {
            0
        }
    }
}

/// A key ends in twelve digits of a hash: three for each bit.
fn places(base: &str) -> impl Iterator<Item = usize> {
    let (_, digits) = base.rsplit_once('-').unwrap_or_default();
    (0..4).filter_map(move |bit| {
        let digits = digits.get(3 * bit..3 * bit + 3)?;
        usize::from_str_radix(digits, 16).ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::identity::base_key;

    #[test]
    fn every_key_is_known_and_hardly_another() {
        let key = |line: u32| base_key(7, Some(1), &line.to_be_bytes());
        let mut forgotten = Forgotten::default();
        assert_eq!(forgotten.newest_of(&key(0)), 0);
        for line in 0..300 {
            forgotten.add(&key(line));
        }
        forgotten.add(&format!("{}~3", key(0)));
        assert!((0..300).all(|line| forgotten.newest_of(&key(line)) == 3));
        let others = (300..1300).filter(|line| forgotten.newest_of(&key(*line)) > 0);
        assert!(others.count() < 50);
    }
}
