//! Floor 1: what travels between client and server, and what both must agree on.
//!
//! Ids, limits, the canonical codec (TLS presentation language, RFC 8446 section 3, with the
//! variable-length vectors of RFC 9420), requests and responses, error codes, domain labels, and
//! the numbered catalogue of misbehaviour. No I/O.

pub mod api;
mod card;
pub mod check;
mod codec;
mod head;
mod ids;
mod invite;
pub mod labels;
pub mod limits;
pub mod log;
mod packs;
mod space;

pub use card::{CARDS_MAX, Card, CardResponse, SignedCard, TlsKey, card_hash, verify_cards};
pub use check::Misbehaviour;
pub use codec::{Malformed, decode, decode_first, encode};
pub use head::{EMPTY_HEAD_HASH, HeadAnswer, SealedHead, SignedAnswer, head_nonce, nonce_of};
pub use ids::{AccountId, DeviceId, IdError, PackId, SnapshotId, SpaceId, VaultId};
pub use invite::{Invite, InviteError, VOUCHERS_PER_INVITE, voucher, voucher_hash};
pub use packs::{PackListAnswer, SignedPackList, pack_list_hash, slot_hash};
pub use space::{
    Right, SpaceKeys, SwapProof, create_bytes, delete_bytes, prove_bytes, rotate_bytes, swap_bytes,
    undelete_bytes,
};
pub use tls_codec::VLBytes;
