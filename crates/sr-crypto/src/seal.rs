//! Sealing to a person's public key: HPKE (RFC 9180, base mode) with X-Wing, key-committing.
//!
//! X-Wing is X25519 and ML-KEM-768 (KEM id 0x647a, draft-connolly-cfrg-xwing-kem); with it
//! HKDF-SHA-256 and ChaCha20-Poly1305. HPKE's AEAD does not commit to its key, so a box carries 32
//! bytes of the context's exporter, which are compared before anything is decrypted.

use hpke_rs::{
    Hpke, HpkeKeyPair, HpkePublicKey, Mode,
    hpke_types::{AeadAlgorithm, KdfAlgorithm, KemAlgorithm},
    libcrux::HpkeLibcrux,
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{COMMITMENT_LEN, Label, OpenError, Secret32, equal};

/// Length of a public sealing key.
pub const SEALING_PUBLIC_LEN: usize = 1216;
/// Length of an encapsulated key.
const ENCAPSULATED_LEN: usize = 1120;
const AEAD_TAG_LEN: usize = 16;
/// Bytes that [`seal_to`] adds: encapsulated key, commitment, tag.
pub const SEAL_OVERHEAD: usize = ENCAPSULATED_LEN + COMMITMENT_LEN + AEAD_TAG_LEN;
/// What the exporter is asked for.
const COMMIT: &[u8] = b"strongroom.v1/commit";

/// The public key is no X-Wing key.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not a public sealing key")]
pub struct SealError;

/// A person's or device's sealing key pair.
pub struct SealingKey(HpkeKeyPair);

impl SealingKey {
    /// Makes the key pair of `seed`: the X-Wing private key is `SHAKE256(seed)`, 32 bytes, the way in
    /// which drafts 06 to 08 of X-Wing derive key pairs.
    #[must_use]
    #[expect(clippy::expect_used, reason = "X-Wing takes any 32 bytes")]
    pub fn from_seed(seed: &Secret32) -> Self {
        Self(hpke().derive_key_pair(seed.expose()).expect("any 32 bytes derive a key pair"))
    }

    /// Returns the public key, [`SEALING_PUBLIC_LEN`] bytes.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        self.0.public_key().as_slice()
    }

    /// Opens what [`seal_to`] sealed to this key.
    ///
    /// **Errors** [`OpenError`]; nothing of the plaintext is released then.
    pub fn open(
        &self,
        label: Label,
        aad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        if sealed.len() < SEAL_OVERHEAD {
            return Err(OpenError::Truncated);
        }
        let (encapsulated, rest) = sealed.split_at(ENCAPSULATED_LEN);
        let (commitment, body) = rest.split_at(COMMITMENT_LEN);
        let mut context = hpke()
            .setup_receiver(encapsulated, self.0.private_key(), &label.to_bytes(), None, None, None)
            .map_err(|_| OpenError::Forged)?;
        let expected = context.export(COMMIT, COMMITMENT_LEN).map_err(|_| OpenError::Forged)?;
        if !equal(&expected, commitment) {
            return Err(OpenError::Commitment);
        }
        context.open(aad, body).map(Zeroizing::new).map_err(|_| OpenError::Forged)
    }
}

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

/// Seals a message to a public key: `encapsulated key[1120] ‖ commitment[32] ‖ ciphertext ‖ tag[16]`.
/// The randomness is the library's own, from the operating system.
///
/// **Errors** [`SealError`].
pub fn seal_to(
    public: &[u8],
    label: Label,
    aad: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, SealError> {
    if public.len() != SEALING_PUBLIC_LEN {
        return Err(SealError);
    }
    let key = HpkePublicKey::new(public.to_vec());
    let (encapsulated, mut context) =
        hpke().setup_sender(&key, &label.to_bytes(), None, None, None).map_err(|_| SealError)?;
    let commitment = context.export(COMMIT, COMMITMENT_LEN).map_err(|_| SealError)?;
    let body = context.seal(aad, plain).map_err(|_| SealError)?;
    Ok([encapsulated, commitment, body].concat())
}

fn hpke() -> Hpke<HpkeLibcrux> {
    Hpke::new(
        Mode::Base,
        KemAlgorithm::XWingDraft06,
        KdfAlgorithm::HkdfSha256,
        AeadAlgorithm::ChaCha20Poly1305,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use hpke::{
        Deserializable, Kem, OpModeR, OpModeS, Serializable, aead::ChaCha20Poly1305,
        kdf::HkdfSha256, kem::XWing,
    };

    const LABEL: Label = Label::new("test");

    fn key(byte: u8) -> SealingKey {
        SealingKey::from_seed(&Secret32::init_with(|b| b.fill(byte)))
    }

    #[test]
    fn a_box_opens_for_its_key_label_and_data_only() {
        let sealed = seal_to(key(1).public_key(), LABEL, b"aad", b"message").expect("seals");
        assert_eq!(sealed.len(), SEAL_OVERHEAD + 7);
        assert_eq!(**key(1).open(LABEL, b"aad", &sealed).expect("opens"), b"message"[..]);
        assert_eq!(key(2).open(LABEL, b"aad", &sealed), Err(OpenError::Commitment));
        assert_eq!(key(1).open(Label::new("other"), b"aad", &sealed), Err(OpenError::Commitment));
        assert_eq!(key(1).open(LABEL, b"other", &sealed), Err(OpenError::Forged));
        for place in (0..sealed.len()).step_by(13) {
            let mut forged = sealed.clone();
            forged[place] ^= 1;
            assert!(key(1).open(LABEL, b"aad", &forged).is_err(), "byte {place}");
        }
        for len in [0, ENCAPSULATED_LEN, SEAL_OVERHEAD - 1, sealed.len() - 1] {
            assert!(key(1).open(LABEL, b"aad", &sealed[..len]).is_err(), "length {len}");
        }
        assert_eq!(seal_to(&[1; 32], LABEL, b"", b""), Err(SealError));
    }

    /// RustCrypto's X-Wing under rust-hpke derives the same keys, opens what this room seals,
    /// exports the same commitment, and seals what this room opens.
    #[test]
    fn a_second_implementation_agrees() {
        let private = {
            use shake::{ExtendableOutput, Shake256, Update, XofReader};
            let (mut hasher, mut private) = (Shake256::default(), [0; 32]);
            hasher.update(&[7; 32]);
            hasher.finalize_xof().read(&mut private);
            private
        };
        let theirs = <XWing as Kem>::PrivateKey::from_bytes(&private).expect("parses");
        let their_public = XWing::sk_to_pk(&theirs);
        let ours = key(7);
        assert_eq!(&their_public.to_bytes()[..], ours.public_key());

        let sealed = seal_to(ours.public_key(), LABEL, b"aad", b"message").expect("seals");
        let (encapsulated, rest) = sealed.split_at(ENCAPSULATED_LEN);
        let encapsulated = <XWing as Kem>::EncappedKey::from_bytes(encapsulated).expect("parses");
        let mut context = hpke::setup_receiver::<ChaCha20Poly1305, HkdfSha256, XWing>(
            &OpModeR::Base,
            &theirs,
            &encapsulated,
            &LABEL.to_bytes(),
        )
        .expect("sets up");
        let mut commitment = [0; COMMITMENT_LEN];
        context.export(COMMIT, &mut commitment).expect("exports");
        assert_eq!(commitment, rest[..COMMITMENT_LEN]);
        let opened = context.open(&rest[COMMITMENT_LEN..], b"aad").expect("opens");
        assert_eq!(opened, b"message");

        let (encapsulated, mut context) =
            hpke::setup_sender::<ChaCha20Poly1305, HkdfSha256, XWing>(
                &OpModeS::Base,
                &their_public,
                &LABEL.to_bytes(),
            )
            .expect("sets up");
        context.export(COMMIT, &mut commitment).expect("exports");
        let body = context.seal(b"message", b"aad").expect("seals");
        let sealed = [&encapsulated.to_bytes()[..], &commitment, &body].concat();
        assert_eq!(**ours.open(LABEL, b"aad", &sealed).expect("opens"), b"message"[..]);
    }
}
