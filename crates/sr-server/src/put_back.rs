//! A server that was put back from a backup. What came after the backup, its clients give back: the server
//! takes what it has signed itself, so that nobody can give it what it never had. Until its operator says
//! that all is back, it stores nothing new: a second history beside the first would be no better than a lie.

use sr_crypto::Hash;
use sr_store::StoreError;
use sr_tlog::leaf_hash;
use sr_wire::{
    Right,
    api::{self, ErrorCode},
    decode, limits,
};

use crate::{Server, connection::Connection, log::size_and_root, routes::Refusal};

/// The same of a checkpoint that a witness has cosigned, if this server's log has signed it and lacks something of it.
pub(crate) fn note_ahead(server: &Server, note: &[u8]) -> Result<(), StoreError> {
    match server.identity.signed(note) {
        Some((size, _)) if size > server.log.size() => note_behind(server, note, size),
        _ => Ok(()),
    }
}

/// Takes note that a checkpoint that this server's log has signed covers more than the log has. From then on
/// the server knows that it was put back.
fn note_behind(server: &Server, note: &[u8], size: u64) -> Result<(), StoreError> {
    let meta = &server.stores.meta;
    let known = meta.put_back()?;
    let known_size = known.as_ref().and_then(|note| server.identity.signed(note));
    if known.is_none() {
        server.tell(
            "a device or a witness has shown a newer log that this server has signed: was an older copy of its directory \
             put back? Nothing new is stored until `strongroom server log reseed --finish`",
        );
    }
    if known_size.is_none_or(|(known, _)| known < size) {
        meta.set_put_back(note)?;
    }
    Ok(())
}

/// Returns size and root of a checkpoint that this server's log has signed, if the log is shorter.
fn newer(server: &Server, note: &[u8]) -> Result<Option<(u64, Hash)>, StoreError> {
    // Most are older, which needs no key to tell.
    let Ok((size, _)) = size_and_root(note) else { return Ok(None) };
    if size <= server.log.signed_size() {
        return Ok(None);
    }
    // What has come since the last checkpoint may be all of it.
    server.log.publish(server)?;
    Ok(server.identity.signed(note).filter(|(size, _)| *size > server.log.signed_size()))
}

/// Takes entries back that the log has signed.
pub(crate) fn give_back_log(server: &Server, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request: api::LogGiveBack = decode("request", body, limits::GIVE_BACK_LEN_MAX)?;
    let note = request.checkpoint.as_slice();
    let Some((size, root)) = newer(server, note)? else { return Ok(Vec::new()) };
    let from = server.log.size();
    // What is missing is known from here on, whether or not it comes.
    if size > from {
        note_behind(server, note, size)?;
    }
    let known = usize::try_from(from.saturating_sub(request.from)).unwrap_or(usize::MAX);
    let new = request.entries.get(known..).unwrap_or_default();
    if request.from > from || from.max(size) != from + new.len() as u64 {
        return Err(ErrorCode::Conflict.into());
    }
    let mut tree = server.log.tree();
    new.iter().for_each(|entry| tree.push(leaf_hash(&entry.to_bytes())));
    if tree.root(size) != Some(root) {
        return Err(ErrorCode::Conflict.into());
    }
    // What others have added to it is not ours to show.
    let note = server.identity.signed_again(note).map_or_else(Vec::new, |signed| signed.note);
    match server.stores.meta.give_back_log(from, new, &note) {
        // Another device was faster.
        Ok(()) | Err(StoreError::Exists) => {}
        Err(error) => return Err(error.into()),
    }
    server.log.publish(server)?;
    Ok(Vec::new())
}

/// Takes heads back, of which this server has said that the last was the newest.
pub(crate) fn give_back_heads(
    server: &Server,
    connection: &Connection,
    body: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let request: api::HeadGiveBack = decode("request", body, limits::GIVE_BACK_LEN_MAX)?;
    let (signed, space) = (&request.answer, request.answer.answer.space);
    server.require(connection, space, Right::Read)?;
    signed.verify_signature(server.card()).map_err(|_| ErrorCode::Malformed)?;
    let newest = server.stores.meta.head(space)?;
    let known_seq = newest.as_ref().map_or(0, |head| head.seq);
    let new: Vec<_> = request.heads.into_iter().filter(|head| head.seq > known_seq).collect();
    let follows = |pair: &[sr_wire::SealedHead]| {
        pair[1].seq == pair[0].seq + 1 && pair[1].previous == pair[0].hash()
    };
    let is_chain = new.windows(2).all(follows) && new.iter().all(|head| head.space == space);
    let is_signed = new
        .last()
        .is_none_or(|head| (head.seq, head.hash()) == (signed.answer.seq, signed.answer.head_hash));
    if !is_chain || !is_signed {
        return Err(ErrorCode::Conflict.into());
    }
    match server.stores.meta.give_back_heads(&new) {
        Ok(()) => {}
        Err(StoreError::Exists) => return Err(ErrorCode::Conflict.into()),
        Err(error) => return Err(error.into()),
    }
    if !new.is_empty() && server.stores.meta.put_back()?.is_none() {
        server.tell(
            "a device has given back what this server had and lost: was an older copy of its directory put \
             back? Stop it, and start it with `strongroom server up --restored`",
        );
    }
    Ok(Vec::new())
}
