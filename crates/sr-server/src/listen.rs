//! Where connections come from.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use sr_crypto::{Hash, hash};
use sr_wire::{labels, limits};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, and the value that both of its ends and nobody else know it by.
pub struct Channel {
    /// The bytes.
    pub io: Box<dyn Io>,
    /// TLS exporter with label `strongroom-v1` (RFC 9266 in spirit), or what a simulated network
    /// has instead.
    pub binding: [u8; 32],
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Channel(..)")
    }
}

/// A connection that is being set up, apart from the loop that accepts.
pub type Handshake = Pin<Box<dyn Future<Output = io::Result<Channel>> + Send>>;

/// Accepts connections.
pub trait Listen: Send {
    /// Waits for the next connection.
    fn accept(&mut self) -> Pin<Box<dyn Future<Output = io::Result<Handshake>> + Send + '_>>;

    /// Returns the hash of the public key that connections are secured with.
    fn spki_hash(&self) -> Hash;
}

/// TLS 1.3 with X25519MLKEM768 on a TCP port. The key is made at each start and vouched for by the
/// identity key, so no certificate authority and no file is needed.
pub struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    spki_hash: Hash,
}

impl TlsListener {
    /// Listens on `address`.
    ///
    /// **Errors** those of binding the port.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let (config, spki_hash) = tls_config().map_err(io::Error::other)?;
        Ok(Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)), spki_hash })
    }

    /// Returns the address, with the port that was taken for port 0.
    ///
    /// **Errors** those of the operating system.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl std::fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsListener").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl Listen for TlsListener {
    fn accept(&mut self) -> Pin<Box<dyn Future<Output = io::Result<Handshake>> + Send + '_>> {
        Box::pin(async {
            let (tcp, _) = self.listener.accept().await?;
            let acceptor = self.acceptor.clone();
            let handshake: Handshake = Box::pin(async move {
                tokio::time::timeout(HANDSHAKE_TIMEOUT, secure(acceptor, tcp)).await?
            });
            Ok(handshake)
        })
    }

    fn spki_hash(&self) -> Hash {
        self.spki_hash
    }
}

async fn secure(acceptor: TlsAcceptor, tcp: TcpStream) -> io::Result<Channel> {
    tcp.set_nodelay(true)?;
    socket2::SockRef::from(&tcp).set_tcp_notsent_lowat(limits::UNSENT_MAX)?;
    let tls = acceptor.accept(tcp).await?;
    let binding = tls
        .get_ref()
        .1
        .export_keying_material([0; 32], b"strongroom-v1", None)
        .map_err(io::Error::other)?;
    Ok(Channel { io: Box::new(tls), binding })
}

fn tls_config() -> Result<(ServerConfig, Hash), Box<dyn std::error::Error + Send + Sync>> {
    let certified = rcgen::generate_simple_self_signed(vec!["strongroom".to_owned()])?;
    let spki = rcgen::PublicKeyData::subject_public_key_info(&certified.signing_key);
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let provider = CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
        ..aws_lc_rs::default_provider()
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], PrivateKeyDer::Pkcs8(key))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Every handshake is a full one: a ticket would link two connections.
    config.send_tls13_tickets = 0;
    Ok((config, hash(labels::SPKI, &[&spki])))
}
