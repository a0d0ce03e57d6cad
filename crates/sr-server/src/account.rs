//! Accounts: the server keeps their chains, and takes no block that clients would refuse.

use sr_crypto::Hash;
use sr_store::{NewBlocks, StoreError};
use sr_trust::{Account, Block, Change, Op, Role, Verified, key_block_hash};
use sr_wire::{
    AccountId, Malformed, Misbehaviour, VLBytes,
    api::{self, ErrorCode},
    decode, encode, limits,
    log::{Entry, SignedReceipt},
    voucher_hash,
};

use crate::{Server, log, routes::Refusal};

/// Room for the frame of an answer, and a key block beside the blocks.
const BLOCKS_LEN_MAX: usize =
    limits::ACCOUNT_MESSAGE_LEN_MAX - limits::KEY_BLOCK_LEN_MAX - limits::BLOCK_LEN_MAX;

/// How far a client's clock may be from this server's where a wait is at stake.
const CLOCK_SKEW_S: u64 = 600;

/// Appends blocks. What is checked here guards an honest server's accounts against strangers and
/// removed devices; clients check all of it again.
pub(crate) fn append(server: &Server, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request: api::AccountAppend = decode("request", body, limits::ACCOUNT_MESSAGE_LEN_MAX)?;
    let sent = parse(&request.blocks)?;
    let (Some((first, _)), Some((last, last_bytes))) = (sent.first(), sent.last()) else {
        return Err(ErrorCode::Malformed.into());
    };
    let stored = match chain(server, request.account) {
        Err(Refusal::Store(StoreError::NotFound)) if first.body.seq == 0 => Vec::new(),
        stored => stored?,
    };
    // The answer to an earlier try may have been lost, or another device was faster.
    let there = stored.iter().skip(usize::try_from(first.body.seq).unwrap_or(usize::MAX));
    let repeated = there.len().min(sent.len());
    if !there.zip(&sent).all(|(old, (_, new))| old.as_slice() == *new) {
        return Err(ErrorCode::Conflict.into());
    }
    let new = &sent[repeated..];
    if new.is_empty() {
        return Ok(receipt(server, request.account, last));
    }
    let is_promised =
        |block: &Block| is_promised(server, request.account, &request.receipts, block);
    let (blocks, keys) = follow(server, request.account, &stored, new, is_promised)?;
    let key_block = request.key_block.map(Vec::from);
    check_key_block(keys, key_block.as_deref())?;
    let envelope = request.envelope.map(|put| (put.lookup, Vec::from(put.sealed)));
    let fits = envelope.as_ref().is_none_or(|(_, e)| e.len() <= limits::ENVELOPE_LEN_MAX);
    if !fits || (envelope.is_some() && !new.iter().any(|(block, _)| brings_kit(block))) {
        return Err(ErrorCode::BlockRefused.into());
    }
    let (account, from) = (request.account, stored.len() as u64);
    let voucher_hash = request.voucher.as_ref().map(voucher_hash);
    let is_promised = is_promised(first);
    let new = NewBlocks { account, from, blocks, key_block, envelope, voucher_hash, is_promised };
    match server.stores.meta.append_blocks(&new, &server.caps) {
        // The blocks are durable, and their entries with them.
        Ok(()) => Ok(receipt(server, request.account, last)),
        // A second try may have met the first.
        Err(StoreError::Exists) => {
            let (stored, _) = server.stores.meta.blocks(request.account, last.body.seq, 1)?;
            let is_repeat = stored.first().is_some_and(|stored| stored == last_bytes);
            let conflict = Err(ErrorCode::Conflict.into());
            if is_repeat { Ok(receipt(server, request.account, last)) } else { conflict }
        }
        Err(error) => Err(error.into()),
    }
}

/// Blocks, each with its bytes.
type Parsed<'a> = Vec<(Block, &'a [u8])>;

fn parse(blocks: &[VLBytes]) -> Result<Parsed<'_>, Malformed> {
    blocks.iter().map(|block| Ok((Block::parse(block.as_slice())?, block.as_slice()))).collect()
}

/// Returns the blocks with their entries, and the key blocks that the account names before them and after
/// them.
#[expect(clippy::type_complexity, reason = "two pairs")]
fn follow(
    server: &Server,
    id: AccountId,
    stored: &[Vec<u8>],
    new: &[(Block, &[u8])],
    is_promised: impl Fn(&Block) -> bool,
) -> Result<(Vec<(Vec<u8>, Entry)>, (Option<Hash>, Option<Hash>)), Refusal> {
    let refused = |_: Misbehaviour| Refusal::Code(ErrorCode::BlockRefused);
    let mut chain = stored.to_vec();
    let mut account = (!stored.is_empty()).then(|| verify(id, stored)).transpose()?;
    let key_block = |account: &Option<Verified<Account>>| {
        account.as_ref().map(|account| account.key().key_block)
    };
    let (before, mut blocks) = (key_block(&account), Vec::new());
    for (block, bytes) in new {
        let entry = log::entry(id, block, chain.last().map(Vec::as_slice), server.now_s())?;
        match &mut account {
            None => account = Some(Verified::begin(id, block).map_err(refused)?),
            Some(account) => {
                // What this server has taken before, was in time.
                if let Err(late) = check_time(account, block, &chain, server.now_s())
                    && !server.stores.meta.is_owed(&entry)?
                    && !is_promised(block)
                {
                    return Err(late);
                }
                account.extend(block).map_err(refused)?;
            }
        }
        chain.push(bytes.to_vec());
        blocks.push((bytes.to_vec(), entry));
    }
    Ok((blocks, (before, key_block(&account))))
}

/// Returns whether this server has promised to log a block, and so has taken it before.
fn is_promised(
    server: &Server,
    account: AccountId,
    receipts: &[SignedReceipt],
    block: &Block,
) -> bool {
    let (seq, hash) = (block.body.seq, block.hash());
    let receipt = receipts.iter().find(|signed| signed.receipt.seq == seq);
    receipt.is_some_and(|receipt| receipt.verify(server.card(), account, seq, &hash).is_ok())
}

fn brings_kit(block: &Block) -> bool {
    let op = &block.body.op;
    matches!(op, Op::Set { change: Change::Recovery(_), .. } | Op::DelayFinish { .. })
}

/// Returns the promise that a stored block will be in the log.
fn receipt(server: &Server, account: AccountId, block: &Block) -> Vec<u8> {
    let (seq, signing) = (block.body.seq, &server.identity.signing);
    // By whatever clock the newest checkpoint was signed, it must not seem to be later.
    let now_s = server.now_s().max(server.log.signed_s());
    encode(&SignedReceipt::sign(account, seq, &block.hash(), now_s, signing))
}

/// Returns blocks from a place on.
pub(crate) fn read(server: &Server, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request: api::AccountRead = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    let (blocks, key_block) =
        server.stores.meta.blocks(request.account, request.from, BLOCKS_LEN_MAX)?;
    let blocks = blocks.into_iter().map(Into::into).collect();
    Ok(encode(&api::AccountResponse { blocks, key_block: key_block.map(Into::into) }))
}

/// Returns a kit's envelope.
pub(crate) fn envelope(server: &Server, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request: api::EnvelopeRead = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    Ok(server.stores.meta.envelope(&request.lookup)?)
}

fn chain(server: &Server, account: AccountId) -> Result<Vec<Vec<u8>>, Refusal> {
    let mut blocks = Vec::new();
    loop {
        let (more, key_block) =
            server.stores.meta.blocks(account, blocks.len() as u64, usize::MAX)?;
        blocks.extend(more);
        if key_block.is_some() {
            return Ok(blocks);
        }
    }
}

fn verify(id: AccountId, stored: &[Vec<u8>]) -> Result<Verified<Account>, Refusal> {
    let damaged = |what: &'static str| {
        Refusal::Store(StoreError::Failed { doing: "reading an account", source: what.into() })
    };
    let blocks: Result<Vec<Block>, _> = stored.iter().map(|block| Block::parse(block)).collect();
    let blocks = blocks.map_err(|_| damaged("a block is malformed"))?;
    Verified::verify(id, &blocks).map_err(|_| damaged("the chain does not verify"))
}

/// A wait lasts by this server's clock too, so that whoever may stop it still can: what begins one
/// says the time, and what ends one comes late enough. Clients wait by their own clocks besides.
fn check_time(
    account: &Verified<Account>,
    block: &Block,
    stored: &[Vec<u8>],
    now_s: u64,
) -> Result<(), Refusal> {
    let by_kit = block.signatures.iter().any(|signature| signature.role == Role::Kit);
    let begins = match block.body.op {
        Op::DelayStart { .. } | Op::RecoveryStart { .. } => true,
        Op::RemoveDevice { .. } => by_kit,
        _ => false,
    };
    let is_now = block.body.time_s.abs_diff(now_s) <= CLOCK_SKEW_S;
    let ended = account.gate(block).is_none_or(|gate| {
        let start = usize::try_from(gate.opened).ok().and_then(|seq| stored.get(seq));
        let began_s = start.and_then(|b| Block::parse(b).ok()).map(|block| block.body.time_s);
        began_s.is_some_and(|began_s| {
            now_s.saturating_add(CLOCK_SKEW_S) >= began_s.saturating_add(gate.delay_s)
        })
    });
    if (is_now || !begins) && ended { Ok(()) } else { Err(ErrorCode::TooEarly.into()) }
}

/// A key block comes exactly when the account names another than the one before.
fn check_key_block(
    (before, named): (Option<Hash>, Option<Hash>),
    key_block: Option<&[u8]>,
) -> Result<(), Refusal> {
    let is_right = match (named.filter(|_| named != before), key_block) {
        (None, None) => true,
        (Some(named), Some(bytes)) => {
            bytes.len() <= limits::KEY_BLOCK_LEN_MAX && key_block_hash(bytes) == named
        }
        _ => false,
    };
    if is_right { Ok(()) } else { Err(ErrorCode::BlockRefused.into()) }
}
