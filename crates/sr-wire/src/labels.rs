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
    /// Hash of a server card, and what a card's signature covers.
    CARD = "card";
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
    /// A capability's signature over the creation of a space.
    CREATE = "space-create";
    /// Hash that is a device's id.
    DEVICE = "device";
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
    /// Checksum of the key file.
    KEY_FILE = "key-file";
    /// Root of the members who may sign heads.
    MEMBERS = "members";
    /// Origin of a server's log, from its identity key.
    ORIGIN = "origin";
    /// Key of a pack.
    PACK = "pack";
    /// A capability's proof of a right over one connection.
    PROVE = "right-prove";
    /// Hash of the public TLS key.
    SPKI = "tls-spki";
    /// Root of a head's set of snapshots.
    SNAPSHOT_SET = "snapshot-set";
    /// A capability's signature over one swap of a head.
    SWAP = "head-swap";
    /// A voucher, from an invite's token.
    VOUCHER = "voucher";
    /// What the server keeps of a voucher.
    VOUCHER_HASH = "voucher-hash";
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
