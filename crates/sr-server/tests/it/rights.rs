//! Who may do what.

use std::{io, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sr_crypto::{CapabilityKey, Hash, Secret32};
use sr_server::{Channel, Handshake, Identity, Listen, Server, Stores};
use sr_store::{Caps, MemoryBlobs, MemoryMeta, MetaStore};
use sr_wire::{
    PackId, Right, SealedHead, SignedPackList, SpaceId, SpaceKeys, SwapProof,
    api::{
        self, CreateSpace, ErrorBody, ErrorCode, HeadRead, HeadSwap, PackDelete, PackGet, PackHave,
        PackUndelete, PackUndeleted, Prove, SpaceRotate,
    },
    create_bytes, decode, delete_bytes, encode, labels, limits, prove_bytes, rotate_bytes,
    swap_bytes, undelete_bytes, voucher_hash,
};
use tokio::{
    io::DuplexStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

pub(crate) const SPACE: SpaceId = SpaceId([1; 16]);
const VOUCHER: Hash = [5; 32];

struct Listener(UnboundedReceiver<(DuplexStream, [u8; 32])>);

impl Listen for Listener {
    fn accept(&mut self) -> Pin<Box<dyn Future<Output = io::Result<Handshake>> + Send + '_>> {
        Box::pin(async {
            let (stream, binding) = self.0.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
            let channel = Channel { io: Box::new(stream), binding };
            let handshake: Handshake = Box::pin(async move { Ok(channel) });
            Ok(handshake)
        })
    }

    fn spki_hash(&self) -> Hash {
        [0; 32]
    }
}

pub(crate) type Connect = UnboundedSender<(DuplexStream, [u8; 32])>;

fn start() -> Connect {
    start_with(Arc::default())
}

pub(crate) fn start_with(meta: Arc<MemoryMeta>) -> Connect {
    meta.add_vouchers(&[voucher_hash(&VOUCHER)]).expect("adds");
    let stores = Stores { meta, blobs: Arc::new(MemoryBlobs::default()) };
    let identity = Identity::from_seed(&Secret32::init_with(|s| s.fill(1)));
    let clock: sr_server::Clock = Arc::new(|| 0);
    let server =
        Server::new(identity, stores, Caps::default(), clock, Box::new(|_| {})).expect("begins");
    let (connect, accepted) = unbounded_channel();
    tokio::spawn(Arc::new(server).serve(Listener(accepted)));
    connect
}

pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    binding: [u8; 32],
}

impl Connection {
    pub(crate) async fn new(connect: &Connect, binding: u8) -> Self {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        connect.send((theirs, [binding; 32])).expect("accepts");
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(ours))
            .await
            .expect("handshake");
        tokio::spawn(connection);
        Self { sender, binding: [binding; 32] }
    }

    pub(crate) async fn call(&self, path: &str, body: Vec<u8>) -> Result<Vec<u8>, ErrorCode> {
        let request = Request::post(format!("https://s{path}"));
        self.send(request.body(Full::new(Bytes::from(body))).expect("request")).await
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Vec<u8>, ErrorCode> {
        let request = Request::get(format!("https://s{path}"));
        self.send(request.body(Full::default()).expect("request")).await
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Vec<u8>, ErrorCode> {
        let response = self.sender.clone().send_request(request).await.expect("answers");
        let status = response.status();
        let body = response.into_body().collect().await.expect("body").to_bytes();
        if status == StatusCode::OK {
            return Ok(body.to_vec());
        }
        let error: ErrorBody = decode("error", &body, limits::MESSAGE_LEN_MAX).expect("decodes");
        Err(error.code)
    }

    pub(crate) async fn prove(
        &self,
        right: Right,
        key: &CapabilityKey,
    ) -> Result<Vec<u8>, ErrorCode> {
        let bytes = prove_bytes(&self.binding, SPACE, right);
        let proof = Prove { space: SPACE, right, signature: key.sign(labels::PROVE, &bytes) };
        self.call(api::RIGHT_PROVE, encode(&proof)).await
    }

    pub(crate) async fn create(&self) -> Result<Vec<u8>, ErrorCode> {
        let bytes = create_bytes(&self.binding, SPACE, &keys(), &VOUCHER);
        let signature = key(2).sign(labels::CREATE, &bytes);
        let request = CreateSpace { space: SPACE, keys: keys(), voucher: VOUCHER, signature };
        self.call(api::SPACE_CREATE, encode(&request)).await
    }
}

pub(crate) fn key(byte: u8) -> CapabilityKey {
    CapabilityKey::from_seed(&Secret32::init_with(|s| s.fill(byte)))
}

fn keys() -> SpaceKeys {
    let public = |byte| key(byte).public_key();
    SpaceKeys {
        generation: 1,
        read: public(1),
        append: public(2),
        prune: public(3),
        owner: [0; 32],
    }
}

pub(crate) fn head(seq: u64) -> SealedHead {
    let sealed = vec![0; limits::SEALED_HEAD_LEN].into();
    SealedHead { space: SPACE, seq, generation: 0, previous: [0; 32], sealed }
}

pub(crate) fn swap(connection: &Connection, counter: u64, by: &CapabilityKey) -> Vec<u8> {
    let bytes = swap_bytes(&connection.binding, counter, &head(1));
    let proof = SwapProof { counter, signature: by.sign(labels::SWAP, &bytes) };
    encode(&HeadSwap { head: head(1), nonce: [0; 32], proof })
}

fn pack_body(len: usize) -> Vec<u8> {
    let mut body = [&SPACE.0[..], &[9; 32], &[0]].concat();
    body.resize(api::PACK_PUT_PREFIX_LEN + len, 7);
    body
}

const REFUSED: ErrorCode = ErrorCode::RightRefused;

#[tokio::test]
async fn a_right_is_proven_for_its_space_and_connection_only() {
    let connect = start();
    let one = Connection::new(&connect, 1).await;
    one.create().await.expect("creates");
    one.create().await.expect("a repeat succeeds");

    let read = encode(&HeadRead { space: SPACE, nonce: [0; 32] });
    assert_eq!(one.call(api::HEAD_READ, read.clone()).await, Err(REFUSED));
    assert_eq!(one.prove(Right::Read, &key(2)).await, Err(REFUSED));
    assert_eq!(one.prove(Right::Owner, &key(0)).await, Err(REFUSED));
    one.prove(Right::Read, &key(1)).await.expect("proves");
    one.call(api::HEAD_READ, read.clone()).await.expect("reads");

    // Reading is not writing.
    assert_eq!(one.call(api::PACK_PUT, pack_body(1 << 16)).await, Err(REFUSED));
    assert_eq!(one.call(api::HEAD_SWAP, swap(&one, 1, &key(2))).await, Err(REFUSED));

    // A proof that was overheard is of no use on another connection.
    let two = Connection::new(&connect, 2).await;
    let bytes = prove_bytes(&one.binding, SPACE, Right::Read);
    let signature = key(1).sign(labels::PROVE, &bytes);
    let proof = encode(&Prove { space: SPACE, right: Right::Read, signature });
    assert_eq!(two.call(api::RIGHT_PROVE, proof).await, Err(REFUSED));
    assert_eq!(two.call(api::HEAD_READ, read).await, Err(REFUSED));
}

#[tokio::test]
async fn every_swap_is_signed_by_itself_and_counted() {
    let connect = start();
    let one = Connection::new(&connect, 1).await;
    one.create().await.expect("creates");
    one.prove(Right::Append, &key(2)).await.expect("proves");
    assert_eq!(one.call(api::HEAD_SWAP, swap(&one, 1, &key(1))).await, Err(REFUSED));
    let first = swap(&one, 1, &key(2));
    one.call(api::HEAD_SWAP, first.clone()).await.expect("swaps");
    assert_eq!(one.call(api::HEAD_SWAP, first).await, Err(REFUSED), "the same counter");
    let two = Connection::new(&connect, 2).await;
    two.prove(Right::Append, &key(2)).await.expect("proves");
    assert_eq!(two.call(api::HEAD_SWAP, swap(&one, 2, &key(2))).await, Err(REFUSED));
}

#[tokio::test]
async fn packs_have_five_sizes_one_owner_and_are_written_once() {
    let connect = start();
    let one = Connection::new(&connect, 1).await;
    one.create().await.expect("creates");
    one.prove(Right::Append, &key(2)).await.expect("proves");
    one.prove(Right::Read, &key(1)).await.expect("proves");
    for len in [0, 1, (1 << 16) - 1, (1 << 16) + 1, (1 << 24) + 1] {
        let stored = one.call(api::PACK_PUT, pack_body(len)).await;
        assert_eq!(stored, Err(ErrorCode::Malformed), "{len}");
    }
    assert_eq!(one.call(api::PACK_PUT, vec![0; 10]).await, Err(ErrorCode::Malformed));
    one.call(api::PACK_PUT, pack_body(1 << 16)).await.expect("stores");
    let again = one.call(api::PACK_PUT, pack_body(1 << 18)).await;
    assert_eq!(again, Err(ErrorCode::Exists));
    let get = |space, pack, first, last| encode(&PackGet { space, pack, first, last });
    let pack = PackId([9; 32]);
    let reply = one.call(api::PACK_GET, get(SPACE, pack, 0, 15)).await.expect("reads");
    assert_eq!(reply.len(), 4 + (1 << 16));
    assert_eq!(one.call(api::PACK_GET, get(SPACE, pack, 1, 1)).await, Err(ErrorCode::Malformed));
    let missing = one.call(api::PACK_GET, get(SPACE, PackId([8; 32]), 0, 0)).await;
    assert_eq!(missing, Err(ErrorCode::NotFound));
    let other = one.call(api::PACK_GET, get(SpaceId([2; 16]), pack, 0, 0)).await;
    assert_eq!(other, Err(REFUSED));
    let have = encode(&PackHave { space: SPACE, packs: vec![pack, PackId([8; 32])] });
    let reply = one.call(api::PACK_HAVE, have).await.expect("answers");
    assert_eq!(reply, encode(&api::PackMissing { packs: vec![PackId([8; 32])] }));
}

/// Deleting is a right of its own, signed for each deletion; and it is not the end of what was deleted.
#[tokio::test]
async fn only_the_prune_key_deletes_and_what_it_deletes_can_be_read_and_had_back() {
    let connect = start();
    let one = Connection::new(&connect, 1).await;
    one.create().await.expect("creates");
    one.prove(Right::Append, &key(2)).await.expect("proves");
    one.prove(Right::Read, &key(1)).await.expect("proves");
    one.call(api::PACK_PUT, pack_body(1 << 16)).await.expect("stores");
    let pack = PackId([9; 32]);
    let delete = |connection: &Connection, counter, signer| {
        let packs = vec![pack, PackId([8; 32])];
        let bytes = delete_bytes(&connection.binding, counter, SPACE, &packs);
        let proof = SwapProof { counter, signature: key(signer).sign(labels::PACK_DELETE, &bytes) };
        encode(&PackDelete { space: SPACE, packs, proof })
    };
    let undelete = |counter, signer, label| {
        let bytes = undelete_bytes(&one.binding, counter, SPACE);
        let proof = SwapProof { counter, signature: key(signer).sign(label, &bytes) };
        encode(&PackUndelete { space: SPACE, proof })
    };
    let count = async || {
        let list = encode(&api::PackList { space: SPACE, nonce: [6; 32] });
        let reply = one.call(api::PACK_LIST, list).await.expect("answers");
        let list: SignedPackList =
            decode("list", &reply, limits::MESSAGE_LEN_MAX).expect("decodes");
        list.answer.count
    };
    for signer in [1, 2, 4] {
        assert_eq!(one.call(api::PACK_DELETE, delete(&one, 1, signer)).await, Err(REFUSED));
        let undelete = undelete(1, signer, labels::PACK_UNDELETE);
        assert_eq!(one.call(api::PACK_UNDELETE, undelete).await, Err(REFUSED));
    }
    let two = Connection::new(&connect, 2).await;
    assert_eq!(two.call(api::PACK_DELETE, delete(&one, 1, 3)).await, Err(REFUSED));
    assert_eq!(count().await, 1);
    one.call(api::PACK_DELETE, delete(&one, 1, 3)).await.expect("deletes");
    assert_eq!(one.call(api::PACK_DELETE, delete(&one, 1, 3)).await, Err(REFUSED), "a repeat");
    assert_eq!(count().await, 0);
    let get = encode(&PackGet { space: SPACE, pack, first: 0, last: 0 });
    one.call(api::PACK_GET, get).await.expect("can be read");
    let wrong = undelete(2, 3, labels::PACK_DELETE);
    assert_eq!(one.call(api::PACK_UNDELETE, wrong).await, Err(REFUSED));
    let back = one.call(api::PACK_UNDELETE, undelete(2, 3, labels::PACK_UNDELETE)).await;
    assert_eq!(back.expect("comes back"), encode(&PackUndeleted { packs: 1 }));
    assert_eq!(count().await, 1);
}

fn rotate(
    connection: &Connection,
    counter: u64,
    by: Right,
    key: &CapabilityKey,
    keys: SpaceKeys,
) -> Vec<u8> {
    let bytes = rotate_bytes(&connection.binding, counter, SPACE, &keys);
    let proof = SwapProof { counter, signature: key.sign(labels::ROTATE, &bytes) };
    encode(&SpaceRotate { space: SPACE, keys, by, proof })
}

/// A removal gives the space other keys: the ones of before open nothing, on no connection.
#[tokio::test]
async fn rights_of_before_a_rotation_count_no_more() {
    let connect = start();
    let (thief, owner) = (Connection::new(&connect, 1).await, Connection::new(&connect, 2).await);
    thief.create().await.expect("makes");
    thief.prove(Right::Append, &key(2)).await.expect("proves");
    let refused = Err(ErrorCode::RightRefused);
    let public = |byte| key(byte).public_key();
    let next = SpaceKeys { generation: 2, append: public(12), prune: public(13), ..keys() };
    // By nobody who only reads or appends, by no other key, not with another read key, not back.
    let attempts = [
        (Right::Read, 1, next),
        (Right::Append, 2, next),
        (Right::Owner, 3, next),
        (Right::Prune, 2, next),
        (Right::Prune, 3, SpaceKeys { read: public(9), ..next }),
        (Right::Prune, 3, SpaceKeys { generation: 1, ..next }),
        (Right::Prune, 3, SpaceKeys { generation: 0, ..next }),
    ];
    for (number, (by, signer, keys)) in (1..).zip(attempts) {
        let request = rotate(&owner, number, by, &key(signer), keys);
        assert_eq!(owner.call(api::SPACE_ROTATE, request).await, refused, "{number}");
    }
    let good = rotate(&owner, 20, Right::Prune, &key(3), next);
    // A proof is for its connection.
    assert_eq!(thief.call(api::SPACE_ROTATE, good.clone()).await, refused);
    owner.call(api::SPACE_ROTATE, good.clone()).await.expect("rotates");
    owner.call(api::SPACE_ROTATE, good).await.expect("a repeat succeeds");
    // What was proven before counts no more, nor can it be proven again.
    assert_eq!(thief.call(api::PACK_PUT, pack_body(1 << 16)).await, refused);
    assert_eq!(thief.call(api::HEAD_SWAP, swap(&thief, 1, &key(2))).await, refused);
    assert_eq!(thief.prove(Right::Append, &key(2)).await, refused);
    let again = SpaceKeys { generation: 3, append: public(2), prune: public(3), ..keys() };
    let back = rotate(&thief, 2, Right::Prune, &key(3), again);
    assert_eq!(thief.call(api::SPACE_ROTATE, back).await, refused);
    owner.prove(Right::Append, &key(12)).await.expect("proves");
    owner.call(api::PACK_PUT, pack_body(1 << 16)).await.expect("stores");
}

/// Who has the kit overrules who has a device, in whatever order they come.
#[tokio::test]
async fn an_owner_overrules_who_was_faster() {
    let connect = start();
    let (thief, owner) = (Connection::new(&connect, 1).await, Connection::new(&connect, 2).await);
    owner.create().await.expect("makes");
    let refused = Err(ErrorCode::RightRefused);
    let public = |byte| key(byte).public_key();
    let call = async |connection: &Connection, number, by, signer, keys| {
        let request = rotate(connection, number, by, &key(signer), keys);
        connection.call(api::SPACE_ROTATE, request).await
    };
    // The first owner comes by the prune key, with nothing else; then nobody else does.
    let owned = SpaceKeys { owner: public(4), ..keys() };
    let more = SpaceKeys { append: public(12), ..owned };
    assert_eq!(call(&owner, 1, Right::Prune, 3, more).await, refused);
    call(&owner, 2, Right::Prune, 3, owned).await.expect("has an owner");
    call(&owner, 3, Right::Prune, 3, owned).await.expect("a repeat succeeds");
    let last = SpaceKeys { generation: u32::MAX, append: public(22), prune: public(23), ..keys() };
    for keys in [
        SpaceKeys { owner: public(9), ..owned },
        SpaceKeys { owner: public(9), ..last },
        SpaceKeys { generation: 0, ..last },
    ] {
        assert_eq!(call(&thief, 1, Right::Prune, 3, keys).await, refused);
    }
    // A thief was faster. What they don't name stays.
    call(&thief, 2, Right::Prune, 3, last).await.expect("rotates");
    assert_eq!(call(&owner, 4, Right::Prune, 3, owned).await, refused);
    thief.prove(Right::Append, &key(22)).await.expect("proves");
    let next = SpaceKeys { generation: 2, append: public(12), prune: public(13), ..owned };
    assert_eq!(call(&thief, 3, Right::Owner, 23, next).await, refused);
    assert_eq!(
        call(&owner, 5, Right::Owner, 4, SpaceKeys { read: public(9), ..next }).await,
        refused
    );
    call(&owner, 6, Right::Owner, 4, next).await.expect("overrules");
    assert_eq!(thief.call(api::PACK_PUT, pack_body(1 << 16)).await, refused);
    assert_eq!(call(&thief, 4, Right::Prune, 23, last).await, refused);
    // Another kit, with this one at hand.
    let handed = SpaceKeys { owner: public(5), ..next };
    call(&owner, 7, Right::Owner, 4, handed).await.expect("hands over");
    assert_eq!(call(&owner, 8, Right::Owner, 4, owned).await, refused);
}

#[tokio::test]
async fn nonsense_is_refused_with_a_code() {
    let connect = start();
    let one = Connection::new(&connect, 1).await;
    assert_eq!(one.call("/", vec![]).await, Err(ErrorCode::Version));
    assert_eq!(one.call("/v2/card", vec![]).await, Err(ErrorCode::Version));
    for path in [
        api::SPACE_CREATE,
        api::RIGHT_PROVE,
        api::PACK_PUT,
        api::PACK_GET,
        api::PACK_HAVE,
        api::PACK_LIST,
        api::PACK_DELETE,
        api::PACK_UNDELETE,
        api::HEAD_READ,
        api::HEAD_SWAP,
        api::LOG_APPEND,
    ] {
        for body in [vec![], vec![0xff; 100], vec![0; limits::MESSAGE_LEN_MAX + 1]] {
            let answer = one.call(path, body).await;
            assert!(
                matches!(answer, Err(ErrorCode::Malformed | ErrorCode::RightRefused)),
                "{path}: {answer:?}"
            );
        }
    }
    // Another card would be answered by another server.
    one.call(api::CARD, vec![]).await.expect("answers");
}

/// Only who has a key goes on from its entries, and strangers have no more room than for first ones.
#[tokio::test]
async fn a_state_of_backups_is_signed_by_its_key() {
    let connect = start();
    let one = Connection::new(&connect, 1).await;
    let key = |byte: u8| CapabilityKey::from_seed(&Secret32::init_with(|seed| seed.fill(byte)));
    let request = |by: &CapabilityKey, of: &CapabilityKey, seq, value: u8, previous| {
        let (key, value) = (of.public_key(), [value; 32]);
        let bytes = api::LogAppend::signed_bytes(&key, seq, &value, &previous);
        let signature = by.sign(labels::FRESHNESS_SIGN, &bytes);
        encode(&api::LogAppend { key, seq, value, previous, signature })
    };
    let (own, other) = (key(7), key(8));
    let first = request(&own, &own, 0, 1, [0; 32]);
    for _ in 0..2 {
        one.call(api::LOG_APPEND, first.clone()).await.expect("adds, and is there");
    }
    let refused = one.call(api::LOG_APPEND, request(&other, &own, 1, 2, [1; 32])).await;
    assert_eq!(refused, Err(ErrorCode::RightRefused));
    let gap = one.call(api::LOG_APPEND, request(&own, &own, 2, 2, [1; 32])).await;
    assert_eq!(gap, Err(ErrorCode::Conflict));
    // A stranger takes all the room that there is for first ones.
    let mut taken = 0;
    for number in 0..=limits::FRESHNESS_PER_DAY_MAX {
        let mut seed = [9; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let key = CapabilityKey::from_seed(&Secret32::init_with(|bytes| *bytes = seed));
        match one.call(api::LOG_APPEND, request(&key, &key, 0, 1, [0; 32])).await {
            Ok(_) => taken += 1,
            Err(refused) => assert_eq!(refused, ErrorCode::QuotaFull),
        }
    }
    assert_eq!(taken, limits::FRESHNESS_PER_DAY_MAX - 1);
    one.call(api::LOG_APPEND, request(&own, &own, 1, 2, [1; 32])).await.expect("goes on");
}
