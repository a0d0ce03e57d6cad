//! Every cap on what is read from the other side, with the reason for it.

/// Bytes of one AEAD segment of a pack.
pub const SLOT_LEN: usize = 1 << 20;
/// The only sizes a pack has on disk: 64 KiB, 256 KiB, 1, 4 and 16 MiB.
pub const PACK_SIZES: [usize; 5] = [1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24];
/// The largest pack.
pub const PACK_LEN_MAX: usize = 1 << 24;
/// Slots of the largest pack.
pub const SLOTS_MAX: usize = PACK_LEN_MAX / SLOT_LEN;
/// A sealed head is padded to exactly this, so that its size says nothing.
pub const HEAD_LEN: usize = 8192;
/// A sealed head as it travels: padded plaintext and the box around it.
pub const SEALED_HEAD_LEN: usize = HEAD_LEN + sr_crypto::BOX_OVERHEAD;
/// A request or response that is not a pack: the largest holds one sealed head (8 KiB) and one
/// hybrid signature (3.3 KiB), or [`HAVE_MAX`] pack ids.
pub const MESSAGE_LEN_MAX: usize = 64 * 1024;
/// The cards of a server, each of which may name witnesses.
pub const CARDS_LEN_MAX: usize = 512 * 1024;
/// Heads in one answer.
pub const HEADS_PER_MESSAGE: usize = 7;
/// An envelope of a recovery kit.
pub const ENVELOPE_LEN_MAX: usize = 4096;
/// States of backups that come to a log in a day: with these alone it grows by 5 MB a month.
pub const FRESHNESS_PER_DAY_MAX: u64 = 1_440;
/// A policy that names witnesses; seven, with two keys each, fit.
pub const POLICY_LEN_MAX: usize = 16 * 1024;
/// A checkpoint: the log's own two signatures, and those of as many witnesses as a policy names.
pub const CHECKPOINT_LEN_MAX: usize = 32 * 1024;
/// One message of a linking ceremony: the pins of two spaces have under 10 KiB, a checkpoint and a policy come with
/// them.
pub const LINK_MESSAGE_LEN_MAX: usize = 60 * 1024;
/// Messages of a linking ceremony.
pub const LINK_MESSAGES_MAX: u8 = 8;
/// Linking ceremonies that the server holds at once.
pub const LINKS_MAX: usize = 128;
/// Pack ids asked for in one request: 1,024 of 32 bytes fit in a message.
pub const HAVE_MAX: usize = 1024;
/// Days that a deleted pack can still be had back: three, and the rest of the one on which it was
/// deleted.
pub const TRASH_DAYS: u32 = 4;
/// Bytes that wait in a connection's end to be sent. On a slow line, what is urgent would wait behind
/// more than that for longer than the other side waits for it: a connection that is well would be
/// given up.
pub const UNSENT_MAX: u32 = 128 << 10;
/// Streams of one connection that the server serves at once.
pub const STREAMS_MAX: u32 = 8;
/// A log of more entries is refused: 480 MB, of which a reader keeps the newest of each index.
pub const LOG_ENTRIES_MAX: u64 = 1 << 22;
/// Entries of the log that a device keeps, the newest, to give them back to a server that has lost them: 7 MiB.
pub const ENTRIES_KEPT: usize = 1 << 16;
/// Heads of a space that a device keeps for the same: 4 MiB.
pub const HEADS_KEPT: usize = 512;
/// A request that gives back heads, or the end of the log.
pub const GIVE_BACK_LEN_MAX: usize = 8 << 20;
/// So many of those are received at once.
pub const GIVE_BACKS_MAX: usize = 2;
/// Packs that the server receives at once: each has an open file and up to 1 MiB in memory.
pub const UPLOADS_MAX: usize = 128;
/// Connections that the server holds at once; each costs up to 1 MiB for each of its streams.
pub const CONNECTIONS_MAX: usize = 512;
/// Rights proven on one connection: every right of a handful of spaces.
pub const RIGHTS_PER_CONNECTION_MAX: usize = 64;
/// Packs of one space: 2^20 packs of 16 MiB are 16 TiB.
pub const PACKS_PER_SPACE_MAX: u64 = 1 << 20;
/// Bytes of one space unless the operator says otherwise: 4 TiB.
pub const BYTES_PER_SPACE_MAX: u64 = 1 << 42;
/// Spaces of one server: a row is under 200 bytes, so 2^24 spaces are under 4 GiB.
pub const SPACES_MAX: u64 = 1 << 24;
/// A block of an account chain: the largest, a policy with two keys and two signatures, has under
/// 15 KiB.
pub const BLOCK_LEN_MAX: usize = 20 * 1024;
/// All blocks of an account: 8,000 changes of 8 KiB.
pub const CHAIN_LEN_MAX: usize = 64 << 20;
/// Live devices of an account.
pub const DEVICES_MAX: usize = 24;
/// Generations of an account's key: a key block holds all roots before.
pub const GENERATIONS_MAX: u32 = 4096;
/// A key block: 26 boxes of 1.2 KiB, 4,096 roots of 32 bytes, and the anchors of 256 spaces.
pub const KEY_BLOCK_LEN_MAX: usize = 192 * 1024;
/// A request or answer about an account: a key block and some 30 blocks.
pub const ACCOUNT_MESSAGE_LEN_MAX: usize = 512 * 1024;
