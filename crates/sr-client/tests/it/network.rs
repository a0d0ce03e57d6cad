//! TLS as the design has it, and a simulated network in its place.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    ClientConfig, NamedGroup, RootCertStore, SupportedProtocolVersion,
    crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs},
    pki_types::ServerName,
};
use sr_client::{Client, ClientError, Dial, Progress};
use sr_crypto::Hash;
use sr_server::{Channel, Handshake, Listen, Server, Stores};
use sr_store::{
    Blocks, Caps, MemoryBlobs, MemoryMeta, MetaStore, NewBlocks, PackRecord, StoreError, Swapped,
};
use sr_wire::{
    AccountId, Invite, PackId, SealedHead, SpaceId, SpaceKeys, card_hash, log::Entry, voucher,
    voucher_hash,
};
use tokio::{
    io::DuplexStream,
    net::TcpStream,
    runtime::Runtime,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use crate::world::{World, clock};

async fn handshake(
    address: String,
    versions: &[&'static SupportedProtocolVersion],
    groups: Vec<&'static dyn SupportedKxGroup>,
) -> io::Result<(Option<NamedGroup>, bool)> {
    let provider = CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .map_err(io::Error::other)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(address).await?;
    let name = ServerName::try_from("strongroom").map_err(io::Error::other)?;
    match connector.connect(name, tcp).await {
        Ok(tls) => {
            let group = tls.get_ref().1.negotiated_key_exchange_group().map(|g| g.name());
            Ok((group, true))
        }
        Err(error) => Err(error),
    }
}

/// A client that offers less than TLS 1.3 with X25519MLKEM768 gets no connection. A stranger to the
/// certificate fails later, with another error, which shows that the handshake came so far.
#[test]
fn nothing_but_tls_13_with_the_hybrid_group_is_spoken() {
    let mut world = World::bare();
    let address = world.invite().address;
    let runtime = Runtime::new().expect("runtime");
    let try_with = |versions: &[&'static SupportedProtocolVersion], groups| {
        let result = runtime.block_on(handshake(address.clone(), versions, groups));
        result.map(|_| ()).expect_err("no certificate authority is asked").to_string()
    };
    let all = aws_lc_rs::ALL_KX_GROUPS.to_vec();
    let classical = vec![aws_lc_rs::kx_group::X25519, aws_lc_rs::kx_group::SECP256R1];
    let tls12 = try_with(&[&rustls::version::TLS12], all.clone());
    assert!(tls12.contains("ProtocolVersion"), "{tls12}");
    let classical = try_with(&[&rustls::version::TLS13], classical);
    assert!(classical.contains("HandshakeFailure"), "{classical}");
    let hybrid = try_with(&[&rustls::version::TLS13], all);
    assert!(hybrid.contains("UnknownIssuer"), "{hybrid}");
}

/// What the client itself negotiates, read from the connection that it makes.
#[test]
fn the_client_negotiates_the_hybrid_group() {
    let mut world = World::bare();
    let address = world.invite().address;
    let runtime = Runtime::new().expect("runtime");
    let dialer = sr_client::TlsDialer::new(address).expect("dialer");
    runtime.block_on(dialer.dial()).expect("connects");
    assert_eq!(dialer.negotiated_group(), Some(NamedGroup::X25519MLKEM768));
}

/// A network in memory: what is dialled is accepted, and nobody else hears it. It can be cut.
pub(crate) struct SimulatedNetwork {
    to_server: Mutex<UnboundedSender<DuplexStream>>,
    dialled: AtomicUsize,
    /// Bytes after which a connection breaks, for the first connections, the first last.
    pub(crate) breaks_after: Mutex<Vec<usize>>,
    /// Bytes that clients have sent.
    pub(crate) sent: Arc<AtomicUsize>,
}

impl SimulatedNetwork {
    /// A network on which nobody listens yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            to_server: Mutex::new(unbounded_channel().0),
            dialled: AtomicUsize::new(0),
            breaks_after: Mutex::default(),
            sent: Arc::default(),
        })
    }

    /// Lets `server` listen, in place of the one before, as long as the runtime lives.
    pub(crate) fn serve(&self, server: impl Into<Arc<Server>>) -> Runtime {
        let runtime = Runtime::new().expect("runtime");
        let (to_server, accepted) = unbounded_channel();
        runtime.spawn(server.into().serve(SimulatedListener(accepted)));
        *self.to_server.lock().expect("lock") = to_server;
        runtime
    }
}

/// The seed of simulated servers.
pub(crate) fn seed() -> sr_crypto::Secret32 {
    sr_crypto::Secret32::init_with(|seed| seed.fill(3))
}

/// The identity key of simulated servers.
pub(crate) fn identity() -> sr_server::Identity {
    sr_server::Identity::from_seed(&seed())
}

/// An invite to a simulated server, and what its store keeps of the vouchers.
pub(crate) fn simulated_invite() -> (Invite, Vec<Hash>) {
    let card_hash = card_hash(identity().card());
    let invite = Invite { address: "simulated:1".into(), card_hash, token: [9; 16] };
    let hashes = (0..16).map(|n| voucher_hash(&voucher(&invite.token, n))).collect();
    (invite, hashes)
}

struct SimulatedListener(UnboundedReceiver<DuplexStream>);

const BINDING: [u8; 32] = [7; 32];
const SPKI: Hash = [8; 32];

impl Dial for SimulatedNetwork {
    fn dial(&self) -> Pin<Box<dyn Future<Output = io::Result<sr_client::Channel>> + Send + '_>> {
        Box::pin(async {
            self.dialled.fetch_add(1, Ordering::SeqCst);
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            self.to_server.lock().expect("lock").send(theirs).map_err(io::Error::other)?;
            let limit = self.breaks_after.lock().expect("lock").pop();
            let (left, sent) = (limit.unwrap_or(usize::MAX), Arc::clone(&self.sent));
            let io = Box::new(Breaking { inner: ours, left, sent });
            Ok(sr_client::Channel { io, binding: BINDING, spki_hash: SPKI })
        })
    }

    fn address(&self) -> String {
        "simulated".into()
    }
}

impl Listen for SimulatedListener {
    fn accept(&mut self) -> Pin<Box<dyn Future<Output = io::Result<Handshake>> + Send + '_>> {
        Box::pin(async {
            let stream = self.0.recv().await.ok_or(io::ErrorKind::BrokenPipe)?;
            let channel = Channel { io: Box::new(stream), binding: BINDING };
            let handshake: Handshake = Box::pin(async move { Ok(channel) });
            Ok(handshake)
        })
    }

    fn spki_hash(&self) -> Hash {
        SPKI
    }
}

/// A stream that breaks after some bytes were written, and counts them.
struct Breaking {
    inner: DuplexStream,
    left: usize,
    sent: Arc<AtomicUsize>,
}

impl tokio::io::AsyncWrite for Breaking {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        if self.left == 0 {
            return std::task::Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let len = bytes.len().min(self.left);
        let written = Pin::new(&mut self.inner).poll_write(context, &bytes[..len]);
        if let std::task::Poll::Ready(Ok(written)) = written {
            self.left -= written;
            self.sent.fetch_add(written, Ordering::SeqCst);
        }
        written
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl tokio::io::AsyncRead for Breaking {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

/// A server with stores in memory behind a network in memory, and an invite to it.
pub(crate) fn simulated(
    meta: Arc<dyn MetaStore>,
    blobs: Arc<dyn sr_store::BlobStore>,
    caps: Caps,
    clock: sr_client::Clock,
) -> (Runtime, Arc<SimulatedNetwork>, Invite) {
    let (invite, hashes) = simulated_invite();
    // A faulty store may refuse this; the test then sees a refused voucher.
    let _ = meta.add_vouchers(&hashes);
    let stores = Stores { meta, blobs };
    let network = SimulatedNetwork::new();
    let runtime = network.serve(server(&stores, caps, &clock));
    (runtime, network, invite)
}

/// A server over stores that may fail: whoever runs it starts it again.
pub(crate) fn server(stores: &Stores, caps: Caps, clock: &sr_client::Clock) -> Server {
    let begin =
        || Server::new(identity(), stores.clone(), caps, Arc::clone(clock), Box::new(|_| {}));
    (0..100).find_map(|_| begin().ok()).expect("begins")
}

pub(crate) fn dialer(network: &Arc<SimulatedNetwork>) -> sr_client::MakeDialer {
    let network = Arc::clone(network);
    Arc::new(move |_| Ok(Arc::clone(&network) as Arc<dyn Dial>))
}

/// A client of a simulated server, and a folder of 4 MB that does not compress.
pub(crate) struct Simulated {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) network: Arc<SimulatedNetwork>,
    pub(crate) runtime: Runtime,
}

impl Simulated {
    pub(crate) fn new(
        meta: Arc<dyn MetaStore>,
        blobs: Arc<dyn sr_store::BlobStore>,
        caps: Caps,
    ) -> Result<Self, ClientError> {
        let dir = tempfile::tempdir().expect("dir");
        let folder = dir.path().join("folder");
        std::fs::create_dir(&folder).expect("makes");
        for i in 0..20 {
            let content = crate::world::noise(i, 200_000);
            std::fs::write(folder.join(i.to_string()), content).expect("writes");
        }
        let (runtime, network, invite) = simulated(meta, blobs, caps, clock());
        let profile = dir.path().join("profile");
        let join = || Client::join_by(&profile, &invite, None, "d", clock(), &dialer(&network));
        let is_failing = |joined: &Result<Client, ClientError>| {
            let internal = sr_wire::api::ErrorCode::Internal;
            matches!(joined, Err(ClientError::ServerRefused(code)) if *code == internal)
        };
        // Where the server fails, the same command goes on.
        let mut joined = join();
        for _ in 0..3 {
            if is_failing(&joined) {
                joined = join();
            }
        }
        let mut client = joined?;
        client.add_folder(&folder)?;
        Ok(Self { dir, network, runtime })
    }

    fn client(&self) -> Client {
        let profile = self.dir.path().join("profile");
        Client::open_by(&profile, clock(), &dialer(&self.network)).expect("opens")
    }

    pub(crate) fn backup(&self) -> Result<Vec<sr_client::BackupReport>, ClientError> {
        self.client().backup(None, &Progress::default())
    }

    pub(crate) fn assert_whole(&self) {
        let report =
            self.client().verify(sr_client::ReadData::All, &Progress::default()).expect("verifies");
        assert!(report.snapshots >= 1);
        assert!(report.bad_packs.is_empty() && report.files.is_empty(), "{report:?}");
    }
}

#[test]
fn connections_that_break_at_any_byte_lose_nothing() {
    let simulated = Simulated::new(
        Arc::new(MemoryMeta::default()),
        Arc::new(MemoryBlobs::default()),
        Caps::default(),
    )
    .expect("joins");
    *simulated.network.breaks_after.lock().expect("lock") =
        vec![3_000_000, 1_000_000, 70_000, 9_000, 400, 20];
    simulated.backup().expect("backs up over broken connections");
    assert!(simulated.network.dialled.load(Ordering::SeqCst) > 5);
    simulated.assert_whole();
}

#[test]
fn whichever_call_of_the_servers_stores_fails_the_same_command_goes_on() {
    for n in (0..60).step_by(3) {
        let meta = Arc::new(MemoryMeta::default());
        let blobs = Arc::new(MemoryBlobs::default());
        let faulty_meta =
            Arc::new(sr_store::Faulty::new(Arc::clone(&meta), sr_store::Faults::at(n + 1)));
        let faulty_blobs =
            Arc::new(sr_store::Faulty::new(Arc::clone(&blobs), sr_store::Faults::at(n / 2)));
        let simulated = Simulated::new(faulty_meta, faulty_blobs, Caps::default()).expect("joins");
        let mut tries = 0;
        while let Err(error) = simulated.backup() {
            assert!(matches!(error, ClientError::ServerRefused(_)), "{n}: {error}");
            tries += 1;
            assert!(tries <= 3, "{n}: {error}");
        }
        // The faults may come only now, one for each store; then nothing is left to fail.
        for _ in 0..12 {
            let _ = simulated.client().verify(sr_client::ReadData::All, &Progress::default());
        }
        simulated.assert_whole();
    }
}

#[test]
fn limits_are_refusals_that_say_so() {
    let stores = || (Arc::new(MemoryMeta::default()), Arc::new(MemoryBlobs::default()));
    let (meta, blobs) = stores();
    let few_bytes = Caps { bytes_per_space: 1 << 20, ..Caps::default() };
    let simulated = Simulated::new(meta, blobs, few_bytes).expect("joins");
    let refused = simulated.backup().expect_err("4 MB do not fit into 1 MiB");
    assert!(matches!(refused, ClientError::ServerRefused(sr_wire::api::ErrorCode::QuotaFull)));
    let (meta, blobs) = stores();
    let no_space = Caps { spaces: 0, ..Caps::default() };
    let refused = Simulated::new(meta, blobs, no_space).map(|_| ()).expect_err("no room is left");
    assert!(matches!(refused, ClientError::ServerRefused(sr_wire::api::ErrorCode::QuotaFull)));
}

/// Records that never take a new head.
struct KeepsItsHead(MemoryMeta, AtomicBool);

impl MetaStore for KeepsItsHead {
    fn add_vouchers(&self, hashes: &[Hash]) -> Result<(), StoreError> {
        self.0.add_vouchers(hashes)
    }

    fn create_space(
        &self,
        space: SpaceId,
        keys: &SpaceKeys,
        voucher_hash: &Hash,
        caps: &Caps,
    ) -> Result<(), StoreError> {
        self.0.create_space(space, keys, voucher_hash, caps)
    }

    fn space_keys(&self, space: SpaceId) -> Result<SpaceKeys, StoreError> {
        self.0.space_keys(space)
    }

    fn add_pack(
        &self,
        space: SpaceId,
        pack: PackId,
        len: u32,
        caps: &Caps,
    ) -> Result<(), StoreError> {
        self.0.add_pack(space, pack, len, caps)
    }

    fn pack(&self, space: SpaceId, pack: PackId) -> Result<PackRecord, StoreError> {
        self.0.pack(space, pack)
    }

    fn packs(&self, space: SpaceId) -> Result<Vec<PackId>, StoreError> {
        self.0.packs(space)
    }

    fn delete_packs(&self, space: SpaceId, packs: &[PackId], days: u32) -> Result<(), StoreError> {
        self.0.delete_packs(space, packs, days)
    }

    fn undelete_packs(&self, space: SpaceId) -> Result<u64, StoreError> {
        self.0.undelete_packs(space)
    }

    fn count_day(&self, day: u64) -> Result<Vec<PackId>, StoreError> {
        self.0.count_day(day)
    }

    fn has_pack(&self, pack: PackId) -> Result<bool, StoreError> {
        self.0.has_pack(pack)
    }

    fn head(&self, space: SpaceId) -> Result<Option<SealedHead>, StoreError> {
        self.0.head(space)
    }

    fn swap_head(&self, head: &SealedHead) -> Result<Swapped, StoreError> {
        // The first head is that of the root space: joining succeeds.
        if !self.1.swap(true, Ordering::SeqCst) {
            return self.0.swap_head(head);
        }
        self.0.head(head.space).map(Swapped::Conflict)
    }

    fn heads(&self, space: SpaceId, from: u64, max: usize) -> Result<Vec<SealedHead>, StoreError> {
        self.0.heads(space, from, max)
    }

    fn rotate_space(
        &self,
        space: SpaceId,
        expected: &SpaceKeys,
        keys: &SpaceKeys,
    ) -> Result<(), StoreError> {
        self.0.rotate_space(space, expected, keys)
    }

    fn append_blocks(&self, blocks: &NewBlocks, caps: &Caps) -> Result<(), StoreError> {
        self.0.append_blocks(blocks, caps)
    }

    fn blocks(&self, account: AccountId, from: u64, len_max: usize) -> Result<Blocks, StoreError> {
        self.0.blocks(account, from, len_max)
    }

    fn accounts(&self) -> Result<Vec<AccountId>, StoreError> {
        self.0.accounts()
    }

    fn begin_log(&self, entries: &[Entry]) -> Result<(), StoreError> {
        self.0.begin_log(entries)
    }

    fn log_entries(&self, from: u64, max: usize) -> Result<Vec<Entry>, StoreError> {
        self.0.log_entries(from, max)
    }

    fn append_entry(&self, entry: &Entry) -> Result<bool, StoreError> {
        self.0.append_entry(entry)
    }

    fn set_checkpoint(&self, note: &[u8]) -> Result<(), StoreError> {
        self.0.set_checkpoint(note)
    }

    fn checkpoint(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.checkpoint()
    }

    fn give_back_heads(&self, heads: &[SealedHead]) -> Result<(), StoreError> {
        self.0.give_back_heads(heads)
    }

    fn give_back_log(&self, from: u64, entries: &[Entry], note: &[u8]) -> Result<(), StoreError> {
        self.0.give_back_log(from, entries, note)
    }

    fn set_put_back(&self, note: &[u8]) -> Result<(), StoreError> {
        self.0.set_put_back(note)
    }

    fn put_back(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.0.put_back()
    }

    fn end_put_back(&self) -> Result<(), StoreError> {
        self.0.end_put_back()
    }

    fn witnesses(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.0.witnesses()
    }

    fn set_witness(&self, url: &str, keys: Option<&str>) -> Result<(), StoreError> {
        self.0.set_witness(url, keys)
    }

    fn policies(&self) -> Result<Vec<String>, StoreError> {
        self.0.policies()
    }

    fn add_policy(&self, policy: &str, entry: Option<&Entry>) -> Result<(), StoreError> {
        self.0.add_policy(policy, entry)
    }

    fn is_owed(&self, entry: &Entry) -> Result<bool, StoreError> {
        self.0.is_owed(entry)
    }

    fn owed(&self) -> Result<u64, StoreError> {
        self.0.owed()
    }

    fn envelope(&self, lookup: &Hash) -> Result<Vec<u8>, StoreError> {
        self.0.envelope(lookup)
    }
}

/// A backup is done when the server shows its head, signed; one that keeps the old is refused, each
/// time, and the head that was sent is the one that is sent again.
#[test]
fn sr_016_a_server_that_keeps_the_old_head_is_refused() {
    let meta = Arc::new(KeepsItsHead(MemoryMeta::default(), false.into()));
    let simulated =
        Simulated::new(meta, Arc::new(MemoryBlobs::default()), Caps::default()).expect("joins");
    for _ in 0..3 {
        let refused = simulated.backup();
        assert!(
            matches!(
                refused,
                Err(ClientError::Misbehaviour(sr_wire::Misbehaviour::ResponseMalformed))
            ),
            "{refused:?}"
        );
    }
}

/// Both ways, over all connections together. Only how long it takes at least is looked at.
#[test]
fn limits_hold_both_ways() {
    let stores = (Arc::new(MemoryMeta::default()), Arc::new(MemoryBlobs::default()));
    let simulated = Simulated::new(stores.0, stores.1, Caps::default()).expect("joins");
    let mut client = simulated.client();
    client.set_limits(Some(4_000_000), Some(4_000_000));
    let start = std::time::Instant::now();
    client.backup(None, &Progress::default()).expect("backs up");
    assert!(start.elapsed().as_millis() >= 950, "4 MB at 4 MB a second: {:?}", start.elapsed());
    let start = std::time::Instant::now();
    let target = sr_client::Target::Folder(simulated.dir.path().join("restored"));
    client.restore("latest", None, &target, &Progress::default()).expect("restores");
    assert!(start.elapsed().as_millis() >= 950, "{:?}", start.elapsed());
}

/// A server that acknowledges packs and keeps none of them, and a client of it.
pub(crate) fn into_nothing() -> (tempfile::TempDir, Client) {
    let dir = tempfile::tempdir().expect("dir");
    let (meta, blobs) = (Arc::new(MemoryMeta::default()), Arc::new(Nothing));
    let (runtime, network, invite) = simulated(meta, blobs, Caps::default(), clock());
    // It serves as long as the test runs.
    std::mem::forget(runtime);
    let profile = dir.path().join("profile");
    let client = Client::join_by(&profile, &invite, None, "d", clock(), &dialer(&network));
    (dir, client.expect("joins"))
}

/// Keeps the smallest packs, without which there is no account, and nothing else.
struct Nothing;

static SMALL: std::sync::LazyLock<MemoryBlobs> = std::sync::LazyLock::new(MemoryBlobs::default);

struct NothingWriter {
    pack: PackId,
    bytes: Vec<u8>,
}

impl sr_store::BlobStore for Nothing {
    fn begin(&self, pack: PackId, _: u64) -> Result<Box<dyn sr_store::BlobWriter>, StoreError> {
        Ok(Box::new(NothingWriter { pack, bytes: Vec::new() }))
    }

    fn read_part(&self, _: PackId, _: u64, _: usize) -> Result<Vec<u8>, StoreError> {
        Ok(Vec::new())
    }

    fn drop_old_parts(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn read(&self, pack: PackId, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        SMALL.read(pack, offset, len)
    }

    fn has(&self, _: PackId) -> Result<bool, StoreError> {
        Ok(true)
    }

    fn delete(&self, pack: PackId) -> Result<(), StoreError> {
        SMALL.delete(pack)
    }

    fn list(&self) -> Result<Vec<PackId>, StoreError> {
        SMALL.list()
    }
}

impl sr_store::BlobWriter for NothingWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.bytes.len() <= 1 << 16 {
            self.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        if self.bytes.len() > 1 << 16 {
            return Ok(());
        }
        let mut small = sr_store::BlobStore::begin(&*SMALL, self.pack, 0)?;
        small.write(&self.bytes)?;
        small.finish()
    }

    fn discard(self: Box<Self>) {}
}

/// What an operator does to the answers on their way: path, status, body.
pub(crate) type Bend = dyn Fn(&str, StatusCode, Vec<u8>) -> (StatusCode, Vec<u8>) + Send + Sync;

/// A server whose answers an operator rewrites.
pub(crate) struct BentNetwork {
    pub(crate) to: Arc<SimulatedNetwork>,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) bend: Arc<Bend>,
}

impl Dial for BentNetwork {
    fn dial(&self) -> Pin<Box<dyn Future<Output = io::Result<sr_client::Channel>> + Send + '_>> {
        Box::pin(async {
            let channel = self.to.dial().await?;
            let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            let handshake = builder.handshake(TokioIo::new(channel.io)).await;
            let (sender, connection) = handshake.map_err(io::Error::other)?;
            self.runtime.spawn(connection);
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let bend = Arc::clone(&self.bend);
            let service = service_fn(move |request: Request<Incoming>| {
                let (mut sender, bend) = (sender.clone(), Arc::clone(&bend));
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await?.to_bytes();
                    let path = head.uri.path().to_owned();
                    let request = Request::from_parts(head, Full::new(body));
                    let (head, body) = sender.send_request(request).await?.into_parts();
                    let body = body.collect().await?.to_bytes().to_vec();
                    let (status, body) = bend(&path, head.status, body);
                    let mut response = Response::new(Full::new(Bytes::from(body)));
                    *response.status_mut() = status;
                    Ok::<_, hyper::Error>(response)
                }
            });
            self.runtime.spawn(async move {
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(theirs), service).await;
            });
            Ok(sr_client::Channel { io: Box::new(ours), ..channel })
        })
    }

    fn address(&self) -> String {
        "bent".into()
    }
}

/// What a server says that refuses.
pub(crate) fn refusal(code: sr_wire::api::ErrorCode) -> (StatusCode, Vec<u8>) {
    (
        StatusCode::CONFLICT,
        sr_wire::encode(&sr_wire::api::ErrorBody { code, message: Vec::new().into() }),
    )
}
