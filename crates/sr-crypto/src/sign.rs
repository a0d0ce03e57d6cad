//! Signatures: the hybrid of Ed25519 and ML-DSA-65, and plain Ed25519 for capabilities.
//!
//! Both halves of a hybrid signature must verify. The library signs without a FIPS 204 context
//! string, so label and both public keys stand inside the signed bytes, and neither half can be
//! moved to another purpose or recombined with another key.

use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair, ML_DSA_65, ML_DSA_65_SIGNING, PqdsaKeyPair, UnparsedPublicKey,
};
use thiserror::Error;

use crate::{Label, Secret32};

const ED25519_PUBLIC_LEN: usize = 32;
const ED25519_SIGNATURE_LEN: usize = 64;
const ML_DSA_PUBLIC_LEN: usize = 1952;
const ML_DSA_SIGNATURE_LEN: usize = 3309;

/// Length of a hybrid public key: Ed25519 (32) ‖ ML-DSA-65 (1952).
pub const PUBLIC_KEY_LEN: usize = ED25519_PUBLIC_LEN + ML_DSA_PUBLIC_LEN;
/// Length of a hybrid signature: Ed25519 (64) ‖ ML-DSA-65 (3309).
pub const SIGNATURE_LEN: usize = ED25519_SIGNATURE_LEN + ML_DSA_SIGNATURE_LEN;
/// Length of the public key of a capability (Ed25519).
pub const CAPABILITY_KEY_LEN: usize = ED25519_PUBLIC_LEN;
/// Length of a signature by a capability (Ed25519).
pub const CAPABILITY_SIGNATURE_LEN: usize = ED25519_SIGNATURE_LEN;

/// The signature is not one of this key over these bytes.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the signature does not verify")]
pub struct VerifyError;

/// A hybrid signing key, made from two 32-byte seeds.
pub struct SigningKey {
    ed25519: Ed25519KeyPair,
    ml_dsa: PqdsaKeyPair,
    public: Vec<u8>,
}

impl SigningKey {
    /// Makes the key pair of `seed`; both halves are derived from it.
    #[must_use]
    #[expect(clippy::expect_used, reason = "any 32 bytes are a seed of either algorithm")]
    pub fn from_seed(seed: &Secret32) -> Self {
        let half = |name| crate::derive(seed, b"", Label::new(name), b"");
        let ed25519 = Ed25519KeyPair::from_seed_unchecked(half("sign/ed25519").expose())
            .expect("any 32 bytes are an Ed25519 seed");
        let ml_dsa = PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, half("sign/ml-dsa-65").expose())
            .expect("any 32 bytes are an ML-DSA seed");
        let mut public = ed25519.public_key().as_ref().to_vec();
        public.extend_from_slice(ml_dsa.public_key().as_ref());
        Self { ed25519, ml_dsa, public }
    }

    /// Returns the public key, [`PUBLIC_KEY_LEN`] bytes.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public
    }

    /// Signs `x` for the purpose `label`; returns [`SIGNATURE_LEN`] bytes.
    ///
    /// **Shape** of what both algorithms sign:
    /// `"strongroom.v1/" ‖ label ‖ 0x00 ‖ ed_pk[32] ‖ mldsa_pk[1952] ‖ x`.
    #[must_use]
    #[expect(clippy::expect_used, reason = "signing fails only for want of memory or randomness")]
    pub fn sign(&self, label: Label, x: &[u8]) -> Vec<u8> {
        let message = signed_bytes(label, &self.public, x);
        let mut signature = self.ed25519.sign(&message).as_ref().to_vec();
        signature.resize(SIGNATURE_LEN, 0);
        self.ml_dsa
            .sign(&message, &mut signature[ED25519_SIGNATURE_LEN..])
            .expect("the buffer has the signature's length");
        signature
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// Verifies a hybrid signature: both halves, over the same bytes.
///
/// **Errors** [`VerifyError`] for a wrong length or when either half does not verify.
pub fn verify(label: Label, public: &[u8], x: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
    if public.len() != PUBLIC_KEY_LEN || signature.len() != SIGNATURE_LEN {
        return Err(VerifyError);
    }
    let message = signed_bytes(label, public, x);
    let (ed_public, ml_public) = public.split_at(ED25519_PUBLIC_LEN);
    let (ed_signature, ml_signature) = signature.split_at(ED25519_SIGNATURE_LEN);
    UnparsedPublicKey::new(&ED25519, ed_public)
        .verify(&message, ed_signature)
        .and_then(|()| UnparsedPublicKey::new(&ML_DSA_65, ml_public).verify(&message, ml_signature))
        .map_err(|_| VerifyError)
}

/// An Ed25519 key that proves one right on one space.
///
/// Classical on purpose: a right only guards an honest server's space against thieves, is proven
/// live over the connection, and opens nothing.
pub struct CapabilityKey(Ed25519KeyPair);

impl CapabilityKey {
    /// Makes the key pair of `seed`.
    #[must_use]
    #[expect(clippy::expect_used, reason = "any 32 bytes are an Ed25519 seed")]
    pub fn from_seed(seed: &Secret32) -> Self {
        Self(
            Ed25519KeyPair::from_seed_unchecked(seed.expose())
                .expect("any 32 bytes are an Ed25519 seed"),
        )
    }

    /// Returns the public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; CAPABILITY_KEY_LEN] {
        let mut public = [0; CAPABILITY_KEY_LEN];
        public.copy_from_slice(self.0.public_key().as_ref());
        public
    }

    /// Signs `label ‖ x`.
    #[must_use]
    pub fn sign(&self, label: Label, x: &[u8]) -> [u8; CAPABILITY_SIGNATURE_LEN] {
        let mut message = label.to_bytes();
        message.extend_from_slice(x);
        let mut signature = [0; CAPABILITY_SIGNATURE_LEN];
        signature.copy_from_slice(self.0.sign(&message).as_ref());
        signature
    }
}

impl std::fmt::Debug for CapabilityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CapabilityKey(..)")
    }
}

/// Verifies a signature made by [`CapabilityKey::sign`].
///
/// **Errors** [`VerifyError`].
pub fn verify_capability(
    label: Label,
    public: &[u8; CAPABILITY_KEY_LEN],
    x: &[u8],
    signature: &[u8; CAPABILITY_SIGNATURE_LEN],
) -> Result<(), VerifyError> {
    let mut message = label.to_bytes();
    message.extend_from_slice(x);
    UnparsedPublicKey::new(&ED25519, public).verify(&message, signature).map_err(|_| VerifyError)
}

fn signed_bytes(label: Label, public: &[u8], x: &[u8]) -> Vec<u8> {
    let mut message = label.to_bytes();
    message.reserve(public.len() + x.len());
    message.extend_from_slice(public);
    message.extend_from_slice(x);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::from_hex;

    const LABEL: Label = Label::new("test");

    fn key(byte: u8) -> SigningKey {
        SigningKey::from_seed(&Secret32::init_with(|b| b.fill(byte)))
    }

    /// RFC 8032, section 7.1, tests 1 and 3.
    #[test]
    fn rfc_8032_vectors() {
        let cases = [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ];
        for (seed, public, message, signature) in cases {
            let pair = Ed25519KeyPair::from_seed_unchecked(&from_hex(seed)).expect("seed");
            assert_eq!(pair.public_key().as_ref(), from_hex(public));
            assert_eq!(pair.sign(&from_hex(message)).as_ref(), from_hex(signature));
        }
    }

    /// ML-DSA-65 by RustCrypto from the same seed: the same public key; it accepts this room's
    /// signature, and this room accepts its. (FIPS 204 signing is hedged, so signatures differ.)
    #[test]
    fn a_second_implementation_of_ml_dsa_agrees() {
        use ml_dsa::{KeyExport, Keypair, MlDsa65, Signature, SigningKey, Verifier};
        for byte in [0u8, 1, 0xff] {
            let seed = [byte; 32];
            let ours = PqdsaKeyPair::from_seed(&ML_DSA_65_SIGNING, &seed).expect("seed");
            let theirs = SigningKey::<MlDsa65>::from_seed(&seed.into());
            let public = theirs.verifying_key().to_bytes();
            assert_eq!(ours.public_key().as_ref(), &public[..]);

            let mut signature = vec![0; ML_DSA_SIGNATURE_LEN];
            ours.sign(b"message", &mut signature).expect("signs");
            let parsed = Signature::<MlDsa65>::try_from(&signature[..]).expect("parses");
            theirs.verifying_key().verify(b"message", &parsed).expect("verifies");

            let signature = ml_dsa::Signer::sign(&theirs, b"message").encode();
            UnparsedPublicKey::new(&ML_DSA_65, &public[..])
                .verify(b"message", &signature)
                .expect("verifies");
        }
    }

    #[test]
    fn both_halves_must_verify() {
        let key = key(1);
        let signature = key.sign(LABEL, b"x");
        assert_eq!(verify(LABEL, key.public_key(), b"x", &signature), Ok(()));
        for place in [0, ED25519_SIGNATURE_LEN - 1, ED25519_SIGNATURE_LEN, SIGNATURE_LEN - 1] {
            let mut forged = signature.clone();
            forged[place] ^= 1;
            assert_eq!(verify(LABEL, key.public_key(), b"x", &forged), Err(VerifyError));
        }
        assert!(verify(LABEL, key.public_key(), b"y", &signature).is_err());
        assert!(verify(Label::new("other"), key.public_key(), b"x", &signature).is_err());
        assert!(verify(LABEL, key.public_key(), b"x", &signature[1..]).is_err());
        assert!(verify(LABEL, &key.public_key()[1..], b"x", &signature).is_err());
    }

    /// Half of one key and half of another make no key: both public keys are signed.
    #[test]
    fn halves_cannot_be_recombined() {
        let (a, b) = (key(1), key(2));
        let mut public = a.public_key()[..ED25519_PUBLIC_LEN].to_vec();
        public.extend_from_slice(&b.public_key()[ED25519_PUBLIC_LEN..]);
        let mut signature = a.sign(LABEL, b"x")[..ED25519_SIGNATURE_LEN].to_vec();
        signature.extend_from_slice(&b.sign(LABEL, b"x")[ED25519_SIGNATURE_LEN..]);
        assert_eq!(verify(LABEL, &public, b"x", &signature), Err(VerifyError));
    }

    #[test]
    fn capabilities_are_bound_to_label_and_bytes() {
        let key = CapabilityKey::from_seed(&Secret32::init_with(|b| b.fill(3)));
        let signature = key.sign(LABEL, b"x");
        assert!(verify_capability(LABEL, &key.public_key(), b"x", &signature).is_ok());
        assert!(verify_capability(LABEL, &key.public_key(), b"y", &signature).is_err());
        assert!(verify_capability(Label::new("t"), &key.public_key(), b"x", &signature).is_err());
    }

    /// The dalek implementation accepts a capability's signature.
    #[test]
    fn a_second_implementation_of_ed25519_agrees() {
        let key = CapabilityKey::from_seed(&Secret32::init_with(|b| b.fill(3)));
        let mut message = LABEL.to_bytes();
        message.push(b'x');
        let theirs = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
        assert_eq!(theirs.verifying_key().to_bytes(), key.public_key());
        let signature = ed25519_dalek::Signer::sign(&theirs, &message).to_bytes();
        assert_eq!(signature, key.sign(LABEL, b"x"));
    }
}
