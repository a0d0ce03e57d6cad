//! Requests, responses and error codes of the API under `/v1/`.
//!
//! Every route is `POST` with a body in the codec of this crate, except that a pack travels raw:
//! `pack/put` is `space[16] ‖ id[32] ‖ u8 first slot ‖ slots from there`, the answer to `pack/get` is `u32 pack length ‖ slots`.
//! An answer that is not a success has a body of [`ErrorBody`].

use sr_crypto::{CAPABILITY_SIGNATURE_LEN, Hash};
use tls_codec::{TlsDeserializeBytes, TlsSerialize, TlsSize, VLBytes};

use crate::{AccountId, PackId, Right, SealedHead, SignedAnswer, SpaceId, SpaceKeys, SwapProof};

/// Who the server is: empty body, [`crate::CardResponse`]. The only route before rights.
pub const CARD: &str = "/v1/card";
/// Makes a space: [`CreateSpace`], empty answer.
pub const SPACE_CREATE: &str = "/v1/space/create";
/// Gives a space the keys of another generation: [`SpaceRotate`], empty answer.
pub const SPACE_ROTATE: &str = "/v1/space/rotate";
/// Begins an account, or appends to its chain: [`AccountAppend`], the answer is a
/// [`SignedReceipt`](crate::log::SignedReceipt) for the last of the blocks. An account and a space never share
/// a connection.
pub const ACCOUNT_APPEND: &str = "/v1/account/append";
/// Reads an account's chain: [`AccountRead`], [`AccountResponse`]. Whoever knows the id may.
pub const ACCOUNT_READ: &str = "/v1/account/read";
/// Reads a recovery kit's envelope: [`EnvelopeRead`], the answer is the envelope. Whoever knows
/// the id may.
pub const ENVELOPE_READ: &str = "/v1/envelope/read";
/// Leaves a message where two devices meet: [`LinkPut`], empty answer. The first for a place and
/// number stays, for ten minutes.
pub const LINK_PUT: &str = "/v1/link/put";
/// Takes a look at a message: [`LinkGet`], [`LinkResponse`].
pub const LINK_GET: &str = "/v1/link/get";
/// Proves a right for this connection: [`Prove`], empty answer.
pub const RIGHT_PROVE: &str = "/v1/right/prove";
/// Stores a pack, or what an interrupted upload has left to send of it; an id that is taken is never
/// written again.
pub const PACK_PUT: &str = "/v1/pack/put";
/// What an interrupted upload has left of a pack: [`PackStaged`], [`PackStagedSlots`].
pub const PACK_STAGED: &str = "/v1/pack/staged";
/// Reads slots of a pack: [`PackGet`].
pub const PACK_GET: &str = "/v1/pack/get";
/// Which of these packs are missing: [`PackHave`], [`PackMissing`].
pub const PACK_HAVE: &str = "/v1/pack/have";
/// How many packs a space has, and which: [`PackList`], [`crate::SignedPackList`].
pub const PACK_LIST: &str = "/v1/pack/list";
/// Deletes packs: [`PackDelete`], empty answer. They can be read, and had back, for
/// [`crate::limits::TRASH_DAYS`]; one that is not there is deleted already.
pub const PACK_DELETE: &str = "/v1/pack/delete";
/// Brings all that was deleted back: [`PackUndelete`], [`PackUndeleted`].
pub const PACK_UNDELETE: &str = "/v1/pack/undelete";
/// Reads the newest head: [`HeadRead`], [`HeadResponse`].
pub const HEAD_READ: &str = "/v1/head/read";
/// Reads heads in a row: [`HeadChain`], [`HeadChainResponse`].
pub const HEAD_CHAIN: &str = "/v1/head/chain";
/// Swaps the head: [`HeadSwap`], [`HeadResponse`] with what is the newest then.
pub const HEAD_SWAP: &str = "/v1/head/swap";
/// Gives back heads that the server has had: [`HeadGiveBack`], empty answer. A repeat succeeds.
pub const HEAD_GIVE_BACK: &str = "/v1/head/give-back";
/// Gives back entries of the log that the server has signed: [`LogGiveBack`], empty answer. A repeat succeeds.
pub const LOG_GIVE_BACK: &str = "/v1/log/give-back";
/// Puts an account's state of its backups into the log: [`LogAppend`], empty answer. A repeat succeeds.
pub const LOG_APPEND: &str = "/v1/log/append";

/// Below this, the log is read with GET, without any right, as c2sp.org/tlog-tiles has it: `checkpoint`,
/// `tile/L/N`, `tile/entries/N`.
pub const LOG: &str = "/log/";

/// Bytes before the pack in the body of [`PACK_PUT`].
pub const PACK_PUT_PREFIX_LEN: usize = SpaceId::LEN + PackId::LEN + 1;

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

/// Gives a space other keys; signed over [`crate::rotate_bytes`] by the prune key of the generation
/// before, or by the owner key. The read key stays.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct SpaceRotate {
    /// The space.
    pub space: SpaceId,
    /// All its keys.
    pub keys: SpaceKeys,
    /// [`Right::Prune`] or [`Right::Owner`].
    pub by: Right,
    /// The right's signature.
    pub proof: SwapProof,
}

/// Appends blocks to an account's chain, all or none. A repeat succeeds.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct AccountAppend {
    /// The account.
    pub account: AccountId,
    /// The blocks, in order: one that is new, or those that a server which was put back has lost.
    pub blocks: Vec<VLBytes>,
    /// The key block, if the blocks name another one than the block before them: the newest.
    pub key_block: Option<VLBytes>,
    /// The envelope of a kit that one of the blocks brings into force.
    pub envelope: Option<EnvelopePut>,
    /// Pays for an account that begins.
    pub voucher: Option<Hash>,
    /// The server's own promises to log such blocks, which a server that was put back has forgotten.
    pub receipts: Vec<crate::log::SignedReceipt>,
}

/// Gives back heads, all or none.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct HeadGiveBack {
    /// The server's own word that the last of them was the newest.
    pub answer: SignedAnswer,
    /// Heads in a row, at most [`crate::limits::HEADS_KEPT`]. The first follows the server's newest.
    pub heads: Vec<SealedHead>,
}

/// Gives back entries of the log, all or none.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct LogGiveBack {
    /// The checkpoint that ends with the last of them, as the log has signed it.
    pub checkpoint: VLBytes,
    /// The place of the first.
    pub from: u64,
    /// Entries in a row, at most [`crate::limits::ENTRIES_KEPT`].
    pub entries: Vec<crate::log::Entry>,
}

/// An entry for the log that nobody but who has the key can follow with another.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct LogAppend {
    /// The key, whose hash is the entry's index.
    pub key: Hash,
    /// Which value this is, from 0.
    pub seq: u64,
    /// The value.
    pub value: Hash,
    /// The value before, zeros for the first.
    pub previous: Hash,
    /// The key's signature, over [`LogAppend::signed_bytes`].
    pub signature: [u8; CAPABILITY_SIGNATURE_LEN],
}

impl LogAppend {
    /// Returns what is signed: index, seq, value and the value before.
    #[must_use]
    pub fn signed_bytes(key: &Hash, seq: u64, value: &Hash, previous: &Hash) -> Vec<u8> {
        let index = crate::log::Key::freshness(key).index;
        [&index[..], &seq.to_be_bytes(), value, previous].concat()
    }
}

/// What the server keeps for a recovery kit.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct EnvelopePut {
    /// The id that only the kit gives.
    pub lookup: Hash,
    /// Ciphertext.
    pub sealed: VLBytes,
}

/// Asks for an account's blocks from a place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct AccountRead {
    /// The account.
    pub account: AccountId,
    /// The first block wanted.
    pub from: u64,
}

/// Blocks in a row.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct AccountResponse {
    /// As many as fit.
    pub blocks: Vec<VLBytes>,
    /// The newest key block, with the newest block; before that there is more to ask for.
    pub key_block: Option<VLBytes>,
}

/// Asks for an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct EnvelopeRead {
    /// Its id.
    pub lookup: Hash,
}

/// Leaves a message.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct LinkPut {
    /// Where.
    pub place: Hash,
    /// Which of the ceremony's messages it is.
    pub number: u8,
    /// The message.
    pub message: VLBytes,
}

/// Asks for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct LinkGet {
    /// Where.
    pub place: Hash,
    /// Which.
    pub number: u8,
}

/// A message, if it is there.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct LinkResponse {
    /// The message.
    pub message: Option<VLBytes>,
}

/// Asks for heads in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct HeadChain {
    /// The space.
    pub space: SpaceId,
    /// The first one's place.
    pub from: u64,
}

/// Heads in a row. They count as far as the newest, which a signed answer names, follows from them.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct HeadChainResponse {
    /// As many as fit.
    pub heads: Vec<SealedHead>,
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

/// Asks what is left of an interrupted upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct PackStaged {
    /// The space.
    pub space: SpaceId,
    /// The pack.
    pub pack: PackId,
}

/// The slots of a pack that need not be sent again, if they are those that were sent.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct PackStagedSlots {
    /// [`crate::slot_hash`] of each, from the first on.
    pub slots: Vec<Hash>,
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

/// Asks for the server's word on which packs it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct PackList {
    /// The space.
    pub space: SpaceId,
    /// Random.
    pub nonce: Hash,
}

/// Deletes packs; signed by the prune key over [`crate::delete_bytes`].
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct PackDelete {
    /// The space.
    pub space: SpaceId,
    /// At most [`crate::limits::HAVE_MAX`] packs.
    pub packs: Vec<PackId>,
    /// The right's signature.
    pub proof: SwapProof,
}

/// Brings back what was deleted; signed by the prune key over [`crate::undelete_bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct PackUndelete {
    /// The space.
    pub space: SpaceId,
    /// The right's signature.
    pub proof: SwapProof,
}

/// What was brought back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct PackUndeleted {
    /// How many packs.
    pub packs: u64,
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
    /// No such space, pack, account or envelope.
    NotFound = 7,
    /// The id is taken.
    Exists = 8,
    /// The server is busy or stopping; trying again helps.
    Busy = 9,
    /// The server failed; its log says how.
    Internal = 10,
    /// Another device was faster: the block does not follow the newest.
    Conflict = 11,
    /// The block is none that the account's chain allows next.
    BlockRefused = 12,
    /// The block ends a wait that is not over, or begins one at another time than now.
    TooEarly = 13,
    /// The server was put back from a backup and is getting back what came after: nothing new is stored
    /// until its operator says that this is done.
    PutBack = 14,
}

/// The body of an answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, TlsSerialize, TlsDeserializeBytes, TlsSize)]
pub struct ErrorBody {
    /// The code that clients act on.
    pub code: ErrorCode,
    /// One English sentence; never shown to a person as the server's truth.
    pub message: VLBytes,
}
