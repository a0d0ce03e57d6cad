//! Accounts: the server keeps their chains, and takes no block that clients would refuse.

use sr_store::{NewBlock, StoreError};
use sr_trust::{Account, Block, Change, Op, Role, Verified, key_block_hash};
use sr_wire::{
    AccountId, Misbehaviour,
    api::{self, ErrorCode},
    decode, encode, limits,
    log::SignedReceipt,
    voucher_hash,
};

use crate::{Server, log, routes::Refusal};

/// Room for the frame of an answer, and a key block beside the blocks.
const BLOCKS_LEN_MAX: usize =
    limits::ACCOUNT_MESSAGE_LEN_MAX - limits::KEY_BLOCK_LEN_MAX - limits::BLOCK_LEN_MAX;

/// How far a client's clock may be from this server's where a wait is at stake.
const CLOCK_SKEW_S: u64 = 600;

/// Appends a block. What is checked here guards an honest server's accounts against strangers and
/// removed devices; clients check all of it again.
pub(crate) fn append(server: &Server, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request: api::AccountAppend = decode("request", body, limits::ACCOUNT_MESSAGE_LEN_MAX)?;
    let bytes = request.block.as_slice();
    let block = Block::parse(bytes)?;
    let stored = if block.body.seq == 0 { Vec::new() } else { chain(server, request.account)? };
    let place = usize::try_from(block.body.seq).unwrap_or(usize::MAX);
    if block.body.seq == 0 {
        // The answer to an earlier try may have been lost.
        match server.stores.meta.blocks(request.account, 0, 1) {
            Ok((blocks, _)) if blocks.first().map(Vec::as_slice) == Some(bytes) => {
                return Ok(receipt(server, request.account, &block));
            }
            Ok(_) => return Err(ErrorCode::Conflict.into()),
            Err(StoreError::NotFound) => {}
            Err(error) => return Err(error.into()),
        }
    } else if let Some(taken) = stored.get(place) {
        let is_repeat = taken.as_slice() == bytes;
        return if is_repeat {
            Ok(receipt(server, request.account, &block))
        } else {
            Err(ErrorCode::Conflict.into())
        };
    }
    let refused = |_: Misbehaviour| Refusal::Code(ErrorCode::BlockRefused);
    let before = if stored.is_empty() {
        Verified::begin(request.account, &block).map_err(refused)?;
        None
    } else {
        let mut account = verify(request.account, &stored)?;
        let key_block = account.key().key_block;
        check_time(&account, &block, &stored, server.now_s())?;
        account.extend(&block).map_err(refused)?;
        Some(key_block)
    };
    let key_block = request.key_block.map(Vec::from);
    check_key_block(&block, before.as_ref(), key_block.as_deref())?;
    let envelope = request.envelope.map(|put| (put.lookup, Vec::from(put.sealed)));
    let brings_kit = matches!(
        &block.body.op,
        Op::Set { change: Change::Recovery(_), .. } | Op::DelayFinish { .. }
    );
    let fits = envelope.as_ref().is_none_or(|(_, e)| e.len() <= limits::ENVELOPE_LEN_MAX);
    if !fits || (envelope.is_some() && !brings_kit) {
        return Err(ErrorCode::BlockRefused.into());
    }
    let new = NewBlock {
        account: request.account,
        seq: block.body.seq,
        block: bytes.to_vec(),
        key_block,
        envelope,
        voucher_hash: request.voucher.as_ref().map(voucher_hash),
        entry: log::entry(
            request.account,
            &block,
            stored.last().map(Vec::as_slice),
            server.now_s(),
        )?,
    };
    match server.stores.meta.append_block(&new, &server.caps) {
        // The block is durable, and its entry with it.
        Ok(()) => Ok(receipt(server, request.account, &block)),
        // A second try may have met the first.
        Err(StoreError::Exists) => {
            let (stored, _) = server.stores.meta.blocks(request.account, block.body.seq, 1)?;
            let is_repeat = stored.first().is_some_and(|stored| stored == bytes);
            let conflict = Err(ErrorCode::Conflict.into());
            if is_repeat { Ok(receipt(server, request.account, &block)) } else { conflict }
        }
        Err(error) => Err(error.into()),
    }
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

/// A key block comes exactly when the block names another than the one before.
fn check_key_block(
    block: &Block,
    before: Option<&sr_crypto::Hash>,
    key_block: Option<&[u8]>,
) -> Result<(), Refusal> {
    let named = block.key().map(|key| &key.key_block).filter(|named| Some(*named) != before);
    let is_right = match (named, key_block) {
        (None, None) => true,
        (Some(named), Some(bytes)) => {
            bytes.len() <= limits::KEY_BLOCK_LEN_MAX && key_block_hash(bytes) == *named
        }
        _ => false,
    };
    if is_right { Ok(()) } else { Err(ErrorCode::BlockRefused.into()) }
}
