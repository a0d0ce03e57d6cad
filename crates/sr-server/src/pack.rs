//! The routes that move packs.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sr_store::{BlobWriter, StoreError};
use sr_wire::{
    PackId, Right, SpaceId,
    api::{ErrorCode, PACK_PUT_PREFIX_LEN, PackGet, PackHave, PackMissing},
    decode, encode, limits,
};
use tokio::sync::mpsc;

use crate::{
    Server,
    connection::Connection,
    routes::{Refusal, blocking},
};

/// A client that sends nothing for this long is given up.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Frames between the network and the disk: what one slow disk holds in memory for one pack.
const FRAMES_AHEAD: usize = 16;

/// Stores a pack as it arrives: at no time is it whole in memory.
pub(crate) async fn put(
    server: &Arc<Server>,
    connection: &Connection,
    mut body: Incoming,
) -> Result<Vec<u8>, Refusal> {
    let mut prefix = Vec::new();
    let mut rest = Bytes::new();
    while prefix.len() < PACK_PUT_PREFIX_LEN {
        let mut frame = next_frame(&mut body).await?.ok_or(ErrorCode::Malformed)?;
        let wanted = (PACK_PUT_PREFIX_LEN - prefix.len()).min(frame.len());
        prefix.extend_from_slice(&frame.split_to(wanted));
        rest = frame;
    }
    let (space, pack) = prefix.split_at(SpaceId::LEN);
    let space = SpaceId::from_slice(space).ok_or(ErrorCode::Malformed)?;
    let pack = PackId::from_slice(pack).ok_or(ErrorCode::Malformed)?;
    connection.require(space, Right::Append)?;

    let (frames, received) = mpsc::channel(FRAMES_AHEAD);
    let for_disk = Arc::clone(server);
    let stored = tokio::spawn(blocking(move || store(&for_disk, space, pack, received)));
    let mut len = 0;
    let mut whole = false;
    let mut next = Some(rest);
    while let Some(frame) = next {
        len += frame.len();
        if len > limits::PACK_LEN_MAX || frames.send(Frame::Bytes(frame)).await.is_err() {
            break;
        }
        next = match next_frame(&mut body).await {
            Ok(frame) => {
                whole = frame.is_none();
                frame
            }
            Err(_) => break,
        };
    }
    if whole && limits::PACK_SIZES.contains(&len) {
        let _ = frames.send(Frame::End).await;
    }
    drop(frames);
    stored.await.map_err(|_| ErrorCode::Internal)??;
    Ok(Vec::new())
}

/// Returns slots of a pack, after the pack's whole length.
pub(crate) fn get(
    server: &Server,
    connection: &Connection,
    body: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let request: PackGet = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    connection.require(request.space, Right::Read)?;
    let len = server.stores.meta.pack_len(request.space, request.pack)?;
    let first = usize::from(request.first) * limits::SLOT_LEN;
    let end = (usize::from(request.last) + 1) * limits::SLOT_LEN;
    let wanted = end.min(len as usize).checked_sub(first).ok_or(ErrorCode::Malformed)?;
    let bytes = server.stores.blobs.read(request.pack, first as u64, wanted)?;
    let mut reply = len.to_be_bytes().to_vec();
    reply.extend_from_slice(&bytes);
    Ok(reply)
}

/// Returns which of some packs this space does not have.
pub(crate) fn have(
    server: &Server,
    connection: &Connection,
    body: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let request: PackHave = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    connection.require(request.space, Right::Read)?;
    if request.packs.len() > limits::HAVE_MAX {
        return Err(ErrorCode::Malformed.into());
    }
    let mut packs = Vec::new();
    for pack in request.packs {
        match server.stores.meta.pack_len(request.space, pack) {
            Ok(_) => {}
            Err(StoreError::NotFound) => packs.push(pack),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(encode(&PackMissing { packs }))
}

enum Frame {
    Bytes(Bytes),
    /// The body ended where it should. Without it, nothing is kept.
    End,
}

fn store(
    server: &Server,
    space: SpaceId,
    pack: PackId,
    mut frames: mpsc::Receiver<Frame>,
) -> Result<(), Refusal> {
    if server.stores.meta.has_pack(pack)? {
        return Err(ErrorCode::Exists.into());
    }
    let mut writer: Box<dyn BlobWriter> = server.stores.blobs.begin()?;
    let mut len = 0;
    while let Some(frame) = frames.blocking_recv() {
        match frame {
            Frame::Bytes(bytes) => {
                len += bytes.len();
                writer.write(&bytes)?;
            }
            Frame::End => {
                match writer.finish(pack) {
                    // Another connection is storing it: it is not there until its record is.
                    Err(StoreError::Exists) if !server.stores.meta.has_pack(pack)? => {
                        return Err(ErrorCode::Busy.into());
                    }
                    finished => finished?,
                }
                let len = u32::try_from(len).map_err(|_| ErrorCode::Malformed)?;
                let added = server.stores.meta.add_pack(space, pack, len, &server.caps);
                if added.is_err() {
                    server.stores.blobs.delete(pack)?;
                }
                return added.map_err(Refusal::from);
            }
        }
    }
    Err(ErrorCode::Malformed.into())
}

async fn next_frame(body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    loop {
        match tokio::time::timeout(BODY_TIMEOUT, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(_trailers) => {}
            },
            _ => return Err(ErrorCode::Malformed.into()),
        }
    }
}
