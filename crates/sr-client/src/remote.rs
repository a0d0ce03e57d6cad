//! The server, as blocking calls that survive a lost connection.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sr_crypto::{CAPABILITY_KEY_LEN, CapabilityKey, Hash, Label};
use sr_keys::VaultKeys;
use sr_vault::pack::Slots;
use sr_wire::{
    AccountId, Card, CardResponse, Misbehaviour, PackId, Right, SealedHead, SignedAnswer,
    SignedCard, SignedPackList, SpaceId, SwapProof, VLBytes,
    api::{self, ErrorBody, ErrorCode, HeadResponse},
    card_hash, create_bytes, decode, delete_bytes, encode, head_nonce, labels, limits,
    log::SignedReceipt,
    pack_list_hash, prove_bytes, rotate_bytes, slot_hash, swap_bytes, undelete_bytes,
};
use tls_codec::{DeserializeBytes, Serialize};
use tokio::{runtime::Runtime, sync::Mutex};

use crate::{ClientError, Clock, Dial, limit::Limits};

mod give_back;
mod link;

/// How long a connection that broke is tried again before the run gives up.
///
/// Longer than the server takes to give up a connection that is gone.
const PATIENCE: Duration = Duration::from_secs(90);
/// The same for a server that this run has not reached yet.
const PATIENCE_AT_FIRST: Duration = Duration::from_secs(3);
const WAIT_MAX: Duration = Duration::from_secs(5);
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// A pack of 16 MiB at 1 Mbit/s, three of them at once, takes under 7 minutes.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15 * 60);
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// A server whose card is pinned.
pub(crate) struct Remote {
    runtime: Arc<Runtime>,
    dial: Arc<dyn Dial>,
    /// `None` while a device is linked: then the words decide. It moves on to each newer card, for all
    /// connections.
    pinned: Arc<StdMutex<Option<Hash>>>,
    /// Cards that were shown and refused, of any connection.
    refused: Arc<StdMutex<Vec<SignedCard>>>,
    clock: Clock,
    session: Mutex<Option<Arc<Session>>>,
    reached: AtomicBool,
    pub(crate) limits: Limits,
}

/// One connection with the pinned server.
struct Session {
    sender: SendRequest<Parts>,
    binding: [u8; 32],
    /// From the first to the one that counts.
    cards: Vec<SignedCard>,
    card: Card,
    counter: AtomicU64,
    /// Whether the right to read the space is proven.
    may_read: AtomicBool,
    /// The generation of the key by which the right to append is proven; 0 for none.
    may_append: AtomicU32,
}

/// The body of a request: its pieces, the last first. A pack is sent from where it was sealed.
#[derive(Clone)]
struct Parts(Vec<Bytes>);

impl From<Vec<u8>> for Parts {
    fn from(bytes: Vec<u8>) -> Self {
        Self(vec![Bytes::from(bytes)])
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.get_mut().0.pop().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}

/// Why one try failed.
enum Failed {
    /// The connection: try again.
    Connection(io::Error),
    /// Anything else: trying again does not help.
    For(ClientError),
}

impl From<Misbehaviour> for Failed {
    fn from(misbehaviour: Misbehaviour) -> Self {
        Self::For(misbehaviour.into())
    }
}

impl Remote {
    pub(crate) fn new(
        runtime: Arc<Runtime>,
        dial: Arc<dyn Dial>,
        pinned: Option<Hash>,
        clock: Clock,
    ) -> Self {
        Self {
            runtime,
            dial,
            pinned: Arc::new(StdMutex::new(pinned)),
            refused: Arc::default(),
            clock,
            session: Mutex::new(None),
            reached: false.into(),
            limits: Limits::default(),
        }
    }

    /// Returns the same server over another connection: what is asked about an account and about
    /// each space never shares one.
    pub(crate) fn apart(&self) -> Self {
        let (runtime, dial) = (Arc::clone(&self.runtime), Arc::clone(&self.dial));
        let apart = Self::new(runtime, dial, None, Arc::clone(&self.clock));
        let (pinned, refused) = (Arc::clone(&self.pinned), Arc::clone(&self.refused));
        Self { pinned, refused, limits: self.limits.clone(), ..apart }
    }

    /// Returns the same server, whose card is known from here on.
    pub(crate) fn pinned(&self, card_hash: Hash) -> Self {
        Self { pinned: Arc::new(StdMutex::new(Some(card_hash))), ..self.apart() }
    }

    /// Connects and returns the server's card, which is the pinned one.
    pub(crate) fn card(&self) -> Result<Card, ClientError> {
        self.with_session(None, |session| async move { Ok(session.card.clone()) })
    }

    /// Returns what this device's clock says, in Unix seconds.
    pub(crate) fn now_s(&self) -> u64 {
        (self.clock)()
    }

    /// Returns the server's cards, from the first on.
    pub(crate) fn cards(&self) -> Result<Vec<SignedCard>, ClientError> {
        self.with_session(None, |session| async move { Ok(session.cards.clone()) })
    }

    /// Returns a file of the log, and the card of the connection that it came over. The connection proves
    /// nothing, and asks about nothing else.
    pub(crate) fn log_file(
        &self,
        path: &str,
        len_max: usize,
    ) -> Result<(Card, Vec<u8>), ClientError> {
        let path = format!("{}{path}", api::LOG);
        self.with_session(None, |session| {
            let path = path.clone();
            async move {
                let nothing = Parts(Vec::new());
                let file = call(&session.sender, Method::GET, &path, nothing, len_max).await?;
                Ok((session.card.clone(), file))
            }
        })
    }

    /// Makes the space of the vault with the first voucher that still counts.
    pub(crate) fn create_space(
        &self,
        keys: &VaultKeys,
        vouchers: &[Hash],
    ) -> Result<(), ClientError> {
        let append = capability(keys, Right::Append)?;
        let mut refused = ClientError::ServerRefused(ErrorCode::VoucherRefused);
        for voucher in vouchers {
            let append = &append;
            let created = self.with_session(None, |session| async move {
                let (space, space_keys) = (keys.space(), keys.space_keys([0; 32]));
                let bytes = create_bytes(&session.binding, space, &space_keys, voucher);
                let request = api::CreateSpace {
                    space,
                    keys: space_keys,
                    voucher: *voucher,
                    signature: append.sign(labels::CREATE, &bytes),
                };
                session.call(api::SPACE_CREATE, encode(&request), limits::MESSAGE_LEN_MAX).await
            });
            match created {
                Ok(_) => return Ok(()),
                Err(error @ ClientError::ServerRefused(ErrorCode::VoucherRefused)) => {
                    refused = error;
                }
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// Stores a pack, of which slots that an earlier try has left are not sent again. One that is there
    /// already was stored by an earlier try. Returns its memory, if nothing else holds it any more.
    pub(crate) fn put_pack(
        &self,
        keys: &VaultKeys,
        id: PackId,
        pack: Vec<u8>,
        was_tried: bool,
    ) -> Result<Option<Vec<u8>>, ClientError> {
        let (space, pack) = (keys.space(), Bytes::from(pack));
        // The question costs a round trip, and for most packs it is needless.
        let was_tried = AtomicBool::new(was_tried);
        let stored = self.with_session(Some((keys, Right::Append)), |session| {
            let was_tried = was_tried.swap(true, Ordering::Relaxed);
            let pack = pack.clone();
            async move {
                let first =
                    if was_tried { session.staged_slots(space, id, &pack).await? } else { 0 };
                let prefix = Bytes::from([&space.0[..], &id.0, &[first]].concat());
                let rest = pack.slice(usize::from(first) * limits::SLOT_LEN..);
                let body = Parts(vec![rest, prefix]);
                session.call(api::PACK_PUT, body, limits::MESSAGE_LEN_MAX).await
            }
        });
        match stored {
            Ok(_) | Err(ClientError::ServerRefused(ErrorCode::Exists)) => {
                Ok(pack.is_unique().then(|| pack.into()))
            }
            Err(error) => Err(error),
        }
    }

    /// Returns the length of a pack, and its slots.
    pub(crate) fn get_pack(
        &self,
        keys: &VaultKeys,
        pack: PackId,
        slots: Slots,
    ) -> Result<(usize, Vec<u8>), ClientError> {
        let slot = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
        let (first, last) = (slot(slots.first), slot(slots.last));
        let reply_len_max = 4 + (slots.last - slots.first + 1) * limits::SLOT_LEN;
        let request = encode(&api::PackGet { space: keys.space(), pack, first, last });
        let reply = self.with_session(Some((keys, Right::Read)), |session| {
            let request = request.clone();
            async move { session.call(api::PACK_GET, request, reply_len_max).await }
        });
        let mut reply = match reply {
            // SR-003: it was acknowledged, or a verified index would not name it.
            Err(ClientError::ServerRefused(ErrorCode::NotFound)) => {
                return Err(Misbehaviour::PackMissing.into());
            }
            reply => reply?,
        };
        let len = reply.first_chunk::<4>().ok_or(Misbehaviour::ResponseMalformed)?;
        let len = u32::from_be_bytes(*len) as usize;
        reply.drain(..4);
        Ok((len, reply))
    }

    /// Returns those of `packs` that the server does not have.
    pub(crate) fn missing(
        &self,
        keys: &VaultKeys,
        packs: &[PackId],
    ) -> Result<Vec<PackId>, ClientError> {
        let mut missing = Vec::new();
        for asked in packs.chunks(limits::HAVE_MAX) {
            let request = encode(&api::PackHave { space: keys.space(), packs: asked.to_vec() });
            let reply = self.with_session(Some((keys, Right::Read)), |session| {
                let request = request.clone();
                async move { session.call(api::PACK_HAVE, request, limits::MESSAGE_LEN_MAX).await }
            })?;
            let reply: api::PackMissing = decode("answer", &reply, limits::MESSAGE_LEN_MAX)
                .map_err(|_| Misbehaviour::ResponseMalformed)?;
            // SR-016: an answer to another question.
            let answers = reply.packs.iter().all(|pack| asked.contains(pack));
            Misbehaviour::ResponseMalformed
                .refuse_if(!answers || reply.packs.len() > asked.len())?;
            missing.extend(reply.packs);
        }
        Ok(missing)
    }

    /// Returns those of `packs` that the server, by its signed word, has not. A server that has exactly
    /// these says so at once.
    pub(crate) fn lost(
        &self,
        keys: &VaultKeys,
        packs: &[PackId],
    ) -> Result<Vec<PackId>, ClientError> {
        let (nonce, _) = head_nonce(None, &mut os_rng());
        let listed = self.with_session(Some((keys, Right::Read)), |session| async move {
            let request = encode(&api::PackList { space: keys.space(), nonce });
            let reply = session.call(api::PACK_LIST, request, limits::MESSAGE_LEN_MAX).await?;
            // SR-016
            let listed: SignedPackList = decode("answer", &reply, limits::MESSAGE_LEN_MAX)
                .map_err(|_| Misbehaviour::ResponseMalformed)?;
            listed.verify(&session.card, keys.space(), &nonce)?;
            Ok(listed.answer)
        })?;
        if (listed.count, listed.hash) == (packs.len() as u64, pack_list_hash(packs.to_vec())) {
            return Ok(Vec::new());
        }
        // It has others besides, of a run of another device say, or has lost some.
        self.missing(keys, packs)
    }

    /// Deletes packs; the server keeps them for some days.
    pub(crate) fn delete_packs(
        &self,
        keys: &VaultKeys,
        packs: &[PackId],
    ) -> Result<(), ClientError> {
        let (space, prune) = (keys.space(), &capability(keys, Right::Prune)?);
        for packs in packs.chunks(limits::HAVE_MAX / 2) {
            self.with_session(None, |session| async move {
                let packs = packs.to_vec();
                let proof = session.proof(prune, labels::PACK_DELETE, |binding, counter| {
                    delete_bytes(binding, counter, space, &packs)
                });
                let delete = encode(&api::PackDelete { space, packs, proof });
                session.call(api::PACK_DELETE, delete, limits::MESSAGE_LEN_MAX).await
            })?;
        }
        Ok(())
    }

    /// Brings back all packs that were deleted. Returns how many.
    pub(crate) fn undelete_packs(&self, keys: &VaultKeys) -> Result<u64, ClientError> {
        let (space, prune) = (keys.space(), &capability(keys, Right::Prune)?);
        let reply = self.with_session(None, |session| async move {
            let proof = session.proof(prune, labels::PACK_UNDELETE, |binding, counter| {
                undelete_bytes(binding, counter, space)
            });
            let undelete = encode(&api::PackUndelete { space, proof });
            session.call(api::PACK_UNDELETE, undelete, limits::MESSAGE_LEN_MAX).await
        })?;
        let reply: api::PackUndeleted = parse(&reply, limits::MESSAGE_LEN_MAX)?;
        Ok(reply.packs)
    }

    /// Returns the newest head and the server's verified word that it is, and what opens the question's nonce.
    pub(crate) fn read_head(
        &self,
        keys: &VaultKeys,
        newest: Option<&SignedAnswer>,
    ) -> Result<(HeadResponse, [u8; 32]), ClientError> {
        let (nonce, random) = head_nonce(newest, &mut os_rng());
        self.with_session(Some((keys, Right::Read)), |session| async move {
            let request = encode(&api::HeadRead { space: keys.space(), nonce });
            let reply = session.call(api::HEAD_READ, request, limits::MESSAGE_LEN_MAX).await?;
            Ok((verify_answer(&reply, &session.card, keys, &nonce)?, random))
        })
    }

    /// Sends a head and returns what is the newest then.
    pub(crate) fn swap_head(
        &self,
        keys: &VaultKeys,
        head: &SealedHead,
        newest: Option<&SignedAnswer>,
    ) -> Result<HeadResponse, ClientError> {
        let append = &capability(keys, Right::Append)?;
        let (nonce, _) = head_nonce(newest, &mut os_rng());
        self.with_session(Some((keys, Right::Append)), |session| async move {
            let proof = session
                .proof(append, labels::SWAP, |binding, counter| swap_bytes(binding, counter, head));
            let swap = encode(&api::HeadSwap { head: head.clone(), nonce, proof });
            let reply = session.call(api::HEAD_SWAP, swap, limits::MESSAGE_LEN_MAX).await?;
            Ok(verify_answer(&reply, &session.card, keys, &nonce)?)
        })
    }

    /// Returns heads `from..=to` of a space; they count as far as the newest follows from them.
    pub(crate) fn heads(
        &self,
        keys: &VaultKeys,
        mut from: u64,
        to: u64,
    ) -> Result<Vec<SealedHead>, ClientError> {
        let mut heads = Vec::new();
        while from <= to {
            let request = encode(&api::HeadChain { space: keys.space(), from });
            let reply = self.with_session(Some((keys, Right::Read)), |session| {
                let request = request.clone();
                async move { session.call(api::HEAD_CHAIN, request, limits::MESSAGE_LEN_MAX).await }
            })?;
            let reply: api::HeadChainResponse = parse(&reply, limits::MESSAGE_LEN_MAX)?;
            let wanted = reply.heads.into_iter().take_while(|head| head.seq <= to);
            let before = heads.len();
            heads.extend(wanted);
            // SR-007: the chain that leads to the newest head is not there.
            if heads.len() == before {
                return Err(Misbehaviour::HeadForked.into());
            }
            from += (heads.len() - before) as u64;
        }
        Ok(heads)
    }

    /// Gives a space the keys of the newest generation, and this owner unless it is zeros, by a prune
    /// or owner key that it has. A space that has all that is left as it is.
    pub(crate) fn rotate(
        &self,
        keys: &VaultKeys,
        owner: [u8; CAPABILITY_KEY_LEN],
        (by, key): (Right, &CapabilityKey),
    ) -> Result<(), ClientError> {
        let (space, new) = (keys.space(), keys.space_keys(owner));
        self.with_session(None, |session| async move {
            let proof = session.proof(key, labels::ROTATE, |binding, counter| {
                rotate_bytes(binding, counter, space, &new)
            });
            let rotate = encode(&api::SpaceRotate { space, keys: new, by, proof });
            session.call(api::SPACE_ROTATE, rotate, limits::MESSAGE_LEN_MAX).await
        })?;
        Ok(())
    }

    /// Appends a block, of which place and hash are given, to an account's chain. Returns the server's
    /// promise to log it.
    pub(crate) fn append(
        &self,
        request: &api::AccountAppend,
        (seq, block): (u64, &Hash),
    ) -> Result<SignedReceipt, ClientError> {
        let body = encode(request);
        self.with_session(None, |session| {
            let body = body.clone();
            async move {
                let reply =
                    session.call(api::ACCOUNT_APPEND, body, limits::MESSAGE_LEN_MAX).await?;
                // SR-016
                let receipt: SignedReceipt = decode("answer", &reply, limits::MESSAGE_LEN_MAX)
                    .map_err(|_| Misbehaviour::ResponseMalformed)?;
                receipt.verify(&session.card, request.account, seq, block)?;
                Ok(receipt)
            }
        })
    }

    /// Returns an account's blocks from a place on, and its newest key block.
    pub(crate) fn blocks(
        &self,
        account: AccountId,
        from: u64,
    ) -> Result<(Vec<Vec<u8>>, Vec<u8>), ClientError> {
        let mut blocks: Vec<Vec<u8>> = Vec::new();
        loop {
            let from = from + blocks.len() as u64;
            let request = encode(&api::AccountRead { account, from });
            let reply = self.with_session(None, |session| {
                let request = request.clone();
                let len_max = limits::ACCOUNT_MESSAGE_LEN_MAX;
                async move { session.call(api::ACCOUNT_READ, request, len_max).await }
            })?;
            let reply: api::AccountResponse = parse(&reply, limits::ACCOUNT_MESSAGE_LEN_MAX)?;
            // SR-016: an answer that brings nothing and promises more.
            Misbehaviour::ResponseMalformed
                .refuse_if(reply.blocks.is_empty() && reply.key_block.is_none())?;
            add_blocks(&mut blocks, reply.blocks)?;
            if let Some(key_block) = reply.key_block {
                return Ok((blocks, key_block.into()));
            }
        }
    }

    /// Returns a kit's envelope.
    pub(crate) fn envelope(&self, lookup: Hash) -> Result<Vec<u8>, ClientError> {
        let request = encode(&api::EnvelopeRead { lookup });
        self.with_session(None, |session| {
            let request = request.clone();
            async move { session.call(api::ENVELOPE_READ, request, limits::MESSAGE_LEN_MAX).await }
        })
    }

    /// Runs `work` on a session, on a new one each time that a connection breaks. Every request of
    /// the protocol may be repeated.
    fn with_session<T, F>(
        &self,
        rights: Option<(&VaultKeys, Right)>,
        work: impl Fn(Arc<Session>) -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        self.runtime.block_on(async {
            let mut wait = Duration::from_millis(100);
            let mut failing_since = None;
            loop {
                let result = match self.session(rights).await {
                    Ok(session) => {
                        let result = work(Arc::clone(&session)).await;
                        if matches!(result, Err(Failed::Connection(_))) {
                            self.drop_session(&session).await;
                        }
                        result
                    }
                    Err(failed) => Err(failed),
                };
                let source = match result {
                    Ok(value) => return Ok(value),
                    Err(Failed::For(ClientError::ServerRefused(ErrorCode::Busy))) => {
                        io::Error::other("the server is busy")
                    }
                    Err(Failed::For(error)) => return Err(error),
                    Err(Failed::Connection(error)) => error,
                };
                let reached = self.reached.load(Ordering::Relaxed);
                let patience = if reached { PATIENCE } else { PATIENCE_AT_FIRST };
                if failing_since.get_or_insert_with(Instant::now).elapsed() + wait > patience {
                    let address = self.dial.address();
                    return Err(ClientError::Unreachable { address, source });
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(WAIT_MAX);
            }
        })
    }

    async fn session(&self, rights: Option<(&VaultKeys, Right)>) -> Result<Arc<Session>, Failed> {
        let mut slot = self.session.lock().await;
        let session = match slot.as_ref().filter(|session| !session.sender.is_closed()) {
            Some(session) => Arc::clone(session),
            None => {
                let session = Arc::new(self.connect().await?);
                *slot = Some(Arc::clone(&session));
                self.reached.store(true, Ordering::Relaxed);
                session
            }
        };
        if let Some((keys, _)) = rights
            && !session.may_read.load(Ordering::SeqCst)
        {
            session.prove(keys, Right::Read).await?;
            session.may_read.store(true, Ordering::SeqCst);
        }
        if let Some((keys, Right::Append)) = rights
            && session.may_append.load(Ordering::SeqCst) != keys.generation()
        {
            session.prove(keys, Right::Append).await?;
            session.may_append.store(keys.generation(), Ordering::SeqCst);
        }
        Ok(session)
    }

    async fn drop_session(&self, broken: &Arc<Session>) {
        let mut slot = self.session.lock().await;
        if slot.as_ref().is_some_and(|session| Arc::ptr_eq(session, broken)) {
            *slot = None;
        }
    }

    async fn connect(&self) -> Result<Session, Failed> {
        let channel = self.dial.dial().await.map_err(Failed::Connection)?;
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(self.limits.apply(channel.io)))
            .await
            .map_err(connection_error)?;
        tokio::spawn(connection);
        let (nothing, len_max) = (Parts(Vec::new()), limits::CARDS_LEN_MAX);
        let reply = call(&sender, Method::POST, api::CARD, nothing, len_max).await?;
        // SR-010, SR-011: before this, nothing but the question for the card is sent.
        let now_s = (self.clock)();
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let cards = CardResponse::verify(&reply, pinned.as_ref(), &channel.spki_hash, now_s)
            .inspect_err(|_| self.note_refused(&reply))?;
        let card = cards.last().ok_or(Misbehaviour::ResponseMalformed)?.card.clone();
        // From here on, no older card will do.
        if let Some(pin) = pinned.as_mut() {
            *pin = card_hash(&card);
        }
        drop(pinned);
        Ok(Session {
            sender,
            binding: channel.binding,
            cards,
            card,
            counter: AtomicU64::new(0),
            may_read: false.into(),
            may_append: 0.into(),
        })
    }
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({})", self.dial.address())
    }
}

impl Session {
    async fn prove(&self, keys: &VaultKeys, right: Right) -> Result<(), Failed> {
        let space = keys.space();
        let key = capability(keys, right).map_err(Failed::For)?;
        let bytes = prove_bytes(&self.binding, space, right);
        let proof = api::Prove { space, right, signature: key.sign(labels::PROVE, &bytes) };
        self.call(api::RIGHT_PROVE, encode(&proof), limits::MESSAGE_LEN_MAX).await?;
        Ok(())
    }

    /// Returns how many slots of a pack the server has from an earlier try.
    async fn staged_slots(&self, space: SpaceId, pack: PackId, bytes: &[u8]) -> Result<u8, Failed> {
        let request = encode(&api::PackStaged { space, pack });
        let reply = self.call(api::PACK_STAGED, request, limits::MESSAGE_LEN_MAX).await?;
        // SR-016
        let staged: api::PackStagedSlots = decode("answer", &reply, limits::MESSAGE_LEN_MAX)
            .map_err(|_| Misbehaviour::ResponseMalformed)?;
        let (slots, _) = bytes.as_chunks::<{ limits::SLOT_LEN }>();
        let same = slots.iter().zip(&staged.slots).take_while(|(slot, h)| slot_hash(*slot) == **h);
        Ok(u8::try_from(same.count()).unwrap_or(0))
    }

    /// Signs the next act of this connection by a right's key.
    fn proof(
        &self,
        key: &CapabilityKey,
        label: Label,
        bytes: impl FnOnce(&[u8; 32], u64) -> Vec<u8>,
    ) -> SwapProof {
        let counter = self.counter.fetch_add(1, Ordering::SeqCst) + 1;
        SwapProof { counter, signature: key.sign(label, &bytes(&self.binding, counter)) }
    }

    async fn call(
        &self,
        path: &str,
        body: impl Into<Parts>,
        reply_len_max: usize,
    ) -> Result<Vec<u8>, Failed> {
        call(&self.sender, Method::POST, path, body.into(), reply_len_max).await
    }
}

async fn call(
    sender: &SendRequest<Parts>,
    method: Method,
    path: &str,
    body: Parts,
    reply_len_max: usize,
) -> Result<Vec<u8>, Failed> {
    let request = Request::builder()
        .method(method)
        .uri(format!("https://strongroom{path}"))
        .body(body)
        .map_err(|e| Failed::Connection(io::Error::other(e)))?;
    let mut sender = sender.clone();
    let answer = async {
        let response = sender.send_request(request).await.map_err(connection_error)?;
        let status = response.status();
        let body = read_reply(response.into_body(), reply_len_max).await?;
        if status == StatusCode::OK {
            return Ok(body);
        }
        let refused: ErrorBody = decode("refusal", &body, limits::MESSAGE_LEN_MAX)
            .map_err(|_| Misbehaviour::ResponseMalformed)?;
        Err(Failed::For(ClientError::ServerRefused(refused.code)))
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(answer) => answer,
        Err(elapsed) => Err(Failed::Connection(elapsed.into())),
    }
}

/// Copies frames as they come: a million of one byte each take no more memory than one.
async fn read_reply(mut body: Incoming, len_max: usize) -> Result<Vec<u8>, Failed> {
    // Growing step by step, a pack would be copied again and again, and leave holes in memory; what is
    // reserved and not used costs nothing.
    let mut reply = Vec::with_capacity(if len_max > limits::SLOT_LEN { len_max } else { 0 });
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(connection_error)?;
        let Ok(bytes) = frame.into_data() else { continue };
        // SR-016
        Misbehaviour::ResponseMalformed.refuse_if(reply.len() + bytes.len() > len_max)?;
        reply.extend_from_slice(&bytes);
    }
    Ok(reply)
}

/// Adds what came to a chain that has an end.
fn add_blocks(chain: &mut Vec<Vec<u8>>, more: Vec<VLBytes>) -> Result<(), Misbehaviour> {
    chain.extend(more.into_iter().map(Vec::from));
    let len: usize = chain.iter().map(Vec::len).sum();
    // SR-016: a server that never stops would fill this device's memory.
    Misbehaviour::ResponseMalformed.refuse_if(len > limits::CHAIN_LEN_MAX)
}

fn parse<T: DeserializeBytes + Serialize>(reply: &[u8], len_max: usize) -> Result<T, ClientError> {
    // SR-016
    Ok(decode("answer", reply, len_max).map_err(|_| Misbehaviour::ResponseMalformed)?)
}

fn verify_answer(
    reply: &[u8],
    card: &Card,
    keys: &VaultKeys,
    nonce: &Hash,
) -> Result<HeadResponse, Misbehaviour> {
    // SR-016
    let response: HeadResponse = decode("answer", reply, limits::MESSAGE_LEN_MAX)
        .map_err(|_| Misbehaviour::ResponseMalformed)?;
    response.answer.verify(card, keys.space(), nonce, response.head.as_ref())?;
    Ok(response)
}

fn capability(keys: &VaultKeys, right: Right) -> Result<CapabilityKey, ClientError> {
    keys.capability(right).ok_or(ClientError::ServerRefused(ErrorCode::RightRefused))
}

fn connection_error(error: hyper::Error) -> Failed {
    Failed::Connection(io::Error::other(error))
}

/// Returns what runs the connections of a client.
pub(crate) fn runtime() -> Result<Arc<Runtime>, ClientError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("network")
        .enable_all()
        .build()
        .map(Arc::new)
        .map_err(|e| ClientError::Resources(format!("the network can't be used: {e}")))
}

/// The operating system's randomness, for ids, nonces and salts.
pub(crate) fn os_rng() -> impl sr_crypto::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sr_016_an_account_without_end_is_refused() {
        let block = || vec![VLBytes::from(vec![0; 1 << 20])];
        let mut chain = Vec::new();
        for _ in 0..limits::CHAIN_LEN_MAX >> 20 {
            assert_eq!(add_blocks(&mut chain, block()), Ok(()));
        }
        let refused = add_blocks(&mut chain, block());
        assert_eq!(refused, Err(Misbehaviour::ResponseMalformed));
    }
}
