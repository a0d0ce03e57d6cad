//! Requests, responses and error codes of the API under `/v1/`.
//!
//! Every route is `POST` with a body in the codec of this crate, except that a pack travels raw:
//! `pack/put` is `space[16] ‖ id[32] ‖ pack`, the answer to `pack/get` is `u32 pack length ‖ slots`.
//! An answer that is not a success has a body of [`ErrorBody`].

use sr_crypto::{CAPABILITY_SIGNATURE_LEN, Hash};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize, VLBytes};

use crate::{PackId, Right, SealedHead, SignedAnswer, SpaceId, SpaceKeys, SwapProof};

/// Who the server is: empty body, [`crate::CardResponse`]. The only route before rights.
pub const CARD: &str = "/v1/card";
/// Makes a space: [`CreateSpace`], empty answer.
pub const SPACE_CREATE: &str = "/v1/space/create";
/// Proves a right for this connection: [`Prove`], empty answer.
pub const RIGHT_PROVE: &str = "/v1/right/prove";
/// Stores a pack; an id that is taken is never written again.
pub const PACK_PUT: &str = "/v1/pack/put";
/// Reads slots of a pack: [`PackGet`].
pub const PACK_GET: &str = "/v1/pack/get";
/// Which of these packs are missing: [`PackHave`], [`PackMissing`].
pub const PACK_HAVE: &str = "/v1/pack/have";
/// Reads the newest head: [`HeadRead`], [`HeadResponse`].
pub const HEAD_READ: &str = "/v1/head/read";
/// Swaps the head: [`HeadSwap`], [`HeadResponse`] with what is the newest then.
pub const HEAD_SWAP: &str = "/v1/head/swap";

/// Bytes before the pack in the body of [`PACK_PUT`].
pub const PACK_PUT_PREFIX_LEN: usize = SpaceId::LEN + PackId::LEN;

/// Makes a space, paid for with a voucher; signed by the new append key over
/// [`crate::create_bytes`].
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct CreateSpace {
    /// The random id.
    pub space: SpaceId,
    /// Its keys.
    pub keys: SpaceKeys,
    /// The voucher.
    pub voucher: Hash,
    /// The append key's signature.
    pub signature: [u8; CAPABILITY_SIGNATURE_LEN],
}

/// Proves a right; signed over [`crate::prove_bytes`].
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct Prove {
    /// The space.
    pub space: SpaceId,
    /// The right.
    pub right: Right,
    /// The right's signature.
    pub signature: [u8; CAPABILITY_SIGNATURE_LEN],
}

/// Asks for slots `first..=last` of a pack; a last slot beyond the end means the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct PackGet {
    /// The space.
    pub space: SpaceId,
    /// The pack.
    pub pack: PackId,
    /// First slot.
    pub first: u8,
    /// Last slot.
    pub last: u8,
}

/// Asks which packs are missing.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct PackHave {
    /// The space.
    pub space: SpaceId,
    /// At most [`crate::limits::HAVE_MAX`] packs.
    pub packs: Vec<PackId>,
}

/// Those of the packs asked for that the server does not have.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct PackMissing {
    /// The missing packs, in the order asked.
    pub packs: Vec<PackId>,
}

/// Asks for the newest head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct HeadRead {
    /// The space.
    pub space: SpaceId,
    /// From [`crate::head_nonce`].
    pub nonce: Hash,
}

/// Swaps the head, if `head.previous` and `head.seq` follow the newest.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct HeadSwap {
    /// The new head.
    pub head: SealedHead,
    /// From [`crate::head_nonce`], for the answer.
    pub nonce: Hash,
    /// The right's signature over this swap.
    pub proof: SwapProof,
}

/// The newest head, and the server's signed word that it is.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct HeadResponse {
    /// The signed answer.
    pub answer: SignedAnswer,
    /// The head, if the space has one.
    pub head: Option<SealedHead>,
}

/// Why a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
#[repr(u16)]
pub enum ErrorCode {
    /// The body is not what the route takes. The client has a bug.
    Malformed = 1,
    /// No such route: client and server speak different versions.
    Version = 2,
    /// The right is not proven on this connection, or the proof is wrong.
    RightRefused = 3,
    /// The voucher was never given out, or is spent.
    VoucherRefused = 4,
    /// The space's or the server's limit is reached.
    QuotaFull = 5,
    /// The server's disk is full. Trying again later helps once the operator made room.
    StorageFull = 6,
    /// No such space or pack.
    NotFound = 7,
    /// The id is taken.
    Exists = 8,
    /// The server is busy or stopping; trying again helps.
    Busy = 9,
    /// The server failed; its log says how.
    Internal = 10,
}

/// The body of an answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct ErrorBody {
    /// The code that clients act on.
    pub code: ErrorCode,
    /// One English sentence; never shown to a person as the server's truth.
    pub message: VLBytes,
}
