//! k of n: a secret in shares, of which any k give it back and fewer tell nothing.
//!
//! **Source** Shamir, "How to Share a Secret" (1979), over GF(256), by the crate `blahaj`. Shares carry
//! no check of their own: who joins them compares the public key that the secret yields.

use std::collections::BTreeSet;

use blahaj::{Share, Sharks};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::Secret32;

/// Length of a share: its number and 32 bytes.
pub const SHARE_LEN: usize = 33;

/// Splits a secret into `count` shares, any `need` of which give it back.
pub fn split(
    secret: &Secret32,
    need: u8,
    count: usize,
    rng: &mut (impl CryptoRng + ?Sized),
) -> Vec<Zeroizing<Vec<u8>>> {
    // The library wants a sized generator.
    let mut rng = rng;
    Sharks(need)
        .dealer_rng(secret.expose(), &mut rng)
        .take(count)
        .map(|share| Zeroizing::new(Vec::from(&share)))
        .collect()
}

/// Joins shares; `None` for fewer than `need` different ones, or bytes that are none. Shares that do
/// not belong together give a secret that is not the one that was split.
#[must_use]
pub fn join(shares: &[&[u8]], need: u8) -> Option<Secret32> {
    let different: BTreeSet<&[u8]> = shares.iter().copied().collect();
    let shares: Option<Vec<Share>> = different
        .into_iter()
        .filter(|share| share.len() == SHARE_LEN)
        .map(|share| Share::try_from(share).ok())
        .collect();
    let secret = Zeroizing::new(Sharks(need).recover(&shares?).ok()?);
    let bytes: &[u8; 32] = secret.as_slice().try_into().ok()?;
    Some(Secret32::init_with(|secret| secret.copy_from_slice(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(seed: u64) -> Vec<Vec<u8>> {
        let mut rng: rand_chacha::ChaCha20Rng = rand_core::SeedableRng::seed_from_u64(seed);
        let secret = Secret32::init_with(|s| s.fill(7));
        split(&secret, 2, 3, &mut rng).iter().map(|share| share.to_vec()).collect()
    }

    #[test]
    fn any_two_of_three_give_it_back_and_one_does_not() {
        let all = shares(1);
        for (a, b) in [(0, 1), (0, 2), (1, 2), (2, 0)] {
            let joined = join(&[&all[a], &all[b]], 2).expect("joins");
            assert_eq!(joined.expose(), &[7; 32]);
        }
        assert!(join(&[&all[0]], 2).is_none());
        assert!(join(&[&all[0], &all[0]], 2).is_none());
        assert!(join(&[&all[0], &all[1][1..]], 2).is_none());
        let twice = join(&[&all[0], &all[0], &all[1]], 2).expect("joins");
        assert_eq!(twice.expose(), &[7; 32]);
        assert!(join(&[], 2).is_none());
        let others = shares(2);
        let mixed = join(&[&all[0], &others[1]], 2).expect("joins to something");
        assert_ne!(mixed.expose(), &[7; 32]);
    }

    /// Over GF(256), the line through two points is fixed, and through one there is a line to every
    /// secret: one share tells nothing.
    #[test]
    fn one_share_fits_every_secret() {
        let one = &shares(1)[0];
        let mut seen = std::collections::BTreeSet::new();
        for other in 0..=255u8 {
            let forged = [&[2][..], &[other; 32]].concat();
            seen.insert(join(&[one, &forged], 2).expect("joins").expose()[0]);
        }
        assert_eq!(seen.len(), 256);
    }
}
