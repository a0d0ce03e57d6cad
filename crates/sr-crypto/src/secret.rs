//! The one type that holds secret bytes.

use std::fmt;

use rand_core::CryptoRng;
use zeroize::Zeroizing;

/// 32 secret bytes: boxed, so that moves leave no copies behind, and wiped on drop.
///
/// It implements none of `Clone`, `Copy`, `PartialEq`, `Display` and serialisation on purpose.
pub struct Secret32(Box<Zeroizing<[u8; 32]>>);

impl Secret32 {
    /// Makes a secret by filling it in place.
    pub fn init_with(fill: impl FnOnce(&mut [u8; 32])) -> Self {
        let mut secret = Self(Box::new(Zeroizing::new([0; 32])));
        fill(&mut secret.0);
        secret
    }

    /// Makes a secret from `rng`.
    pub fn random(rng: &mut (impl CryptoRng + ?Sized)) -> Self {
        Self::init_with(|bytes| rng.fill_bytes(bytes))
    }

    /// Returns the bytes. Callers keep no copy that outlives the borrow.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret32(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let secret = Secret32::init_with(|b| b.fill(0x41));
        assert_eq!(format!("{secret:?}"), "Secret32(..)");
    }
}
