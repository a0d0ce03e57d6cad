//! The Merkle tree of RFC 6962, and its proofs.

use sr_crypto::sha256;

use crate::{Digest, LogError, tile::TILE_WIDTH};

/// Returns the hash of an entry: `SHA-256(0x00 ‖ entry)`.
///
/// **Source** RFC 6962, section 2.1.
#[must_use]
pub fn leaf_hash(entry: &[u8]) -> Digest {
    sha256(&[&[0], entry])
}

/// Returns the hash of an inner node: `SHA-256(0x01 ‖ left ‖ right)`.
///
/// **Source** RFC 6962, section 2.1.
#[must_use]
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    sha256(&[&[1], left, right])
}

/// Returns the root of a tree without entries: `SHA-256("")`.
#[must_use]
pub fn empty_root() -> Digest {
    sha256(&[])
}

/// What must be kept of a tree to go on with it: the roots of the perfect trees that it is made of, 63
/// at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// The largest first.
    roots: Vec<Digest>,
}

impl Frontier {
    /// Returns the frontier of a tree without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a frontier that was kept; `None` when there is not one root for each bit of `size`.
    #[must_use]
    pub fn from_parts(size: u64, roots: Vec<Digest>) -> Option<Self> {
        (size.count_ones() as usize == roots.len()).then_some(Self { size, roots })
    }

    /// Returns how many entries the tree has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the roots of the perfect trees, the largest first.
    #[must_use]
    pub fn roots(&self) -> &[Digest] {
        &self.roots
    }

    /// Adds an entry by its leaf hash.
    pub fn push(&mut self, leaf: Digest) {
        let mut root = leaf;
        for _ in 0..self.size.trailing_ones() {
            // There is a root for each bit of the size.
            let Some(left) = self.roots.pop() else { break };
            root = node_hash(&left, &root);
        }
        self.roots.push(root);
        self.size += 1;
    }

    /// Returns the tree's root.
    #[must_use]
    pub fn root(&self) -> Digest {
        let join = |right: Digest, left: &Digest| node_hash(left, &right);
        let (last, larger) = match self.roots.split_last() {
            Some(split) => split,
            None => return empty_root(),
        };
        larger.iter().rev().fold(*last, join)
    }
}

/// A whole tree, as the one who publishes it has it: all hashes that tiles consist of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// At level `l`, the roots of the perfect trees over 256^l entries each.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// Returns a tree without entries.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns how many entries the tree has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |leaves| leaves.len() as u64)
    }

    /// Adds an entry by its leaf hash.
    pub fn push(&mut self, leaf: Digest) {
        let mut hash = leaf;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let hashes = &mut self.levels[level];
            hashes.push(hash);
            if !hashes.len().is_multiple_of(TILE_WIDTH) {
                return;
            }
            hash = perfect_root(&hashes[hashes.len() - TILE_WIDTH..]);
        }
    }

    /// Returns `width` hashes of a level, from `start` on, if they are there.
    #[must_use]
    pub fn hashes(&self, level: usize, start: u64, width: usize) -> Option<&[Digest]> {
        let start = usize::try_from(start).ok()?;
        self.levels.get(level)?.get(start..start.checked_add(width)?)
    }

    /// Returns the root of the tree as it was with `size` entries, if it has as many.
    #[must_use]
    pub fn root(&self, size: u64) -> Option<Digest> {
        match size {
            0 => Some(empty_root()),
            _ => (size <= self.size()).then(|| self.range(0, size)).flatten(),
        }
    }

    /// Returns the proof that entry `index` is in the tree with `size` entries, the leaf's sibling
    /// first.
    ///
    /// **Source** RFC 6962, section 2.1.1.
    #[must_use]
    pub fn prove_inclusion(&self, index: u64, size: u64) -> Option<Vec<Digest>> {
        if index >= size || size > self.size() {
            return None;
        }
        let (mut start, mut end, mut path) = (0, size, Vec::new());
        while end - start > 1 {
            let middle = start + split(end - start);
            if index < middle {
                path.push(self.range(middle, end)?);
                end = middle;
            } else {
                path.push(self.range(start, middle)?);
                start = middle;
            }
        }
        path.reverse();
        Some(path)
    }

    /// Returns the proof that the tree with `old` entries is the beginning of the one with `new`.
    ///
    /// **Source** RFC 6962, section 2.1.2.
    #[must_use]
    pub fn prove_consistency(&self, old: u64, new: u64) -> Option<Vec<Digest>> {
        if old > new || new > self.size() {
            return None;
        }
        if old == 0 || old == new {
            return Some(Vec::new());
        }
        let (mut start, mut end, mut path) = (0, new, Vec::new());
        while old != end {
            let middle = start + split(end - start);
            if old <= middle {
                path.push(self.range(middle, end)?);
                end = middle;
            } else {
                path.push(self.range(start, middle)?);
                start = middle;
            }
        }
        // The old root itself is known to who asks.
        if start > 0 {
            path.push(self.range(start, end)?);
        }
        path.reverse();
        Some(path)
    }

    /// The root over the entries `start..end`, where the tree divides there.
    fn range(&self, start: u64, end: u64) -> Option<Digest> {
        let count = end - start;
        if count.is_power_of_two() && start.is_multiple_of(count) {
            return self.perfect(start, count);
        }
        let middle = start + split(count);
        Some(node_hash(&self.range(start, middle)?, &self.range(middle, end)?))
    }

    /// The root over `count` entries, a power of two, from the hashes of the level below it.
    fn perfect(&self, start: u64, count: u64) -> Option<Digest> {
        let (mut level, mut each) = (0, 1);
        while each * TILE_WIDTH as u64 <= count {
            level += 1;
            each *= TILE_WIDTH as u64;
        }
        let width = usize::try_from(count / each).ok()?;
        self.hashes(level, start / each, width).map(perfect_root)
    }
}

/// Checks the proof that an entry with this leaf hash is number `index` of the tree with `size`
/// entries and this root.
///
/// **Errors** [`LogError::ProofWrong`]. **Source** RFC 9162, section 2.1.3.2.
pub fn verify_inclusion(
    leaf: &Digest,
    index: u64,
    size: u64,
    proof: &[Digest],
    root: &Digest,
) -> Result<(), LogError> {
    if index >= size {
        return Err(LogError::ProofWrong);
    }
    let (mut node, mut last, mut hash) = (index, size - 1, *leaf);
    for sibling in proof {
        if last == 0 {
            return Err(LogError::ProofWrong);
        }
        if node & 1 == 1 || node == last {
            hash = node_hash(sibling, &hash);
            let up = if node == 0 { 0 } else { node.trailing_zeros() };
            (node, last) = (node >> up, last >> up);
        } else {
            hash = node_hash(&hash, sibling);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    if last == 0 && hash == *root { Ok(()) } else { Err(LogError::ProofWrong) }
}

/// Checks the proof that the tree with `old` entries and its root is the beginning of the one with
/// `new` entries.
///
/// **Errors** [`LogError::ProofWrong`]. **Source** RFC 9162, section 2.1.4.2.
pub fn verify_consistency(
    old: u64,
    old_root: &Digest,
    new: u64,
    new_root: &Digest,
    proof: &[Digest],
) -> Result<(), LogError> {
    let holds = |holds: bool| if holds { Ok(()) } else { Err(LogError::ProofWrong) };
    if old == 0 {
        return holds(proof.is_empty() && *old_root == empty_root());
    }
    if old == new {
        return holds(proof.is_empty() && old_root == new_root);
    }
    if old > new {
        return holds(false);
    }
    let mut hashes = proof.iter();
    // A perfect tree is a node of the new one, and not repeated in the proof.
    let first = if old.is_power_of_two() { Some(old_root) } else { hashes.next() };
    let first = *first.ok_or(LogError::ProofWrong)?;
    let up = (old - 1).trailing_ones();
    let (mut node, mut last) = ((old - 1) >> up, (new - 1) >> up);
    let (mut before, mut after) = (first, first);
    for hash in hashes {
        if last == 0 {
            return holds(false);
        }
        if node & 1 == 1 || node == last {
            before = node_hash(hash, &before);
            after = node_hash(hash, &after);
            let up = if node == 0 { 0 } else { node.trailing_zeros() };
            (node, last) = (node >> up, last >> up);
        } else {
            after = node_hash(&after, hash);
        }
        (node, last) = (node >> 1, last >> 1);
    }
    holds(last == 0 && before == *old_root && after == *new_root)
}

/// The largest power of two below `count`, which is above 1.
fn split(count: u64) -> u64 {
    1 << (63 - (count - 1).leading_zeros())
}

/// The root over as many hashes as a power of two.
fn perfect_root(hashes: &[Digest]) -> Digest {
    match hashes {
        [hash] => *hash,
        _ => {
            let (left, right) = hashes.split_at(hashes.len() / 2);
            node_hash(&perfect_root(left), &perfect_root(right))
        }
    }
}
