//! The one codec of everything that is hashed, signed, sealed or sent.

use thiserror::Error;
use tls_codec::{DeserializeBytes, Serialize};

/// Bytes that are not the canonical form of what they should be.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("malformed {what}")]
pub struct Malformed {
    /// What was being read.
    pub what: &'static str,
}

/// Returns the canonical bytes of `value`.
///
/// **Panics** when a vector in it is longer than 2^30 bytes; every writer checks its limits first.
#[must_use]
#[expect(clippy::expect_used, reason = "writing to memory fails for over-long vectors only")]
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    value.tls_serialize_detached().expect("no vector is longer than 2^30 bytes")
}

/// Reads exactly one `T` from all of `bytes`, which may be `len_max` long.
///
/// The library lets the last element of a vector end behind the vector's own length, so the value
/// is written again and compared: what is accepted has one form only.
///
/// **Errors** [`Malformed`] for bytes that are too long, too short, left over or not canonical.
pub fn decode<T: DeserializeBytes + Serialize>(
    what: &'static str,
    bytes: &[u8],
    len_max: usize,
) -> Result<T, Malformed> {
    if bytes.len() > len_max {
        return Err(Malformed { what });
    }
    match T::tls_deserialize_exact_bytes(bytes) {
        Ok(value) if encode(&value) == bytes => Ok(value),
        _ => Err(Malformed { what }),
    }
}

/// Reads one `T` from the beginning of `bytes` and returns it with the rest.
///
/// **Errors** [`Malformed`] as [`decode`].
pub fn decode_first<'a, T: DeserializeBytes + Serialize>(
    what: &'static str,
    bytes: &'a [u8],
) -> Result<(T, &'a [u8]), Malformed> {
    match T::tls_deserialize_bytes(bytes) {
        Ok((value, rest)) if encode(&value) == bytes[..bytes.len() - rest.len()] => {
            Ok((value, rest))
        }
        _ => Err(Malformed { what }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PackId, SpaceId, VLBytes};

    #[test]
    fn one_form_only() {
        let list = vec![PackId([1; 32]), PackId([2; 32])];
        let bytes = encode(&list);
        assert_eq!(decode::<Vec<PackId>>("list", &bytes, 100), Ok(list));
        let malformed = Err(Malformed { what: "list" });
        assert_eq!(decode::<Vec<PackId>>("list", &bytes, 10), malformed);
        for len in 0..bytes.len() {
            assert_eq!(decode::<Vec<PackId>>("list", &bytes[..len], 100), malformed);
        }
        // A length that ends within the last element, and one in a longer form than needed.
        let mut short = bytes.clone();
        short[1] -= 1;
        assert_eq!(decode::<Vec<PackId>>("list", &short, 100), malformed);
        assert!(decode::<VLBytes>("bytes", &[0x40, 1, 7], 100).is_err());
        assert!(decode::<VLBytes>("bytes", &[0xff; 40], 100).is_err());
        assert!(decode_first::<SpaceId>("space", &[0; 15]).is_err());
        assert_eq!(decode_first("space", &[0; 17]), Ok((SpaceId([0; 16]), &[0][..])));
    }
}
