//! The one table of domain labels. A test holds that they are unique and prefix-free.

use sr_crypto::Label;

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: Label = Label::new($text);)*
        /// All of them; the two halves of a signing key are named in sr-crypto.
        pub const ALL: &[Label] =
            &[Label::new("sign/ed25519"), Label::new("sign/ml-dsa-65"), $($name),*];
    };
}

labels! {
    /// Hash that is an account's id.
    ACCOUNT = "account-id";
    /// Hash of an account's id, under which the log has its changes.
    ACCOUNT_INDEX = "account-index";
    /// Seed of the account's sealing key, from its root.
    ACCOUNT_KEM = "account-kem";
    /// Hash of an account's state.
    ACCOUNT_STATE = "account-state";
    /// What a removal commits to of the heads that its device accepts.
    ANCHORS = "anchors";
    /// A signature over a block of an account chain, and the block's hash.
    BLOCK = "block";
    /// Check of a folder's record in the cache of a device, and of where it is found.
    CACHE_FOLDER = "cache-folder";
    /// Seed of a right on a space.
    CAP = "cap";
    /// Hash of an account's id and of a block, which is what the log has of the block.
    BLOCK_COMMIT = "block-commit";
    /// Hash of a server card, and what a card's signature covers.
    CARD = "card";
    /// Hash of a log's origin, under which the log has the server's cards.
    CARD_INDEX = "card-index";
    /// The identity key's signature over the TLS key it serves with.
    CARD_TLS = "card-tls";
    /// Key of the keyed hash that names chunks of file content.
    CHUNK_DATA = "chunk-id/data";
    /// Key of the keyed hash that names snapshots.
    CHUNK_SNAPSHOT = "chunk-id/snapshot";
    /// Key of the keyed hash that names chunks of trees.
    CHUNK_TREE = "chunk-id/tree";
    /// Seed of the chunker's gear table.
    CHUNKER = "chunker";
    /// Hash of a contact's card, which its words are made of.
    CONTACT_CARD = "contact-card";
    /// Four bytes that catch a mistyped text between contacts.
    CONTACT_CHECK = "contact-check";
    /// Box of a share for somebody who asks for help.
    CONTACT_HELP = "contact-help";
    /// Hash of a request for help.
    CONTACT_REQUEST = "contact-request";
    /// Box of a share for a contact.
    CONTACT_SHARE = "contact-share";
    /// A capability's signature over the creation of a space.
    CREATE = "space-create";
    /// Hash that is a device's id.
    DEVICE = "device";
    /// A new device's signature that it joins an account.
    DEVICE_POP = "pop";
    /// Id of a file of evidence.
    EVIDENCE = "evidence";
    /// What the log has of a state of an account's backups, from the root.
    FRESHNESS = "freshness";
    /// Hash of a key, under which the log has such states.
    FRESHNESS_INDEX = "freshness-index";
    /// Seed of that key, from the root.
    FRESHNESS_KEY = "freshness-key";
    /// That key's signature over an entry.
    FRESHNESS_SIGN = "freshness-sign";
    /// Hash of a state, as the log's value is made of it.
    FRESHNESS_STATE = "freshness-state";
    /// Sealing key of heads.
    HEAD = "head";
    /// The server's signature over a head answer.
    HEAD_ANSWER = "head-answer";
    /// Hash of a sealed head.
    HEAD_HASH = "head-hash";
    /// Nonce of a head request.
    HEAD_NONCE = "head-nonce";
    /// Device's signature over a head.
    HEAD_SIGN = "head-sign";
    /// Hash of an index.
    INDEX = "index";
    /// Root of a head's set of indexes.
    INDEX_SET = "index-set";
    /// Two bytes that catch a mistyped invite.
    INVITE_CHECK = "invite-check";
    /// Hash of a key block.
    KEY_BLOCK = "key-block";
    /// Box of a key file under a passphrase.
    KEY_FILE_LOCK = "keys-lock";
    /// Checksum of the key file.
    KEY_FILE = "keys-check";
    /// Box around what only the root opens of a key block.
    KEY_BLOCK_BOX = "keys-box";
    /// A vault's keys, sealed to a limited device.
    KEY_BLOCK_GRANT = "keys-grant";
    /// HPKE box of a root.
    KEY_BLOCK_SEAL = "keys-seal";
    /// Box and key of a kit's envelope.
    KIT_ENVELOPE = "kit-envelope";
    /// A kit's name.
    KIT_ID = "kit-id";
    /// Box of a kit on a device that was restored from it.
    KIT_KEPT = "kit-kept";
    /// What the owner keys of spaces come from, from a kit.
    KIT_OWNER = "kit-owner";
    /// Box of that on a device that brings a kit into force.
    KIT_OWNER_KEPT = "owner-kept";
    /// Where the server keeps a kit's envelope.
    KIT_LOOKUP = "kit-lookup";
    /// Seed of a kit's sealing key.
    KIT_SEAL = "kit-seal";
    /// Seed of a kit's signing key.
    KIT_SIGN = "kit-sign";
    /// Ids of a limited device's vault and its space, from the seed.
    LIMITED_VAULT = "limited-vault";
    /// Hash of a linking ceremony.
    LINK = "link-transcript";
    /// What a new device commits to.
    LINK_COMMIT = "link-commit";
    /// Hash and box of what a linking device has seen.
    LINK_PINS = "link-pins";
    /// Where two devices meet.
    LINK_PLACE = "link-place";
    /// The words of a linking.
    LINK_SAS = "link-sas";
    /// The words by which two devices of an account compare what they have accepted.
    DEVICE_COMPARE = "device-compare";
    /// What a device signs that disowns a logged change of its account.
    DISOWNED = "disowned";
    /// Root of the members who may sign heads.
    MEMBERS = "members";
    /// Origin of a server's log, from its identity key.
    ORIGIN = "origin";
    /// Derives the seed of a log's Ed25519 key from the server's.
    LOG_ED25519 = "log-ed25519";
    /// Derives the seed of a log's ML-DSA-44 key from the server's.
    LOG_ML_DSA_44 = "log-ml-dsa-44";
    /// Key of a pack.
    PACK = "pack";
    /// A capability's signature over the deletion of packs.
    PACK_DELETE = "pack-delete";
    /// Hash of the packs of a space, and the server's signature over it.
    PACK_LIST = "pack-list";
    /// Hash of a slot of a pack, as it was received.
    PACK_SLOT = "pack-slot";
    /// A capability's signature over the return of what was deleted.
    PACK_UNDELETE = "pack-undelete";
    /// The server's signature over its promise to log something.
    RECEIPT = "receipt";
    /// What the chain commits to of a root.
    ROOT_COMMIT = "root-commit";
    /// Hash of a root record.
    ROOT_RECORD = "root-record";
    /// Id of the root space, from the seed.
    ROOT_SPACE = "root-space";
    /// A capability's proof of a right over one connection.
    PROVE = "right-prove";
    /// What the genesis commits to of the seed.
    SEED_COMMIT = "seed-commit";
    /// Hash of the public TLS key.
    SPKI = "tls-spki";
    /// A snapshot in the set of a head.
    SET_SNAPSHOT = "set-snapshot";
    /// An index in the set of a head.
    SET_INDEX = "set-index";
    /// Root of a head's set of snapshots.
    SNAPSHOT_SET = "snapshot-set";
    /// A capability's signature over the rotation of a space's keys.
    ROTATE = "space-rotate";
    /// A capability's signature over one swap of a head.
    SWAP = "head-swap";
    /// Key of a vault for one generation, from the root.
    VAULT_KEY = "vault-key";
    /// What a vault derives for life, from the seed.
    VAULT_LIFE = "vault-life";
    /// A voucher, from an invite's token.
    VOUCHER = "voucher";
    /// What the server keeps of a voucher.
    VOUCHER_HASH = "voucher-hash";
    /// Seed of a witness's Ed25519 key.
    WITNESS_ED25519 = "witness/ed25519";
    /// Seed of a witness's ML-DSA-44 key.
    WITNESS_ML_DSA_44 = "witness/ml-dsa-44";
    /// Hash of a witness policy.
    WITNESS_POLICY = "witness-policy";
}

#[cfg(test)]
mod tests {
    use super::ALL;

    #[test]
    fn labels_are_unique_and_prefix_free() {
        for (i, a) in ALL.iter().enumerate() {
            assert!(a.name().is_ascii() && !a.name().contains('\0'));
            for b in &ALL[i + 1..] {
                let (a, b) = (a.to_bytes(), b.to_bytes());
                assert!(!a.starts_with(&b) && !b.starts_with(&a), "{a:?} {b:?}");
            }
        }
    }
}
