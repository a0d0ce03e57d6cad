//! An account with one device and one vault.

use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sr_keys::{AccountKeys, DeviceKeys, VaultKeys};
use sr_trust::{Account, Op, Role, Verified, account_id};
use sr_wire::{SpaceId, VaultId};

/// Its key block is none: nothing here opens one, and so its id is the same at each run.
pub(crate) struct House {
    pub(crate) account: Verified<Account>,
    pub(crate) vault: VaultKeys,
    pub(crate) device: DeviceKeys,
}

impl House {
    pub(crate) fn new(seed: u64) -> Self {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let device = DeviceKeys::generate(&mut rng);
        let secrets = AccountKeys::generate(&mut rng);
        let (vault, space) = (VaultId::random(&mut rng), SpaceId::random(&mut rng));
        let op = Op::Genesis {
            salt: [1; 32],
            device: device.info(),
            seed_commit: [2; 32],
            key: secrets.account_key([3; 32]),
            delay_s: 1000,
            home: [4; 32],
        };
        let body = Account::genesis(op, 1).expect("allowed");
        let id = account_id(&body);
        let genesis = body.sign(&[(Role::Device, &device.signing())], Vec::new());
        let account = Verified::begin(id, &genesis).expect("verifies");
        let vault = secrets.vault(vault, space);
        Self { account, vault, device }
    }
}
