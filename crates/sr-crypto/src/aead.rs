//! AES-256-GCM-SIV (RFC 8452), in STREAM segments and in single boxes, both key-committing.
//!
//! GCM-SIV because a virtual machine that is restored and repeats a nonce then loses nothing but
//! the equality of two messages. The AEAD itself does not commit to its key, so every ciphertext
//! travels with a 32-byte commitment derived beside the key, which is compared before anything is
//! decrypted (Albertini et al., USENIX Security 2022, section 5: the "key-committing by KDF" way).

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, Nonce, UnboundKey};
use rand_core::CryptoRng;
use thiserror::Error;

use crate::{Label, Secret32, equal, kdf};

/// Bytes that the AEAD adds to each segment.
pub const TAG_LEN: usize = 16;
/// Length of a key commitment.
pub const COMMITMENT_LEN: usize = 32;
/// Length of the salt that a key is derived under.
pub const SALT_LEN: usize = 32;
/// Bytes that [`seal_box`] adds: salt, commitment, tag.
pub const BOX_OVERHEAD: usize = SALT_LEN + COMMITMENT_LEN + TAG_LEN;

/// Why a ciphertext was not opened. It deliberately says no more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum OpenError {
    /// The commitment is not the one of this key.
    #[error("sealed under another key")]
    Commitment,
    /// The bytes are not what was sealed, or not in this place.
    #[error("not the bytes that were sealed")]
    Forged,
    /// Too short to be a ciphertext.
    #[error("too short to be sealed bytes")]
    Truncated,
}

/// A key for up to 2^32 segments, and its commitment.
///
/// **Shape** nonce: 12 B = 7 zero bytes ‖ 4 B big-endian segment number ‖ 1 B last flag. The key is
/// derived for one salt, so the nonce prefix of STREAM is empty.
///
/// **Source** Hoang, Reyhanitabar, Rogaway, Vizár: "Online Authenticated-Encryption and its
/// Nonce-Reuse Misuse-Resistance" (CRYPTO 2015), section 7, STREAM.
#[derive(Debug)]
pub struct StreamKey {
    key: Secret32,
    commitment: [u8; COMMITMENT_LEN],
}

impl StreamKey {
    /// Derives the key and commitment of `salt` under `secret`.
    #[must_use]
    pub fn derive(secret: &Secret32, salt: &[u8], label: Label) -> Self {
        let prk = kdf::extract(salt, secret.expose());
        let key = kdf::expand(&prk, &[&label.to_bytes(), b"key"]);
        let commitment = *kdf::expand(&prk, &[&label.to_bytes(), b"commit"]).expose();
        Self { key, commitment }
    }

    /// Returns the commitment, which travels in clear beside the ciphertext.
    #[must_use]
    pub fn commitment(&self) -> &[u8; COMMITMENT_LEN] {
        &self.commitment
    }

    /// Checks a commitment that travelled. Callers do so before they open anything.
    ///
    /// **Errors** [`OpenError::Commitment`].
    pub fn check_commitment(&self, travelled: &[u8]) -> Result<(), OpenError> {
        if equal(&self.commitment, travelled) { Ok(()) } else { Err(OpenError::Commitment) }
    }

    /// Seals segment `number` in place: all of `segment` but its last [`TAG_LEN`] bytes is
    /// plaintext, and the tag is written there.
    ///
    /// **Panics** when `segment` is shorter than a tag, which is a bug of the caller.
    pub fn seal_segment(&self, number: u32, last: bool, aad: &[u8], segment: &mut [u8]) {
        let (plain, tag_place) = segment.split_at_mut(segment.len() - TAG_LEN);
        #[expect(clippy::expect_used, reason = "fails only beyond the AEAD's length limit of 2^36")]
        let tag = self
            .cipher()
            .seal_in_place_separate_tag(nonce(number, last), Aad::from(aad), plain)
            .expect("a segment is far below the length limit");
        tag_place.copy_from_slice(tag.as_ref());
    }

    /// Opens segment `number` in place and returns its plaintext.
    ///
    /// **Errors** [`OpenError::Forged`] or [`OpenError::Truncated`]; the buffer's content is then
    /// meaningless and must not be used.
    pub fn open_segment<'a>(
        &self,
        number: u32,
        last: bool,
        aad: &[u8],
        segment: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        if segment.len() < TAG_LEN {
            return Err(OpenError::Truncated);
        }
        self.cipher()
            .open_in_place(nonce(number, last), Aad::from(aad), segment)
            .map_err(|_| OpenError::Forged)
    }

    #[expect(clippy::expect_used, reason = "a 32-byte key is always accepted")]
    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM_SIV, self.key.expose());
        LessSafeKey::new(key.expect("the key has 32 bytes"))
    }
}

/// Seals a small message: `salt[32] ‖ commitment[32] ‖ ciphertext ‖ tag[16]`.
#[must_use]
pub fn seal_box(
    secret: &Secret32,
    label: Label,
    aad: &[u8],
    plain: &[u8],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Vec<u8> {
    let mut sealed = vec![0; plain.len() + BOX_OVERHEAD];
    rng.fill_bytes(&mut sealed[..SALT_LEN]);
    let key = StreamKey::derive(secret, &sealed[..SALT_LEN], label);
    sealed[SALT_LEN..SALT_LEN + COMMITMENT_LEN].copy_from_slice(&key.commitment);
    let body = &mut sealed[SALT_LEN + COMMITMENT_LEN..];
    body[..plain.len()].copy_from_slice(plain);
    key.seal_segment(0, true, aad, body);
    sealed
}

/// Opens what [`seal_box`] sealed.
///
/// **Errors** [`OpenError`]; nothing of the plaintext is released then.
pub fn open_box(
    secret: &Secret32,
    label: Label,
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>, OpenError> {
    if sealed.len() < BOX_OVERHEAD {
        return Err(OpenError::Truncated);
    }
    let (salt, rest) = sealed.split_at(SALT_LEN);
    let (commitment, body) = rest.split_at(COMMITMENT_LEN);
    let key = StreamKey::derive(secret, salt, label);
    key.check_commitment(commitment)?;
    let mut body = body.to_vec();
    let len = key.open_segment(0, true, aad, &mut body)?.len();
    body.truncate(len);
    Ok(body)
}

fn nonce(number: u32, last: bool) -> Nonce {
    let mut bytes = [0; 12];
    bytes[7..11].copy_from_slice(&number.to_be_bytes());
    bytes[11] = u8::from(last);
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::from_hex;

    const LABEL: Label = Label::new("test");

    fn secret(byte: u8) -> Secret32 {
        Secret32::init_with(|b| b.fill(byte))
    }

    fn rng() -> rand_chacha::ChaCha20Rng {
        rand_core::SeedableRng::seed_from_u64(1)
    }

    /// RFC 8452, appendix C.2, AEAD_AES_256_GCM_SIV: plaintexts of 0, 8 and 16 bytes, and the
    /// first with additional data.
    #[test]
    fn rfc_8452_vectors() {
        let key = from_hex("0100000000000000000000000000000000000000000000000000000000000000");
        let nonce = from_hex("030000000000000000000000");
        let cases = [
            ("", "", "07f5f4169bbf55a8400cd47ea6fd400f"),
            ("0100000000000000", "", "c2ef328e5c71c83b843122130f7364b761e0b97427e3df28"),
            (
                "01000000000000000000000000000000",
                "",
                "85a01b63025ba19b7fd3ddfc033b3e76c9eac6fa700942702e90862383c6c366",
            ),
            ("0200000000000000", "01", "1de22967237a813291213f267e3b452f02d01ae33e4ec854"),
        ];
        for (plain, aad, expected) in cases {
            let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM_SIV, &key).expect("key"));
            let mut bytes = from_hex(plain);
            let nonce = Nonce::try_assume_unique_for_key(&nonce).expect("nonce");
            cipher
                .seal_in_place_append_tag(nonce, Aad::from(from_hex(aad)), &mut bytes)
                .expect("seals");
            assert_eq!(bytes, from_hex(expected));
        }
    }

    /// What this room seals, RustCrypto's implementation opens.
    #[test]
    fn a_second_implementation_opens_a_segment() {
        use aes_gcm_siv::{
            Aes256GcmSiv, KeyInit,
            aead::{Aead, Payload},
        };
        let key = StreamKey::derive(&secret(7), b"salt", LABEL);
        let mut segment = b"hello, segment................".to_vec();
        key.seal_segment(5, true, b"aad", &mut segment);
        let other = Aes256GcmSiv::new_from_slice(key.key.expose()).expect("key");
        let mut nonce = [0u8; 12];
        nonce[10] = 5;
        nonce[11] = 1;
        let opened =
            other.decrypt((&nonce).into(), Payload { msg: &segment, aad: b"aad" }).expect("opens");
        assert_eq!(opened, b"hello, segment");
    }

    #[test]
    fn a_segment_opens_in_its_place_only() {
        let key = StreamKey::derive(&secret(1), b"salt", LABEL);
        let mut sealed = vec![9; 40];
        key.seal_segment(3, false, b"aad", &mut sealed);
        let open =
            |n, last, aad: &[u8]| key.open_segment(n, last, aad, &mut sealed.clone()).is_ok();
        assert!(open(3, false, b"aad"));
        assert!(!open(4, false, b"aad"));
        assert!(!open(3, true, b"aad"));
        assert!(!open(3, false, b"other"));
        assert_eq!(key.open_segment(3, false, b"aad", &mut [0; 15]), Err(OpenError::Truncated));
    }

    #[test]
    fn every_flipped_bit_of_a_box_is_refused() {
        let sealed = seal_box(&secret(1), LABEL, b"aad", b"message", &mut rng());
        assert_eq!(open_box(&secret(1), LABEL, b"aad", &sealed).expect("opens"), b"message");
        for bit in 0..sealed.len() * 8 {
            let mut forged = sealed.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(open_box(&secret(1), LABEL, b"aad", &forged).is_err(), "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert!(open_box(&secret(1), LABEL, b"aad", &sealed[..len]).is_err(), "length {len}");
        }
    }

    #[test]
    fn another_key_is_named_by_the_commitment() {
        let sealed = seal_box(&secret(1), LABEL, b"", b"message", &mut rng());
        assert_eq!(open_box(&secret(2), LABEL, b"", &sealed), Err(OpenError::Commitment));
        assert_eq!(
            open_box(&secret(1), Label::new("other"), b"", &sealed),
            Err(OpenError::Commitment)
        );
    }
}
