//! Heads: the one signed sentence that says what a vault is now. See `spec/head.md`.

use sr_crypto::{CryptoRng, Hash, SigningKey, hash, open_box, seal_box, verify};
use sr_keys::{GENERATION, VaultKeys, device_id};
use sr_wire::{
    DeviceId, EMPTY_HEAD_HASH, Malformed, Misbehaviour, PackId, SealedHead, VaultId, decode,
    decode_first, encode, labels,
    limits::{HEAD_LEN, SEALED_HEAD_LEN},
};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize, VLBytes};

/// What a device signs about its vault.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Head {
    /// The vault.
    pub vault: VaultId,
    /// Place in the chain of heads, from 1.
    pub seq: u64,
    /// Hash of the sealed head before.
    pub previous: Hash,
    /// Root of the set of snapshots.
    pub snapshot_set: Hash,
    /// Root of the set of indexes.
    pub index_set: Hash,
    /// The pack that holds the manifest.
    pub manifest: PackId,
    /// Generation of the vault key.
    pub generation: u32,
    /// Root of those who may sign: the one device.
    pub members: Hash,
    /// Who signed.
    pub signer: DeviceId,
    /// Signer's place in the account chain; 0 before there is one.
    pub chain_seq: u64,
    /// Hash of the block there; zeros before there is one.
    pub chain_hash: Hash,
    /// Unix seconds by the signer's clock.
    pub time_s: u64,
}

#[derive(TlsSerialize, TlsDeserializeBytes, TlsSize)]
struct SignedHead {
    head: VLBytes,
    signature: VLBytes,
}

/// A head that this client accepted, or sent and awaits an answer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadPlace {
    /// Its seq; 0 for a space without a head.
    pub seq: u64,
    /// Its hash.
    pub hash: Hash,
}

impl HeadPlace {
    /// The place before the first head.
    pub const EMPTY: Self = Self { seq: 0, hash: EMPTY_HEAD_HASH };

    /// Returns the place of `head`, [`HeadPlace::EMPTY`] for none.
    #[must_use]
    pub fn of(head: Option<&SealedHead>) -> Self {
        head.map_or(Self::EMPTY, |head| Self { seq: head.seq, hash: head.hash() })
    }
}

/// Which head the server shows, among those that it may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The one that this client accepted last.
    Accepted,
    /// The one that this client sent without hearing an answer: it arrived.
    Sent,
}

/// What a new head says.
#[derive(Clone, Copy, Debug)]
pub struct NewHead {
    /// The head before.
    pub previous: HeadPlace,
    /// Root of the set of snapshots.
    pub snapshot_set: Hash,
    /// Root of the set of indexes.
    pub index_set: Hash,
    /// The pack that holds the manifest.
    pub manifest: PackId,
    /// Unix seconds.
    pub time_s: u64,
}

impl NewHead {
    /// Signs and seals the head that follows `previous`.
    #[must_use]
    pub fn seal(
        &self,
        keys: &VaultKeys,
        device: &SigningKey,
        rng: &mut (impl CryptoRng + ?Sized),
    ) -> SealedHead {
        let signer = device_id(device.public_key());
        let head = Head {
            vault: keys.vault(),
            seq: self.previous.seq + 1,
            previous: self.previous.hash,
            snapshot_set: self.snapshot_set,
            index_set: self.index_set,
            manifest: self.manifest,
            generation: GENERATION,
            members: members_root(signer),
            signer,
            chain_seq: 0,
            chain_hash: [0; 32],
            time_s: self.time_s,
        };
        seal(&head, keys, device, rng)
    }
}

/// Decides whether the head that the server shows is one that it may show. With one device, that
/// is the one accepted last, or the one sent last if its answer was lost.
///
/// **Errors** [`Misbehaviour::HeadRolledBack`] or [`Misbehaviour::HeadForked`].
pub fn judge(
    accepted: HeadPlace,
    sent: Option<HeadPlace>,
    shown: HeadPlace,
) -> Result<Shown, Misbehaviour> {
    if shown == accepted {
        return Ok(Shown::Accepted);
    }
    if Some(shown) == sent {
        return Ok(Shown::Sent);
    }
    // SR-006
    Misbehaviour::HeadRolledBack.refuse_if(shown.seq < accepted.seq)?;
    // SR-007
    Misbehaviour::HeadForked.refuse_if(shown.seq >= accepted.seq)?;
    Ok(Shown::Accepted)
}

/// Opens a head and verifies that the pinned device signed it for this vault and place.
///
/// **Errors** [`Misbehaviour::HeadAltered`] or [`Misbehaviour::SignerUnknown`].
pub fn open(
    sealed: &SealedHead,
    keys: &VaultKeys,
    device_public: &[u8],
) -> Result<Head, Misbehaviour> {
    // SR-005
    let altered = Misbehaviour::HeadAltered;
    if sealed.sealed.as_slice().len() != SEALED_HEAD_LEN || sealed.space != keys.space() {
        return Err(altered);
    }
    let aad = sealed.associated_data();
    let plain = open_box(&keys.head_key(), labels::HEAD, &aad, sealed.sealed.as_slice())
        .map_err(|_| altered)?;
    let (bytes, signature) = split(&plain).map_err(|_| altered)?;
    let head: Head = decode("head", &bytes, HEAD_LEN).map_err(|_| altered)?;
    let outside = (head.seq, head.previous, head.generation);
    if head.vault != keys.vault()
        || head.generation != GENERATION
        || outside != (sealed.seq, sealed.previous, sealed.generation)
    {
        return Err(altered);
    }
    let signer = device_id(device_public);
    let pinned = head.signer == signer
        && head.members == members_root(signer)
        && (head.chain_seq, head.chain_hash) == (0, [0; 32])
        && verify(labels::HEAD_SIGN, device_public, &bytes, &signature).is_ok();
    // SR-014
    Misbehaviour::SignerUnknown.refuse_if(!pinned)?;
    Ok(head)
}

fn seal(
    head: &Head,
    keys: &VaultKeys,
    device: &SigningKey,
    rng: &mut (impl CryptoRng + ?Sized),
) -> SealedHead {
    let bytes = encode(head);
    let signature = device.sign(labels::HEAD_SIGN, &bytes);
    let mut plain = encode(&SignedHead { head: bytes.into(), signature: signature.into() });
    plain.resize(HEAD_LEN, 0);
    let mut sealed = SealedHead {
        space: keys.space(),
        seq: head.seq,
        generation: head.generation,
        previous: head.previous,
        sealed: Vec::new().into(),
    };
    let aad = sealed.associated_data();
    sealed.sealed = seal_box(&keys.head_key(), labels::HEAD, &aad, &plain, rng).into();
    sealed
}

fn split(plain: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
    let malformed = Malformed { what: "head" };
    let (signed, padding): (SignedHead, _) = decode_first("head", plain)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(malformed);
    }
    Ok((signed.head.into(), signed.signature.into()))
}

fn members_root(signer: DeviceId) -> Hash {
    hash(labels::MEMBERS, &[&signer.0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
    use sr_keys::Keys;

    fn keys(seed: u64) -> Keys {
        Keys::generate(&mut ChaCha20Rng::seed_from_u64(seed))
    }

    fn new_head(previous: HeadPlace) -> NewHead {
        NewHead {
            previous,
            snapshot_set: [1; 32],
            index_set: [2; 32],
            manifest: PackId([3; 32]),
            time_s: 4,
        }
    }

    fn sealed(keys: &Keys) -> SealedHead {
        new_head(HeadPlace::EMPTY).seal(
            &keys.vault,
            &keys.device(),
            &mut ChaCha20Rng::seed_from_u64(9),
        )
    }

    #[test]
    fn a_head_opens_for_its_vault_place_and_signer_only() {
        let keys = keys(1);
        let device = keys.device();
        let sealed = sealed(&keys);
        assert_eq!(sealed.sealed.as_slice().len(), SEALED_HEAD_LEN);
        let head = open(&sealed, &keys.vault, device.public_key()).expect("opens");
        assert_eq!((head.seq, head.previous, head.manifest), (1, EMPTY_HEAD_HASH, PackId([3; 32])));

        let altered = Err(Misbehaviour::HeadAltered);
        let refused = |change: &dyn Fn(&mut SealedHead)| {
            let mut forged = sealed.clone();
            change(&mut forged);
            assert_eq!(open(&forged, &keys.vault, device.public_key()), altered);
        };
        refused(&|h| h.seq += 1);
        refused(&|h| h.generation += 1);
        refused(&|h| h.previous = [7; 32]);
        refused(&|h| h.space.0[0] ^= 1);
        for place in (0..SEALED_HEAD_LEN).step_by(101) {
            refused(&|h| {
                let mut bytes = h.sealed.as_slice().to_vec();
                bytes[place] ^= 1;
                h.sealed = bytes.into();
            });
        }
        refused(&|h| h.sealed = h.sealed.as_slice()[1..].to_vec().into());
        let other = super::tests::keys(2);
        assert_eq!(
            open(&sealed, &keys.vault, other.device().public_key()),
            Err(Misbehaviour::SignerUnknown)
        );
    }

    /// Someone who learned the vault key, but holds no device key, cannot write a head.
    #[test]
    fn the_vault_key_alone_signs_nothing() {
        let keys = keys(1);
        let thief = super::tests::keys(2).device();
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let forged = new_head(HeadPlace::EMPTY).seal(&keys.vault, &thief, &mut rng);
        let refused = open(&forged, &keys.vault, keys.device().public_key());
        assert_eq!(refused, Err(Misbehaviour::SignerUnknown));
    }

    #[test]
    fn the_server_may_show_the_accepted_or_the_sent_head_only() {
        let place = |seq, byte| HeadPlace { seq, hash: [byte; 32] };
        let (accepted, sent) = (place(5, 1), Some(place(6, 2)));
        assert_eq!(judge(accepted, sent, place(5, 1)), Ok(Shown::Accepted));
        assert_eq!(judge(accepted, sent, place(6, 2)), Ok(Shown::Sent));
        let rolled_back = Err(Misbehaviour::HeadRolledBack);
        let forked = Err(Misbehaviour::HeadForked);
        assert_eq!(judge(accepted, sent, place(4, 1)), rolled_back);
        assert_eq!(judge(accepted, sent, HeadPlace::EMPTY), rolled_back);
        assert_eq!(judge(accepted, sent, place(5, 9)), forked);
        assert_eq!(judge(accepted, sent, place(6, 9)), forked);
        assert_eq!(judge(accepted, None, place(7, 1)), forked);
    }
}
