//! HKDF-SHA-256 (RFC 5869).

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};

use crate::{Label, Secret32};

/// Derives `HKDF(salt, secret, label ‖ info)`: 32 bytes for one purpose.
///
/// **Source** RFC 5869 with SHA-256; `info` is `label.to_bytes() ‖ info`.
#[must_use]
pub fn derive(secret: &Secret32, salt: &[u8], label: Label, info: &[u8]) -> Secret32 {
    expand(&extract(salt, secret.expose()), &[&label.to_bytes(), info])
}

pub(crate) fn extract(salt: &[u8], secret: &[u8]) -> Prk {
    Salt::new(HKDF_SHA256, salt).extract(secret)
}

pub(crate) fn expand(prk: &Prk, info: &[&[u8]]) -> Secret32 {
    Secret32::init_with(|out| fill(prk, info, out))
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[expect(clippy::expect_used, reason = "HKDF fails above 255 hash lengths only; ours are short")]
fn fill(prk: &Prk, info: &[&[u8]], out: &mut [u8]) {
    prk.expand(info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("output is at most 255 hash lengths");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::from_hex;

    /// RFC 5869, appendix A.1, A.2 and A.3.
    #[test]
    fn rfc_5869_vectors() {
        let range = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
        let cases = [
            (
                vec![0x0b; 22],
                range(0, 0x0c),
                range(0xf0, 0xf9),
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            ),
            (
                range(0, 0x4f),
                range(0x60, 0xaf),
                range(0xb0, 0xff),
                "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
            ),
            (
                vec![0x0b; 22],
                vec![],
                vec![],
                "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            ),
        ];
        for (ikm, salt, info, okm) in cases {
            let expected = from_hex(okm);
            let mut out = vec![0; expected.len()];
            fill(&extract(&salt, &ikm), &[&info], &mut out);
            assert_eq!(out, expected);
        }
    }
}
