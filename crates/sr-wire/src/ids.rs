//! Ids as bytes and as text: a type letter and lower-case Crockford base32.

use std::{fmt, str::FromStr};

use sr_crypto::{CryptoRng, text};
use thiserror::Error;
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize};

/// The text is not an id of the wanted kind.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("not an id that begins with `{letter}`")]
pub struct IdError {
    letter: char,
}

macro_rules! id {
    ($name:ident, $len:literal, $letter:literal, $doc:literal) => {
        #[doc = $doc]
        #[derive(
            Clone,
            Copy,
            PartialEq,
            Eq,
            PartialOrd,
            Ord,
            Hash,
            TlsSerialize,
            TlsDeserializeBytes,
            TlsSize,
        )]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Makes a random id.
            pub fn random(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
                let mut bytes = [0; $len];
                rng.fill_bytes(&mut bytes);
                Self(bytes)
            }

            /// Reads an id from exactly its bytes.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                bytes.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $letter, text::to_base32(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                text.strip_prefix($letter)
                    .and_then(text::from_base32)
                    .and_then(|bytes| bytes.try_into().ok())
                    .map(Self)
                    .ok_or(IdError { letter: $letter })
            }
        }
    };
}

id!(AccountId, 32, 'a', "An account: the hash of its genesis.");
id!(VaultId, 16, 'v', "A vault: the packs, indexes and snapshots under one line of keys. Random.");
id!(SpaceId, 16, 's', "A space: all the server knows of a vault. Random.");
id!(PackId, 32, 'p', "A pack, and the salt of its key. Random.");
id!(SnapshotId, 32, 'n', "A snapshot: the keyed hash of its content.");
id!(DeviceId, 32, 'd', "A device: the hash of its public signing key.");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_and_kinds_do_not_mix() {
        let id = SpaceId([7; 16]);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.to_string().parse::<VaultId>(), Err(IdError { letter: 'v' }));
        assert!("s123".parse::<SpaceId>().is_err());
    }
}
