//! Bytes as text that people can copy: Crockford's base32 in lower case, and hex.

use std::sync::LazyLock;

use data_encoding::{Encoding, HEXLOWER, HEXLOWER_PERMISSIVE, Specification};

/// Crockford's alphabet. Reading is forgiving: capitals, `o` for 0, `i` and `l` for 1, hyphens.
static CROCKFORD: LazyLock<Encoding> = LazyLock::new(|| {
    let mut spec = Specification::new();
    spec.symbols.push_str("0123456789abcdefghjkmnpqrstvwxyz");
    spec.translate.from.push_str("ABCDEFGHJKMNPQRSTVWXYZoOiIlL");
    spec.translate.to.push_str("abcdefghjkmnpqrstvwxyz001111");
    spec.ignore.push_str("- ");
    #[expect(clippy::expect_used, reason = "the specification is a constant; a test builds it")]
    spec.encoding().expect("a constant specification")
});

/// Returns `bytes` in Crockford base32, lower case, without padding.
#[must_use]
pub fn to_base32(bytes: &[u8]) -> String {
    CROCKFORD.encode(bytes)
}

/// Reads Crockford base32; `None` when a character or the length is wrong.
#[must_use]
pub fn from_base32(text: &str) -> Option<Vec<u8>> {
    CROCKFORD.decode(text.as_bytes()).ok()
}

/// Returns `bytes` in lower-case hex.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Reads a hash that a person typed in hex; `None` for anything else.
#[must_use]
pub fn hash_from_hex(text: &str) -> Option<crate::Hash> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// Reads hex that is known to be right (vectors, constants).
///
/// **Panics** on anything else.
#[must_use]
#[expect(clippy::expect_used, reason = "for constants; the doc says so")]
pub fn from_hex(text: &str) -> Vec<u8> {
    HEXLOWER_PERMISSIVE.decode(text.as_bytes()).expect("constant hex")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_forgives_what_people_type() {
        let text = to_base32(&[0x00, 0x44, 0x32, 0x14, 0xc7]);
        assert_eq!(text, "01234567");
        assert_eq!(from_base32("O1-23 4567"), from_base32("01234567"));
        assert_eq!(from_base32("oI234567"), from_base32("01234567"));
        assert_eq!(from_base32("u1234567"), None);
        assert_eq!(from_base32("0"), None);
    }

    #[test]
    fn a_hash_is_64_digits() {
        let text = "0A".repeat(32);
        assert_eq!(hash_from_hex(&text), Some([10; 32]));
        for wrong in ["", "0a", &text[1..], &"0g".repeat(32), &"0a".repeat(33), "é"] {
            assert_eq!(hash_from_hex(wrong), None, "{wrong}");
        }
    }
}
