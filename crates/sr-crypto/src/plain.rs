//! Ed25519 and ML-DSA-44 as formats of others use them, which keep what is signed apart by themselves.

use aws_lc_rs::{
    digest::{Context, SHA256},
    signature::{
        ED25519, Ed25519KeyPair, KeyPair, ML_DSA_44, ML_DSA_44_SIGNING, PqdsaKeyPair,
        UnparsedPublicKey,
    },
};

use crate::{Hash, Secret32, VerifyError};

const ML_DSA_44_PUBLIC_LEN: usize = 1312;
const ML_DSA_44_SIGNATURE_LEN: usize = 2420;

/// Returns SHA-256 over the concatenated parts.
///
/// **Source** FIPS 180-4.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// What a [`PlainKey`] signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlainAlgorithm {
    /// RFC 8032.
    Ed25519,
    /// FIPS 204, with an empty context.
    MlDsa44,
}

impl PlainAlgorithm {
    /// Returns the length of a public key.
    #[must_use]
    pub const fn public_len(self) -> usize {
        match self {
            Self::Ed25519 => 32,
            Self::MlDsa44 => ML_DSA_44_PUBLIC_LEN,
        }
    }
}

/// A key that signs bytes as they are, for the formats of C2SP only: Strongroom's own signatures are
/// [`crate::SigningKey`]'s.
pub struct PlainKey(Pair);

enum Pair {
    Ed25519(Ed25519KeyPair),
    MlDsa44(PqdsaKeyPair),
}

impl PlainKey {
    /// Makes the key pair of a seed.
    #[must_use]
    #[expect(clippy::expect_used, reason = "any 32 bytes are a seed of either algorithm")]
    pub fn from_seed(algorithm: PlainAlgorithm, seed: &Secret32) -> Self {
        let seed = seed.expose();
        Self(match algorithm {
            PlainAlgorithm::Ed25519 => {
                Pair::Ed25519(Ed25519KeyPair::from_seed_unchecked(seed).expect("a seed"))
            }
            PlainAlgorithm::MlDsa44 => {
                Pair::MlDsa44(PqdsaKeyPair::from_seed(&ML_DSA_44_SIGNING, seed).expect("a seed"))
            }
        })
    }

    /// Returns the public key.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        match &self.0 {
            Pair::Ed25519(pair) => pair.public_key().as_ref(),
            Pair::MlDsa44(pair) => pair.public_key().as_ref(),
        }
    }

    /// Signs these bytes.
    #[must_use]
    #[expect(clippy::expect_used, reason = "signing fails only for want of memory or randomness")]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.0 {
            Pair::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Pair::MlDsa44(pair) => {
                let mut signature = vec![0; ML_DSA_44_SIGNATURE_LEN];
                pair.sign(message, &mut signature).expect("the buffer has the signature's length");
                signature
            }
        }
    }
}

impl std::fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlainKey(..)")
    }
}

/// Verifies a signature over these bytes.
///
/// **Errors** [`VerifyError`].
pub fn verify_plain(
    algorithm: PlainAlgorithm,
    public: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), VerifyError> {
    let verified = match algorithm {
        PlainAlgorithm::Ed25519 => {
            UnparsedPublicKey::new(&ED25519, public).verify(message, signature)
        }
        PlainAlgorithm::MlDsa44 => {
            UnparsedPublicKey::new(&ML_DSA_44, public).verify(message, signature)
        }
    };
    verified.map_err(|_| VerifyError)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::from_hex;

    /// FIPS 180-4, the examples of one block and of none.
    #[test]
    fn sha_256_has_known_answers() {
        let cases: [(&[&[u8]], &str); 3] = [
            (&[], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (&[b"abc"], "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                &[b"a", b"", b"bc"],
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ];
        for (parts, digest) in cases {
            assert_eq!(sha256(parts).to_vec(), from_hex(digest));
        }
    }

    /// ML-DSA-44 by RustCrypto from the same seed: the same public key, and each accepts the other's
    /// signature, with an empty context.
    #[test]
    fn a_second_implementation_of_ml_dsa_44_agrees() {
        use ml_dsa::{KeyExport, Keypair, MlDsa44, Signature, SigningKey, Verifier};
        for byte in [0u8, 1, 0xff] {
            let secret = Secret32::init_with(|seed| seed.fill(byte));
            let ours = PlainKey::from_seed(PlainAlgorithm::MlDsa44, &secret);
            let theirs = SigningKey::<MlDsa44>::from_seed(&[byte; 32].into());
            let public = theirs.verifying_key().to_bytes();
            assert_eq!(ours.public_key(), &public[..]);
            let signature = ours.sign(b"message");
            let parsed = Signature::<MlDsa44>::try_from(&signature[..]).expect("parses");
            theirs.verifying_key().verify(b"message", &parsed).expect("verifies");
            let signature = ml_dsa::Signer::sign(&theirs, b"message").encode();
            let verified = verify_plain(PlainAlgorithm::MlDsa44, &public, b"message", &signature);
            assert_eq!(verified, Ok(()));
        }
    }

    #[test]
    fn a_signature_is_for_its_bytes_and_key_only() {
        for algorithm in [PlainAlgorithm::Ed25519, PlainAlgorithm::MlDsa44] {
            let [a, b] = [1, 2].map(|byte| {
                PlainKey::from_seed(algorithm, &Secret32::init_with(|seed| seed.fill(byte)))
            });
            assert_eq!(a.public_key().len(), algorithm.public_len());
            let signature = a.sign(b"x");
            let verify = |public: &[u8], message: &[u8], signature: &[u8]| {
                verify_plain(algorithm, public, message, signature)
            };
            assert_eq!(verify(a.public_key(), b"x", &signature), Ok(()));
            assert_eq!(verify(a.public_key(), b"y", &signature), Err(VerifyError));
            assert_eq!(verify(b.public_key(), b"x", &signature), Err(VerifyError));
            assert_eq!(verify(&a.public_key()[1..], b"x", &signature), Err(VerifyError));
            assert_eq!(verify(a.public_key(), b"x", &signature[1..]), Err(VerifyError));
            assert_eq!(verify(a.public_key(), b"x", &[]), Err(VerifyError));
        }
    }
}
