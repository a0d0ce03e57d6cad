//! The routes of `/v1/`.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use sr_crypto::verify_capability;
use sr_store::{StoreError, Swapped};
use sr_wire::{
    Right, SealedHead, SignedAnswer, SpaceKeys,
    api::{self, ErrorBody, ErrorCode},
    decode, encode, labels, limits,
    log::{ENTRY_VERSION, Entry, Key},
    rotate_bytes, swap_bytes, voucher_hash,
};

use crate::{
    Server, account,
    connection::Connection,
    pack::{self, ReplyBody},
    put_back,
};

pub(crate) type Reply = Response<ReplyBody>;

/// Answers one request.
pub(crate) async fn handle(
    server: Arc<Server>,
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Reply, Infallible> {
    let in_request = connection.request();
    let (parts, body) = request.into_parts();
    let done = match (&parts.method, parts.uri.path()) {
        (&Method::POST, api::PACK_PUT) => pack::put(&server, &connection, body).await.map(ok),
        (&Method::POST, api::PACK_GET) => match small(body).await {
            Ok(body) => pack::get(&server, &connection, body, in_request).await.map(Response::new),
            Err(refusal) => Err(refusal),
        },
        (&Method::POST, path) => match small_for(&server, path, body).await {
            Ok(body) => {
                let path = path.to_owned();
                let server = Arc::clone(&server);
                blocking(move || dispatch(&server, &connection, &path, &body)).await.map(ok)
            }
            Err(refusal) => Err(refusal),
        },
        (&Method::GET, path) if path.starts_with(api::LOG) => {
            let (path, server) = (path.to_owned(), Arc::clone(&server));
            blocking(move || server.log.get(&server, &path)).await.map(ok)
        }
        _ => Err(ErrorCode::Version.into()),
    };
    Ok(done.unwrap_or_else(|refusal| refuse(&server, refusal)))
}

/// Why a request is not done: a code of the protocol, or a failing store.
pub(crate) enum Refusal {
    Code(ErrorCode),
    Store(StoreError),
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Code(code)
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<sr_wire::Malformed> for Refusal {
    fn from(_: sr_wire::Malformed) -> Self {
        Self::Code(ErrorCode::Malformed)
    }
}

/// Runs what waits for a disk away from the threads that serve the network.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(ErrorCode::Internal.into()),
    }
}

fn dispatch(
    server: &Arc<Server>,
    connection: &Connection,
    path: &str,
    body: &[u8],
) -> Result<Vec<u8>, Refusal> {
    match path {
        api::CARD => Ok(server.card_response(connection.spki_hash)),
        api::ACCOUNT_APPEND => account::append(server, body),
        api::ACCOUNT_READ => account::read(server, body),
        api::ENVELOPE_READ => account::envelope(server, body),
        api::LINK_PUT => server.links.put(body, server.now_s()),
        api::LINK_GET => server.links.get(body, server.now_s()),
        api::SPACE_CREATE => create_space(server, connection, body),
        api::SPACE_ROTATE => rotate_space(server, connection, body),
        api::RIGHT_PROVE => prove(server, connection, body),
        api::PACK_STAGED => pack::staged(server, connection, body),
        api::PACK_HAVE => pack::have(server, connection, body),
        api::PACK_LIST => pack::list(server, connection, body),
        api::PACK_DELETE => pack::delete(server, connection, body),
        api::PACK_UNDELETE => pack::undelete(server, connection, body),
        api::HEAD_READ => read_head(server, connection, body),
        api::HEAD_CHAIN => read_chain(server, connection, body),
        api::HEAD_SWAP => swap_head(server, connection, body),
        api::HEAD_GIVE_BACK => put_back::give_back_heads(server, connection, body),
        api::LOG_GIVE_BACK => put_back::give_back_log(server, body),
        api::LOG_APPEND => append_log(server, body),
        _ => Err(ErrorCode::Version.into()),
    }
}

/// Takes an entry for the log that its key has signed. Nothing else is asked: whose key it is, the server does not
/// know.
fn append_log(server: &Server, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request: api::LogAppend = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    let api::LogAppend { key, seq, value, previous, signature } = request;
    let bytes = api::LogAppend::signed_bytes(&key, seq, &value, &previous);
    verify_capability(labels::FRESHNESS_SIGN, &key, &bytes, &signature)
        .map_err(|_| ErrorCode::RightRefused)?;
    // Those that go on from another have room of their own: strangers can fill that of the first ones.
    let is_first = seq == 0;
    server.has_room_for_freshness(is_first)?;
    let (Key { kind, index }, time_s) = (Key::freshness(&key), server.now_s());
    let entry = Entry { version: ENTRY_VERSION, kind, time_s, index, seq, value, previous };
    match server.stores.meta.append_entry(&entry) {
        Ok(is_new) => {
            if is_new {
                server.count_freshness(is_first);
            }
            Ok(Vec::new())
        }
        Err(StoreError::Exists) => Err(ErrorCode::Conflict.into()),
        Err(error) => Err(error.into()),
    }
}

fn create_space(server: &Server, connection: &Connection, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request: api::CreateSpace = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    connection.check_create(&request)?;
    let hash = voucher_hash(&request.voucher);
    match server.stores.meta.create_space(request.space, &request.keys, &hash, &server.caps) {
        Ok(()) => Ok(Vec::new()),
        // The answer to an earlier try may have been lost: the same space is the same space.
        Err(StoreError::Exists)
            if server.stores.meta.space_keys(request.space)? == request.keys =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// Gives a space the keys of another generation. By the prune key, it must be a later one, or the
/// space gets its first owner; only an owner may go back, or change the owner.
fn rotate_space(server: &Server, connection: &Connection, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request: api::SpaceRotate = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    let old = server.stores.meta.space_keys(request.space)?;
    let mut new = request.keys;
    if request.by == Right::Prune && new.of(Right::Owner).is_none() {
        // Devices do not know who owns a space.
        new.owner = old.owner;
    }
    // The answer to an earlier try may have been lost, or another device was faster.
    if new == old {
        return Ok(Vec::new());
    }
    let is_allowed = match request.by {
        Right::Prune => {
            let first_owner = old.of(Right::Owner).is_none();
            let only_owned = SpaceKeys { owner: old.owner, ..new } == old;
            (new.generation > old.generation && (first_owner || new.owner == old.owner))
                || (first_owner && only_owned)
        }
        Right::Owner => true,
        Right::Read | Right::Append => false,
    };
    if !is_allowed || new.read != old.read {
        return Err(ErrorCode::RightRefused.into());
    }
    let key = old.of(request.by).ok_or(ErrorCode::RightRefused)?;
    connection.check_act(labels::ROTATE, key, &request.proof, |binding, counter| {
        rotate_bytes(binding, counter, request.space, &request.keys)
    })?;
    match server.stores.meta.rotate_space(request.space, &old, &new) {
        Ok(()) => Ok(Vec::new()),
        Err(StoreError::Exists) => Err(ErrorCode::Conflict.into()),
        Err(error) => Err(error.into()),
    }
}

fn read_chain(server: &Server, connection: &Connection, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request: api::HeadChain = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    server.require(connection, request.space, Right::Read)?;
    let max = limits::HEADS_PER_MESSAGE;
    let heads = server.stores.meta.heads(request.space, request.from, max)?;
    Ok(encode(&api::HeadChainResponse { heads }))
}

fn prove(server: &Server, connection: &Connection, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let proof: api::Prove = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    let keys = server.stores.meta.space_keys(proof.space)?;
    connection.prove(&proof, &keys)?;
    Ok(Vec::new())
}

fn read_head(server: &Server, connection: &Connection, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let request: api::HeadRead = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    server.require(connection, request.space, Right::Read)?;
    let head = server.stores.meta.head(request.space)?;
    Ok(answer(server, request.space, head, request.nonce))
}

fn swap_head(server: &Server, connection: &Connection, body: &[u8]) -> Result<Vec<u8>, Refusal> {
    let swap: api::HeadSwap = decode("request", body, limits::MESSAGE_LEN_MAX)?;
    let space = swap.head.space;
    server.require(connection, space, Right::Append)?;
    if swap.head.sealed.as_slice().len() != limits::SEALED_HEAD_LEN {
        return Err(ErrorCode::Malformed.into());
    }
    let keys = server.stores.meta.space_keys(space)?;
    connection.check_act(labels::SWAP, &keys.append, &swap.proof, |binding, counter| {
        swap_bytes(binding, counter, &swap.head)
    })?;
    let newest = match server.stores.meta.swap_head(&swap.head)? {
        Swapped::Done => Some(swap.head),
        Swapped::Conflict(newest) => newest,
    };
    Ok(answer(server, space, newest, swap.nonce))
}

fn answer(
    server: &Server,
    space: sr_wire::SpaceId,
    head: Option<SealedHead>,
    nonce: sr_crypto::Hash,
) -> Vec<u8> {
    let answer = SignedAnswer::sign(space, head.as_ref(), nonce, &server.identity.signing);
    encode(&api::HeadResponse { answer, head })
}

async fn small(body: Incoming) -> Result<Bytes, Refusal> {
    up_to(limits::MESSAGE_LEN_MAX, body).await
}

/// A key block is longer than any other message, and what is given back longer than that: few at once, as
/// anybody may send it.
async fn small_for(server: &Server, path: &str, body: Incoming) -> Result<Bytes, Refusal> {
    match path {
        api::ACCOUNT_APPEND => up_to(limits::ACCOUNT_MESSAGE_LEN_MAX, body).await,
        api::HEAD_GIVE_BACK | api::LOG_GIVE_BACK => {
            let _one = server.give_backs.try_acquire().map_err(|_| ErrorCode::Busy)?;
            up_to(limits::GIVE_BACK_LEN_MAX, body).await
        }
        _ => small(body).await,
    }
}

async fn up_to(len_max: usize, body: Incoming) -> Result<Bytes, Refusal> {
    let body = Limited::new(body, len_max).collect();
    match tokio::time::timeout(pack::BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        _ => Err(ErrorCode::Malformed.into()),
    }
}

fn ok(body: Vec<u8>) -> Reply {
    Response::new(ReplyBody::Whole(Full::new(Bytes::from(body))))
}

fn refuse(server: &Server, refusal: Refusal) -> Reply {
    let code = match refusal {
        Refusal::Code(code) => code,
        Refusal::Store(error) => {
            let code = code_of(&error);
            if matches!(code, ErrorCode::Internal | ErrorCode::StorageFull) {
                server.report(&error);
            }
            code
        }
    };
    let body = ErrorBody { code, message: message(code).as_bytes().to_vec().into() };
    let mut reply = ok(encode(&body));
    *reply.status_mut() = status(code);
    reply
}

fn code_of(error: &StoreError) -> ErrorCode {
    match error {
        StoreError::Exists => ErrorCode::Exists,
        StoreError::Full => ErrorCode::StorageFull,
        StoreError::NotFound => ErrorCode::NotFound,
        StoreError::PutBack => ErrorCode::PutBack,
        StoreError::QuotaFull => ErrorCode::QuotaFull,
        StoreError::VoucherUnknown => ErrorCode::VoucherRefused,
        _ => ErrorCode::Internal,
    }
}

fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::Malformed => StatusCode::BAD_REQUEST,
        ErrorCode::Version | ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::RightRefused | ErrorCode::VoucherRefused => StatusCode::FORBIDDEN,
        ErrorCode::QuotaFull | ErrorCode::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::Exists | ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::BlockRefused | ErrorCode::TooEarly => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::Busy | ErrorCode::PutBack => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn message(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Malformed => "the request is not in the form of this version",
        ErrorCode::Version => "this server speaks version 1 of the protocol",
        ErrorCode::RightRefused => "the right to do this was not proven",
        ErrorCode::VoucherRefused => "the voucher was never given out, or is spent",
        ErrorCode::QuotaFull => "the limit of the space or the server is reached",
        ErrorCode::StorageFull => "the server's disk is full",
        ErrorCode::NotFound => "no such space, pack, account or envelope",
        ErrorCode::Exists => "the id is taken",
        ErrorCode::Busy => "the server is busy",
        ErrorCode::Internal => "the server failed",
        ErrorCode::Conflict => "another device was faster",
        ErrorCode::BlockRefused => "the account does not allow this",
        ErrorCode::TooEarly => "the wait is not over, or the clocks differ",
        ErrorCode::PutBack => {
            "this server was put back from a backup and is getting back what came after"
        }
    }
}
