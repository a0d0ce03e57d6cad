//! Trees, proofs and tiles, beside `tlog_tiles`.

use sr_tlog::{
    Digest, Frontier, LogError, TILE_WIDTH, Tile, Tree, bundle, empty_root, entries_of, leaf_hash,
    node_hash, tiles_between, verify_consistency, verify_inclusion,
};
use tlog_tiles::{Error, Hash, HashReader};

/// Entries that differ.
fn entry(number: u64) -> Vec<u8> {
    format!("entry {number}").into_bytes()
}

fn tree(size: u64) -> Tree {
    let mut tree = Tree::new();
    (0..size).for_each(|number| tree.push(leaf_hash(&entry(number))));
    tree
}

/// What the second implementation keeps of a tree.
#[derive(Default)]
struct Theirs(Vec<Hash>);

impl HashReader for Theirs {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let hash = |index: &u64| self.0[usize::try_from(*index).expect("small")];
        Ok(indexes.iter().map(hash).collect())
    }
}

fn theirs(size: u64) -> Theirs {
    let mut theirs = Theirs::default();
    for number in 0..size {
        let more = tlog_tiles::stored_hashes(number, &entry(number), &theirs).expect("hashes");
        theirs.0.extend(more);
    }
    theirs
}

const SIZES: [u64; 12] = [1, 2, 3, 4, 7, 8, 13, 255, 256, 257, 600, 1025];

#[test]
fn roots_and_proofs_are_those_of_a_second_implementation() {
    let largest = *SIZES.last().expect("some");
    let (ours, theirs) = (tree(largest), theirs(largest));
    assert_eq!(ours.root(0), Some(empty_root()));
    for size in SIZES {
        let root = ours.root(size).expect("has one");
        assert_eq!(root, tlog_tiles::tree_hash(size, &theirs).expect("hashes").0, "{size}");
        for index in [0, size / 3, size / 2, size - 1] {
            let proof = ours.prove_inclusion(index, size).expect("proves");
            let their_proof = tlog_tiles::prove_record(size, index, &theirs).expect("proves");
            let hashes: Vec<Digest> = their_proof.iter().map(|hash| hash.0).collect();
            assert_eq!(proof, hashes, "{index} in {size}");
            let leaf = leaf_hash(&entry(index));
            assert_eq!(verify_inclusion(&leaf, index, size, &proof, &root), Ok(()));
        }
        for old in SIZES.into_iter().filter(|old| *old <= size) {
            let proof = ours.prove_consistency(old, size).expect("proves");
            if old < size {
                let their_proof = tlog_tiles::prove_tree(size, old, &theirs).expect("proves");
                // Theirs says the old root, too, where it is a node of the new tree.
                let hashes: Vec<Digest> = their_proof.iter().map(|hash| hash.0).collect();
                let skipped = hashes.len() - proof.len();
                assert!(skipped <= 1 && hashes[skipped..] == proof[..], "{old} in {size}");
            }
            let old_root = ours.root(old).expect("has one");
            assert_eq!(verify_consistency(old, &old_root, size, &root, &proof), Ok(()), "{old}");
        }
    }
    assert_eq!(ours.prove_inclusion(5, 5), None);
    assert_eq!(ours.prove_inclusion(0, largest + 1), None);
    assert_eq!(ours.prove_consistency(7, 4), None);
    assert_eq!(ours.root(largest + 1), None);
}

#[test]
fn a_frontier_goes_on_to_the_same_roots() {
    let tree = tree(600);
    let mut frontier = Frontier::new();
    assert_eq!(frontier.root(), empty_root());
    for number in 0..600 {
        frontier.push(leaf_hash(&entry(number)));
        assert_eq!(frontier.size(), number + 1);
        assert_eq!(Some(frontier.root()), tree.root(number + 1));
        let kept = Frontier::from_parts(frontier.size(), frontier.roots().to_vec());
        assert_eq!(kept.as_ref(), Some(&frontier));
    }
    assert_eq!(Frontier::from_parts(3, vec![[0; 32]]), None);
    assert_eq!(Frontier::from_parts(0, vec![[0; 32]]), None);
}

/// RFC 6962's own words: a proof is for its leaf, place, size and root, and for its length.
#[test]
fn a_wrong_proof_of_inclusion_is_refused() {
    let tree = tree(600);
    for (index, size) in [(0, 1), (0, 2), (5, 13), (599, 600), (255, 256), (256, 257)] {
        let (root, leaf) = (tree.root(size).expect("has one"), leaf_hash(&entry(index)));
        let proof = tree.prove_inclusion(index, size).expect("proves");
        let wrong = Err(LogError::ProofWrong);
        let verify = |leaf, index, size, proof: &[Digest]| {
            verify_inclusion(&leaf, index, size, proof, &root)
        };
        assert_eq!(verify(leaf, index, size, &proof), Ok(()));
        assert_eq!(verify(leaf_hash(b"other"), index, size, &proof), wrong);
        assert_eq!(verify(leaf, index + 1, size, &proof), wrong);
        assert_eq!(verify(leaf, size, size, &proof), wrong);
        assert_eq!(verify(leaf, index, 2 * size + 1, &proof), wrong);
        let longer = [&proof[..], &[[1; 32]]].concat();
        assert_eq!(verify(leaf, index, size, &longer), wrong);
        for place in 0..proof.len() {
            let mut other = proof.clone();
            other[place][0] ^= 1;
            assert_eq!(verify(leaf, index, size, &other), wrong);
            assert_eq!(verify(leaf, index, size, &proof[..place]), wrong);
        }
        assert_eq!(verify_inclusion(&leaf, index, size, &proof, &[0; 32]), wrong);
        // An inner node is no leaf in the tree of this size.
        if let Some(sibling) = proof.first() {
            let node = node_hash(&leaf, sibling);
            assert_eq!(verify(node, index / 2, size, &proof[1..]), wrong);
        }
    }
}

#[test]
fn a_wrong_proof_of_consistency_is_refused() {
    let tree = tree(600);
    let wrong = Err(LogError::ProofWrong);
    for (old, new) in [(1, 2), (3, 7), (4, 7), (6, 8), (255, 600), (256, 600), (599, 600)] {
        let root = |size| tree.root(size).expect("has one");
        let (before, after) = (root(old), root(new));
        let proof = tree.prove_consistency(old, new).expect("proves");
        assert_eq!(verify_consistency(old, &before, new, &after, &proof), Ok(()));
        assert_eq!(verify_consistency(old, &root(old + 1), new, &after, &proof), wrong);
        assert_eq!(verify_consistency(old, &before, new, &[0; 32], &proof), wrong);
        assert_eq!(verify_consistency(new, &after, old, &before, &proof), wrong);
        let longer = [&proof[..], &[[1; 32]]].concat();
        assert_eq!(verify_consistency(old, &before, new, &after, &longer), wrong);
        for place in 0..proof.len() {
            let mut other = proof.clone();
            other[place][31] ^= 1;
            assert_eq!(verify_consistency(old, &before, new, &after, &other), wrong);
            assert_eq!(verify_consistency(old, &before, new, &after, &proof[..place]), wrong);
        }
    }
    let root = tree.root(5).expect("has one");
    assert_eq!(verify_consistency(0, &empty_root(), 5, &root, &[]), Ok(()));
    assert_eq!(verify_consistency(0, &root, 5, &root, &[]), wrong);
    assert_eq!(verify_consistency(5, &root, 5, &root, &[]), Ok(()));
    assert_eq!(verify_consistency(5, &root, 5, &empty_root(), &[]), wrong);
    assert_eq!(verify_consistency(5, &root, 5, &root, &[[0; 32]]), wrong);
}

/// The example of the specification: 70,000 entries.
#[test]
fn tiles_are_those_of_the_specification() {
    let tiles = tiles_between(0, 70_000);
    let count = |level, full: bool| {
        let is_it = |t: &&Tile| t.level == level && (usize::from(t.width) == TILE_WIDTH) == full;
        tiles.iter().filter(is_it).count()
    };
    assert_eq!((count(0, true), count(0, false)), (273, 1));
    assert_eq!((count(1, true), count(1, false)), (1, 1));
    assert_eq!((count(2, true), count(2, false)), (0, 1));
    let widths: Vec<u16> = tiles.iter().map(|t| t.width).filter(|w| *w != 256).collect();
    assert_eq!(widths, [112, 17, 1]);
    let path = |level, index, width| Tile { level, index, width }.path();
    assert_eq!(path(0, 1_234_067, 256), "tile/0/x001/x234/067");
    assert_eq!(path(3, 0, 1), "tile/3/000.p/1");
    assert_eq!(Tile { level: 0, index: 999, width: 255 }.entries_path(), "tile/entries/999.p/255");
    // 256 entries fill one tile, and begin the one above.
    let all: Vec<String> = tiles_between(255, 256).iter().map(Tile::path).collect();
    assert_eq!(all, ["tile/0/000", "tile/1/000.p/1"]);
    assert_eq!(tiles_between(256, 256), []);
    for (old, new) in [(0, 1), (5, 300), (255, 257), (70_000, 140_000), (65_535, 65_536)] {
        let ours: Vec<String> = tiles_between(old, new).iter().map(Tile::path).collect();
        let theirs = tlog_tiles::Tile::new_tiles(8, old, new);
        let mut theirs: Vec<String> =
            theirs.iter().map(|tile| tile.path().replace("tile/8/", "tile/")).collect();
        theirs.retain(|path| !path.contains("data"));
        assert_eq!(ours, theirs, "{old} to {new}");
    }
}

#[test]
fn a_tile_has_the_hashes_of_its_tree() {
    let tree = tree(600);
    for tile in tiles_between(0, 600) {
        let (level, start) = (usize::from(tile.level), tile.index * TILE_WIDTH as u64);
        let hashes = tree.hashes(level, start, tile.width.into()).expect("has them");
        assert_eq!(tile.parse(&hashes.concat()).as_deref(), Ok(hashes));
        assert!(tile.parse(&hashes.concat()[1..]).is_err());
        assert!(tile.parse(&hashes[1..].concat()).is_err());
    }
    assert_eq!(tree.hashes(0, 599, 2), None);
    assert_eq!(tree.hashes(9, 0, 1), None);
    assert_eq!(tree.hashes(0, u64::MAX, 1), None);
}

#[test]
fn a_bundle_has_its_entries_and_no_others() {
    let entries: Vec<Vec<u8>> = (0..256).map(entry).chain([vec![]]).collect();
    let bytes = bundle(&entries).expect("fits");
    let read = entries_of(&bytes, entries.len()).expect("reads");
    assert!(read.iter().zip(&entries).all(|(a, b)| *a == b.as_slice()));
    for count in [0, entries.len() - 1, entries.len() + 1] {
        assert!(entries_of(&bytes, count).is_err());
    }
    assert!(entries_of(&bytes[..bytes.len() - 1], entries.len()).is_err());
    assert!(entries_of(&[&bytes[..], &[0]].concat(), entries.len()).is_err());
    assert_eq!(entries_of(&[], 0), Ok(vec![]));
    assert!(bundle(&[vec![0; 65_536]]).is_err());
}
