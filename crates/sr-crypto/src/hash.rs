//! BLAKE3: ids, commitments and integrity.

use crate::{Label, Secret32};

/// Length of a hash in bytes.
pub const HASH_LEN: usize = 32;

/// The output of [`hash`] and [`KeyedHasher`].
pub type Hash = [u8; HASH_LEN];

/// Returns `H(label, parts)`: BLAKE3 in key-derivation mode with the label as context, over the
/// concatenated parts. Callers keep the concatenation unambiguous (fixed lengths, or one part).
///
/// **Source** BLAKE3 specification, section 2.3 (`derive_key`).
#[must_use]
pub fn hash(label: Label, parts: &[&[u8]]) -> Hash {
    let mut context = String::from(crate::LABEL_PREFIX);
    context.push_str(label.name());
    let mut hasher = blake3::Hasher::new_derive_key(&context);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// BLAKE3 under a secret key: equal inputs have equal ids for the key's holder only.
pub struct KeyedHasher(Secret32);

impl KeyedHasher {
    /// Makes a hasher under `key`.
    #[must_use]
    pub fn new(key: Secret32) -> Self {
        Self(key)
    }

    /// Returns the keyed hash of `bytes`.
    #[must_use]
    pub fn hash(&self, bytes: &[u8]) -> Hash {
        blake3::keyed_hash(self.0.expose(), bytes).into()
    }

    /// Fills `out` with the extendable output over `bytes`.
    pub fn expand(&self, bytes: &[u8], out: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_keyed(self.0.expose());
        hasher.update(bytes).finalize_xof().fill(out);
    }
}

impl std::fmt::Debug for KeyedHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedHasher(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::from_hex;

    /// The official vectors' input: 0, 1, … 250, 0, 1, …
    fn input(len: usize) -> Vec<u8> {
        (0..=250u8).cycle().take(len).collect()
    }

    /// Official BLAKE3 `test_vectors.json`, key `whats the Elvish word for friend`, lengths 0, 1
    /// and 1024 (first 32 bytes of each output).
    #[test]
    fn keyed_hash_matches_the_official_vectors() {
        let cases = [
            (0, "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26"),
            (1, "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b"),
            (1024, "75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4"),
        ];
        for (len, expected) in cases {
            let key = Secret32::init_with(|k| {
                k.copy_from_slice(b"whats the Elvish word for friend");
            });
            assert_eq!(KeyedHasher::new(key).hash(&input(len)).to_vec(), from_hex(expected));
        }
    }

    #[test]
    fn labels_separate() {
        assert_ne!(hash(Label::new("a"), &[b"x"]), hash(Label::new("b"), &[b"x"]));
    }
}
