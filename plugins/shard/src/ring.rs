//! Rendezvous hashing (highest random weight): every node is given a weight for a key by a hash of
//! both, and the heaviest owns the key. All who have the same list agree without talking; a node
//! that leaves moves its own keys and no others.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

/// Names, in any order, each with the hash of its name as a beginning.
#[derive(Clone, Debug)]
pub(crate) struct Ring(Vec<(String, SipHasher13)>);

impl Ring {
    pub(crate) fn new(names: Vec<String>) -> Ring {
        let seeded = |name: String| {
            // Without a key of its own: all nodes must come to the same result, in every release.
            let mut hasher = SipHasher13::new_with_keys(0, 0);
            hasher.write(name.as_bytes());
            // Not part of a name, so that no name and key run into each other.
            hasher.write(&[0xff]);
            (name, hasher)
        };
        Ring(names.into_iter().map(seeded).collect())
    }

    /// Who owns the key that these parts make up; `None` without nodes.
    pub(crate) fn owner<'a>(&'a self, key: &[&str]) -> Option<&'a str> {
        let weigh = |(name, hasher): &'a (String, SipHasher13)| {
            let mut hasher = *hasher;
            for part in key {
                hasher.write(part.as_bytes());
            }
            (hasher.finish(), name.as_str())
        };
        self.0.iter().map(weigh).max().map(|(_, name)| name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn ring(names: &[&str]) -> Ring {
        Ring::new(names.iter().map(|name| (*name).to_owned()).collect())
    }

    fn keys() -> Vec<String> {
        (0..10_000).map(|n| format!("sha256:{n:064x}")).collect()
    }

    #[test]
    fn every_node_gets_about_its_share() {
        let ring = ring(&["a", "b", "c", "d"]);
        let mut shares = HashMap::new();
        for key in keys() {
            *shares.entry(ring.owner(&[&key]).unwrap().to_owned()).or_insert(0) += 1;
        }
        // Of 10,000 drawn with probability 1/4 the standard deviation is 43.
        assert_eq!(shares.len(), 4);
        assert!(shares.values().all(|share| (2250..2750).contains(share)), "{shares:?}");
    }

    #[test]
    fn who_leaves_moves_only_its_own_and_the_order_does_not_matter() {
        let (all, fewer) = (ring(&["a", "b", "c"]), ring(&["c", "a"]));
        let shuffled = ring(&["c", "b", "a"]);
        for key in keys() {
            let owner = all.owner(&[&key]).unwrap();
            assert_eq!(shuffled.owner(&[&key]).unwrap(), owner);
            let then = fewer.owner(&[&key]).unwrap();
            assert!(then == owner || owner == "b", "{key} moved from {owner} to {then}");
        }
    }

    #[test]
    fn weights_are_the_same_in_every_release() {
        // Nodes of two releases must agree: this is part of the configuration's meaning.
        let ring = ring(&["node-a.mirror", "node-b.mirror", "node-c.mirror"]);
        let owners: String = keys()
            .iter()
            .take(24)
            .map(|key| ring.owner(&[key]).unwrap().chars().nth(5).unwrap())
            .collect();
        assert_eq!(owners, "caababccabcaccbaaabcccca");
        assert_eq!(ring.owner(&["docker.io/", "a"]), ring.owner(&["docker.io/a"]));
        assert_eq!(Ring::new(Vec::new()).owner(&["x"]), None);
    }
}
