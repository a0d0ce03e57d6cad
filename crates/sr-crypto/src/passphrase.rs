//! A passphrase as a key: Argon2id (RFC 9106), for keys at rest on this device and nothing else.

use argon2::{Algorithm, Argon2, Params, Version};

use crate::Secret32;

/// Length of the salt.
pub const PASSPHRASE_SALT_LEN: usize = 16;

/// What each guess costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Cost {
    /// 256 MiB and three passes: under a second on a laptop of today.
    pub const DEFAULT: Self = Self { memory_kib: 256 * 1024, passes: 3 };
}

/// Derives a key from a passphrase with Argon2id, one lane; `None` for a cost that Argon2 does not
/// have.
#[must_use]
pub fn stretch(
    passphrase: &[u8],
    salt: &[u8; PASSPHRASE_SALT_LEN],
    cost: Cost,
) -> Option<Secret32> {
    let params = Params::new(cost.memory_kib, cost.passes, 1, Some(32)).ok()?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let mut done = Ok(());
    let key = Secret32::init_with(|key| done = argon2.hash_password_into(passphrase, salt, key));
    done.ok().map(|()| key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::from_hex;
    use argon2::{AssociatedData, ParamsBuilder};

    /// RFC 9106, section 5.3.
    #[test]
    fn rfc_9106_vector() {
        let params = ParamsBuilder::new()
            .m_cost(32)
            .t_cost(3)
            .p_cost(4)
            .data(AssociatedData::new(&[4; 12]).expect("short"))
            .build()
            .expect("params");
        let argon2 = Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params)
            .expect("secret");
        let mut tag = [0; 32];
        argon2.hash_password_into(&[1; 32], &[2; 16], &mut tag).expect("hashes");
        let expected = "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659";
        assert_eq!(tag.to_vec(), from_hex(expected));
    }

    #[test]
    fn passphrase_salt_and_cost_all_count() {
        let cost = Cost { memory_kib: 64, passes: 1 };
        let key = |passphrase: &[u8], salt, cost| {
            *stretch(passphrase, &[salt; 16], cost).expect("a key").expose()
        };
        let one = key(b"one", 1, cost);
        assert_ne!(one, key(b"two", 1, cost));
        assert_ne!(one, key(b"one", 2, cost));
        assert_ne!(one, key(b"one", 1, Cost { passes: 2, ..cost }));
        assert!(stretch(b"one", &[1; 16], Cost { memory_kib: 0, passes: 1 }).is_none());
    }
}
