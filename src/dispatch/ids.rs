//! Maps by our own ids. Every job passes through half a dozen of them, and the standard hasher, which is made to withstand
//! keys that somebody chose to collide, took a twelfth of a worker's time. Ids come out of a sequence; nobody chooses them.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

/// A map by job or lane.
pub type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// A set of jobs or lanes.
pub type IdSet<K> = HashSet<K, BuildHasherDefault<IdHasher>>;

/// Hashes one integer: multiplied by 2⁶⁴ over the golden ratio, which spreads neighbours over the upper bits, and folded,
/// because maps look at the lower bits too.
#[derive(Debug, Clone, Copy, Default)]
pub struct IdHasher(u64);

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        let product = (self.0 ^ id).wrapping_mul(GOLDEN);
        self.0 = product ^ (product >> 32);
    }

    fn write_i64(&mut self, id: i64) {
        self.write_u64(id.cast_unsigned());
    }

    fn write_i32(&mut self, id: i32) {
        self.write_u64(u64::from(id.cast_unsigned()));
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hash as _;

    use super::*;
    use crate::rules::job::JobId;

    #[test]
    fn neighbouring_ids_fall_into_different_places_by_their_lower_and_their_upper_bits() {
        let hash = |id: i64| {
            let mut hasher = IdHasher::default();
            JobId(id).hash(&mut hasher);
            hasher.finish()
        };
        let hashes: Vec<u64> = (0..1_024).map(|n| hash(1_000_000 + n)).collect();
        let lower: HashSet<u64> = hashes.iter().map(|hash| hash % 2_048).collect();
        let upper: HashSet<u64> = hashes.iter().map(|hash| hash >> 53).collect();
        assert!(lower.len() > 700, "{} of 2,048 places", lower.len());
        assert!(upper.len() > 700, "{} of 2,048 places", upper.len());
    }
}
