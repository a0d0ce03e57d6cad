//! The routes that move packs. No pack is ever whole in memory, and no thread waits for a client.

use std::{
    io,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use sr_store::{BlobWriter, StoreError};
use sr_wire::{
    PackId, Right, SignedPackList, SpaceId,
    api::{
        ErrorCode, PACK_PUT_PREFIX_LEN, PackDelete, PackGet, PackHave, PackList, PackMissing,
        PackStaged, PackStagedSlots, PackUndelete, PackUndeleted,
    },
    decode, delete_bytes, encode, labels, limits, slot_hash, undelete_bytes,
};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::{
    Server,
    connection::{Connection, InRequest},
    routes::{Refusal, blocking},
};

/// A client that sends nothing for this long is given up.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// What is collected before it is written, and read before it is sent.
const PIECE_LEN: usize = limits::SLOT_LEN;

/// Stores a pack as it arrives. What has arrived when the connection ends stays, for the rest to follow.
pub(crate) async fn put(
    server: &Arc<Server>,
    connection: &Connection,
    mut body: Incoming,
) -> Result<Vec<u8>, Refusal> {
    let mut piece = Vec::with_capacity(PIECE_LEN);
    while piece.len() < PACK_PUT_PREFIX_LEN {
        piece.extend_from_slice(&next_frame(&mut body).await?.ok_or(ErrorCode::Malformed)?);
    }
    let space = SpaceId::from_slice(&piece[..SpaceId::LEN]).ok_or(ErrorCode::Malformed)?;
    let (pack, first) = piece[SpaceId::LEN..PACK_PUT_PREFIX_LEN].split_at(PackId::LEN);
    let pack = PackId::from_slice(pack).ok_or(ErrorCode::Malformed)?;
    let kept = usize::from(first[0]) * limits::SLOT_LEN;
    piece.drain(..PACK_PUT_PREFIX_LEN);
    server.require(connection, space, Right::Append)?;

    let receiving = Receiving::start(server, pack)?;
    let mut upload = blocking(move || Upload::begin(receiving, kept)).await?;
    let mut len = kept + piece.len();
    while let Some(frame) = next_frame(&mut body).await? {
        len += frame.len();
        if len > limits::PACK_LEN_MAX {
            break;
        }
        piece.extend_from_slice(&frame);
        if piece.len() >= PIECE_LEN {
            (upload, piece) = blocking(move || upload.write(piece)).await?;
        }
    }
    if !limits::PACK_SIZES.contains(&len) {
        upload.writer.discard();
        return Err(ErrorCode::Malformed.into());
    }
    blocking(move || {
        let (upload, _) = upload.write(piece)?;
        upload.finish(space, len)
    })
    .await?;
    Ok(Vec::new())
}

/// Says which slots an interrupted upload has left of a pack.
pub(crate) fn staged(
    server: &Arc<Server>,
    connection: &Connection,
    body: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let request: PackStaged = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    server.require(connection, request.space, Right::Append)?;
    let _receiving = Receiving::start(server, request.pack)?;
    let mut slots = Vec::new();
    for offset in (0..limits::PACK_LEN_MAX).step_by(limits::SLOT_LEN) {
        let blobs = &server.stores.blobs;
        let slot = blobs.read_part(request.pack, offset as u64, limits::SLOT_LEN)?;
        if slot.len() < limits::SLOT_LEN {
            break;
        }
        slots.push(slot_hash(&slot));
    }
    Ok(encode(&PackStagedSlots { slots }))
}

/// Returns slots of a pack, after the pack's whole length.
pub(crate) async fn get(
    server: &Arc<Server>,
    connection: &Connection,
    request: Bytes,
    in_request: InRequest,
) -> Result<ReplyBody, Refusal> {
    let request: PackGet = decode("request", &request, limits::MESSAGE_LEN_MAX)?;
    server.require(connection, request.space, Right::Read)?;
    let for_disk = Arc::clone(server);
    let (len, first) = blocking(move || {
        let len = for_disk.stores.meta.pack(request.space, request.pack)?.len as usize;
        // A missing blob is an answer; an unreadable one is sent as far as it goes.
        if !for_disk.stores.blobs.has(request.pack)? {
            return Err(ErrorCode::NotFound.into());
        }
        Ok((len, usize::from(request.first) * limits::SLOT_LEN))
    })
    .await?;
    let end = len.min((usize::from(request.last) + 1) * limits::SLOT_LEN);
    if first >= end {
        return Err(ErrorCode::Malformed.into());
    }
    let header = u32::try_from(len).map_err(|_| ErrorCode::Internal)?.to_be_bytes();
    Ok(ReplyBody::Slots(Slots {
        server: Arc::clone(server),
        pack: request.pack,
        header: Some(Bytes::copy_from_slice(&header)),
        next: first,
        end,
        reading: None,
        _in_request: in_request,
    }))
}

/// Returns which of some packs this space does not have.
pub(crate) fn have(
    server: &Server,
    connection: &Connection,
    body: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let request: PackHave = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    server.require(connection, request.space, Right::Read)?;
    if request.packs.len() > limits::HAVE_MAX {
        return Err(ErrorCode::Malformed.into());
    }
    let mut packs = Vec::new();
    for pack in request.packs {
        let is_kept = match server.stores.meta.pack(request.space, pack) {
            Ok(record) => record.days_left.is_none() && server.stores.blobs.has(pack)?,
            Err(StoreError::NotFound) => false,
            Err(error) => return Err(error.into()),
        };
        if !is_kept {
            packs.push(pack);
        }
    }
    Ok(encode(&PackMissing { packs }))
}

/// Returns the server's signed word on which packs a space has.
pub(crate) fn list(
    server: &Server,
    connection: &Connection,
    body: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let request: PackList = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    server.require(connection, request.space, Right::Read)?;
    let mut packs = server.stores.meta.packs(request.space)?;
    let mut unreadable = Ok(());
    // A record whose blob is gone is no pack: a disk that was restored in part is found out at once.
    packs.retain(|pack| {
        server.stores.blobs.has(*pack).unwrap_or_else(|error| {
            unreadable = Err(error);
            false
        })
    });
    unreadable?;
    Ok(encode(&SignedPackList::sign(request.space, packs, request.nonce, &server.identity.signing)))
}

/// Deletes packs, which are kept for some days.
pub(crate) fn delete(
    server: &Server,
    connection: &Connection,
    body: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let request: PackDelete = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    if request.packs.len() > limits::HAVE_MAX {
        return Err(ErrorCode::Malformed.into());
    }
    let keys = server.stores.meta.space_keys(request.space)?;
    connection.check_act(
        labels::PACK_DELETE,
        &keys.prune,
        &request.proof,
        |binding, counter| delete_bytes(binding, counter, request.space, &request.packs),
    )?;
    // Until its devices have rotated the space's keys again, this may be one that was taken out.
    if server.stores.meta.put_back()?.is_some() {
        return Err(ErrorCode::PutBack.into());
    }
    server.stores.meta.delete_packs(request.space, &request.packs, limits::TRASH_DAYS)?;
    Ok(Vec::new())
}

/// Brings back all that was deleted of a space.
pub(crate) fn undelete(
    server: &Server,
    connection: &Connection,
    body: &[u8],
) -> Result<Vec<u8>, Refusal> {
    let request: PackUndelete = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    let keys = server.stores.meta.space_keys(request.space)?;
    connection.check_act(
        labels::PACK_UNDELETE,
        &keys.prune,
        &request.proof,
        |binding, counter| undelete_bytes(binding, counter, request.space),
    )?;
    let packs = server.stores.meta.undelete_packs(request.space)?;
    Ok(encode(&PackUndeleted { packs }))
}

/// The one connection that receives a pack, as long as this lives.
struct Receiving {
    server: Arc<Server>,
    pack: PackId,
}

impl Receiving {
    fn start(server: &Arc<Server>, pack: PackId) -> Result<Self, ErrorCode> {
        let mut all = server.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= limits::UPLOADS_MAX || !all.insert(pack) {
            return Err(ErrorCode::Busy);
        }
        Ok(Self { server: Arc::clone(server), pack })
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let mut all = self.server.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.pack);
    }
}

/// A pack that is being written. The writer is dropped before others may receive the same pack.
struct Upload {
    writer: Box<dyn BlobWriter>,
    receiving: Receiving,
}

impl Upload {
    fn begin(receiving: Receiving, kept: usize) -> Result<Self, Refusal> {
        let (stores, pack) = (&receiving.server.stores, receiving.pack);
        if stores.meta.has_pack(pack)? {
            return Err(ErrorCode::Exists.into());
        }
        // A blob without a record was never acknowledged: a store failed in between.
        stores.blobs.delete(pack)?;
        match stores.blobs.begin(pack, kept as u64) {
            // What was there a moment ago had to make room; asking again says so.
            Err(StoreError::NotFound) => Err(ErrorCode::Busy.into()),
            begun => Ok(Self { writer: begun?, receiving }),
        }
    }

    fn write(mut self, mut piece: Vec<u8>) -> Result<(Self, Vec<u8>), Refusal> {
        self.writer.write(&piece)?;
        piece.clear();
        Ok((self, piece))
    }

    /// Makes the blob durable, then its record. When the record fails, the blob stays: it is not
    /// known whether the record will be there after all, and `begin` and `sweep` delete it if not.
    fn finish(self, space: SpaceId, len: usize) -> Result<(), Refusal> {
        let Self { writer, receiving } = self;
        let len = u32::try_from(len).map_err(|_| ErrorCode::Malformed)?;
        writer.finish()?;
        let (server, pack) = (&receiving.server, receiving.pack);
        let added = server.stores.meta.add_pack(space, pack, len, &server.caps);
        if matches!(added, Err(StoreError::QuotaFull | StoreError::NotFound)) {
            server.stores.blobs.delete(pack)?;
        }
        Ok(added?)
    }
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

/// The body of an answer.
pub(crate) enum ReplyBody {
    /// Few bytes.
    Whole(Full<Bytes>),
    /// Slots of a pack, read as the client takes them.
    Slots(Slots),
}

/// Slots of a pack that are being sent; one is in memory at a time.
pub(crate) struct Slots {
    server: Arc<Server>,
    pack: PackId,
    header: Option<Bytes>,
    next: usize,
    end: usize,
    reading: Option<JoinHandle<Result<Vec<u8>, StoreError>>>,
    _in_request: InRequest,
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Whole(full) => Pin::new(full)
                .poll_frame(context)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Slots(slots) => slots.poll_frame(context),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(full) => full.size_hint(),
            Self::Slots(_) => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(full) if full.is_end_stream())
    }
}

impl Slots {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(header) = self.header.take() {
            return Poll::Ready(Some(Ok(Frame::data(header))));
        }
        if self.next >= self.end {
            return Poll::Ready(None);
        }
        let len = PIECE_LEN.min(self.end - self.next);
        let (server, pack, offset) = (&self.server, self.pack, self.next as u64);
        let reading = self.reading.get_or_insert_with(|| {
            let server = Arc::clone(server);
            spawn_blocking(move || server.stores.blobs.read(pack, offset, len))
        });
        let Poll::Ready(read) = Pin::new(reading).poll(context) else { return Poll::Pending };
        self.reading = None;
        // A pack that is cut off or unreadable is sent as far as it goes: the client then names the
        // files concerned, where a broken stream would only look like a bad network.
        let bytes = read.unwrap_or_else(|_| Ok(Vec::new())).unwrap_or_else(|error| {
            self.server.report(&error);
            Vec::new()
        });
        self.next = if bytes.len() == len { self.next + len } else { self.end };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(bytes)))))
    }
}
