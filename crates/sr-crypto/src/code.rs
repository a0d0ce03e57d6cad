//! The recovery code: 128 secret bits as 28 characters that people copy by hand.
//!
//! 26 characters of data (2 bits of version, 128 bits of secret) and 2 check characters: a
//! Reed-Solomon code over GF(32), whose distance of 3 finds any two wrong characters and any two
//! swapped ones. A checksum, and no cryptography.
//!
//! **Source** Reed and Solomon, "Polynomial Codes over Certain Finite Fields" (1960), with the
//! generator (x − α)(x − α²) and the field `GF(2)[α]/(α⁵ + α² + 1)`.

use thiserror::Error;
use zeroize::Zeroizing;

use crate::Secret32;

/// Characters of a code.
pub const CODE_LEN: usize = 28;
const DATA_LEN: usize = 26;
/// Bytes of secret.
pub const CODE_SECRET_LEN: usize = 16;
/// The low bits of α⁵.
const REDUCTION: u8 = 0b0_0101;
/// Crockford's alphabet.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Why a text is no code.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CodeError {
    /// Not 28 characters.
    #[error("a recovery code has 28 characters, and this one has {0}")]
    Length(usize),
    /// A character that no code has.
    #[error("`{0}` is in no recovery code")]
    Character(char),
    /// A character is wrong, or two are swapped.
    #[error("a character is wrong, or two are swapped")]
    Check,
    /// Made by another version.
    #[error("this recovery code is of a version that this program does not know")]
    Version,
}

/// Writes the first 16 bytes of `secret` as 7 groups of 4 characters.
#[must_use]
pub fn to_code(secret: &Secret32) -> Zeroizing<String> {
    let mut number = [0; CODE_SECRET_LEN];
    number.copy_from_slice(&secret.expose()[..CODE_SECRET_LEN]);
    let number = Zeroizing::new(u128::from_be_bytes(number));
    let mut symbols = Zeroizing::new([0u8; CODE_LEN]);
    // The first symbol has the version, which is 0, and the upper 3 bits of the secret.
    for (place, symbol) in symbols[..DATA_LEN].iter_mut().enumerate() {
        *symbol = low_five(*number >> (5 * (DATA_LEN - 1 - place)));
    }
    let check = remainder(&symbols[..DATA_LEN]);
    symbols[DATA_LEN..].copy_from_slice(&check);
    let mut text = Zeroizing::new(String::with_capacity(CODE_LEN + 6));
    for (place, symbol) in symbols.iter().enumerate() {
        if place > 0 && place % 4 == 0 {
            text.push('-');
        }
        text.push(char::from(ALPHABET[usize::from(*symbol)]));
    }
    text
}

/// Reads a code, as forgiving as people need: small letters, `o` for 0, `i` and `l` for 1, and
/// hyphens and spaces anywhere. The secret is the first 16 bytes, the others are zero.
///
/// **Errors** [`CodeError`].
pub fn from_code(text: &str) -> Result<Secret32, CodeError> {
    let mut symbols = Zeroizing::new(Vec::with_capacity(CODE_LEN));
    for character in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        symbols.push(symbol(character).ok_or(CodeError::Character(character))?);
    }
    if symbols.len() != CODE_LEN {
        return Err(CodeError::Length(symbols.len()));
    }
    if remainder(&symbols[..DATA_LEN]) != symbols[DATA_LEN..] {
        return Err(CodeError::Check);
    }
    if symbols[0] >> 3 != 0 {
        return Err(CodeError::Version);
    }
    let number = symbols[..DATA_LEN].iter().fold(0u128, |n, symbol| n << 5 | u128::from(*symbol));
    Ok(Secret32::init_with(|s| s[..CODE_SECRET_LEN].copy_from_slice(&number.to_be_bytes())))
}

fn symbol(character: char) -> Option<u8> {
    let character = match character.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    let place = ALPHABET.iter().position(|c| char::from(*c) == character)?;
    u8::try_from(place).ok()
}

/// The remainder of `data · x²` by (x − α)(x − α²) = x² + (α + α²)x + α³.
fn remainder(data: &[u8]) -> [u8; 2] {
    let mut rest = [0u8; 2];
    for symbol in data {
        let feedback = symbol ^ rest[0];
        rest = [rest[1] ^ multiply(feedback, 0b00110), multiply(feedback, 0b01000)];
    }
    rest
}

/// Multiplies in GF(32).
fn multiply(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b > 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        let carry = a >> 4 & 1;
        a = (a << 1 & 0b1_1111) ^ (carry * REDUCTION);
        b >>= 1;
    }
    product
}

fn low_five(number: u128) -> u8 {
    (number & 0b1_1111) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(bytes: [u8; 16]) -> Secret32 {
        Secret32::init_with(|s| s[..16].copy_from_slice(&bytes))
    }

    fn code() -> String {
        let bytes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 0xab, 0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98];
        to_code(&secret(bytes)).to_string()
    }

    /// Worked out by a second program (Python, polynomial division over GF(32) by log tables).
    #[test]
    fn vectors() {
        assert_eq!(code(), VECTOR);
        assert_eq!(*to_code(&secret([0; 16])), "0000-0000-0000-0000-0000-0000-0000");
        assert_eq!(*to_code(&secret([0xff; 16])), VECTOR_ONES);
    }

    const VECTOR: &str = "0108-1G81-860W-40KA-YDXZ-ZDSE-MRDM";
    const VECTOR_ONES: &str = "7ZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZZZ-ZZHZ";

    #[test]
    fn what_people_type_is_read() {
        let code = code();
        let read = |text: &str| from_code(text).map(|s| s.expose()[..16].to_vec());
        let expected = read(&code).expect("reads");
        assert_eq!(expected[..4], [1, 2, 3, 4]);
        assert_eq!(read(&code.to_lowercase().replace('-', " ")).as_ref(), Ok(&expected));
        assert_eq!(read(&code.replace('0', "o").replace('1', "l")).as_ref(), Ok(&expected));
        assert_eq!(read(&code[1..]), Err(CodeError::Length(27)));
        assert_eq!(read(&code.replacen('-', "U", 1)), Err(CodeError::Character('U')));
        assert_eq!(read(""), Err(CodeError::Length(0)));
    }

    /// All 28·31 single errors, all pairs of errors, all swaps.
    #[test]
    fn any_two_wrong_and_any_two_swapped_are_found() {
        let symbols: Vec<u8> =
            code().chars().filter(|c| *c != '-').map(|c| symbol(c).expect("symbol")).collect();
        let is_code = |s: &[u8]| remainder(&s[..DATA_LEN]) == s[DATA_LEN..];
        assert!(is_code(&symbols));
        for a in 0..CODE_LEN {
            for b in a..CODE_LEN {
                let mut swapped = symbols.clone();
                swapped.swap(a, b);
                assert_eq!(is_code(&swapped), symbols[a] == symbols[b], "{a} {b}");
                for x in 1..32 {
                    for y in 0..32 {
                        let mut wrong = symbols.clone();
                        wrong[a] ^= x;
                        wrong[b] ^= y;
                        assert!(wrong == symbols || !is_code(&wrong), "{a} {b} {x} {y}");
                    }
                }
            }
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut symbols = [0u8; CODE_LEN];
        symbols[0] = 0b01000;
        let check = remainder(&symbols[..DATA_LEN]);
        symbols[DATA_LEN..].copy_from_slice(&check);
        let text: String = symbols.iter().map(|s| char::from(ALPHABET[usize::from(*s)])).collect();
        assert_eq!(from_code(&text).err(), Some(CodeError::Version));
    }
}
