//! Where connections to the server come from.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustls::{
    ClientConfig, DigitallySignedStruct, NamedGroup, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use sr_crypto::{Hash, hash};
use sr_wire::{labels, limits};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Unix seconds now.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Bytes both ways.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection to a server that is not known yet.
pub struct Channel {
    /// The bytes.
    pub io: Box<dyn Io>,
    /// The value that both ends and nobody else know the connection by.
    pub binding: [u8; 32],
    /// Hash of the public key that the other end secured the connection with; who that is, only
    /// the server's card tells.
    pub spki_hash: Hash,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Channel(..)")
    }
}

/// Makes connections.
pub trait Dial: Send + Sync {
    /// Connects once.
    fn dial(&self) -> Pin<Box<dyn Future<Output = io::Result<Channel>> + Send + '_>>;

    /// Returns where to, for people.
    fn address(&self) -> String;
}

/// TLS 1.3 with X25519MLKEM768 to a TCP port. The certificate is not judged here: the server's
/// identity key vouches for its public key, and the client checks that before it sends anything.
pub struct TlsDialer {
    address: String,
    connector: TlsConnector,
    negotiated: Mutex<Option<NamedGroup>>,
}

impl TlsDialer {
    /// Makes a dialer to `HOST:PORT`.
    ///
    /// **Errors** when the cryptographic library can't be set up.
    pub fn new(address: String) -> io::Result<Self> {
        let provider = Arc::new(CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768],
            ..aws_lc_rs::default_provider()
        });
        let verifier = Arc::new(KeyHolder(Arc::clone(&provider)));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A resumed session would link two connections.
        config.resumption = rustls::client::Resumption::disabled();
        // The name of the server is nobody's business on the way.
        config.enable_sni = false;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self { address, connector, negotiated: Mutex::default() })
    }

    /// Returns the key-exchange group of the newest connection.
    #[must_use]
    pub fn negotiated_group(&self) -> Option<NamedGroup> {
        *self.negotiated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for TlsDialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsDialer({})", self.address)
    }
}

impl Dial for TlsDialer {
    fn dial(&self) -> Pin<Box<dyn Future<Output = io::Result<Channel>> + Send + '_>> {
        Box::pin(async { tokio::time::timeout(CONNECT_TIMEOUT, self.connect()).await? })
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}

impl TlsDialer {
    async fn connect(&self) -> io::Result<Channel> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        socket2::SockRef::from(&tcp).set_tcp_notsent_lowat(limits::UNSENT_MAX)?;
        let name = ServerName::try_from("strongroom").map_err(io::Error::other)?;
        let tls = self.connector.connect(name, tcp).await?;
        let session = tls.get_ref().1;
        *self.negotiated.lock().unwrap_or_else(PoisonError::into_inner) =
            session.negotiated_key_exchange_group().map(|group| group.name());
        let binding = session
            .export_keying_material([0; 32], b"strongroom-v1", None)
            .map_err(io::Error::other)?;
        let certificate = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or_else(|| io::Error::other("the server showed no key"))?;
        let certificate = ParsedCertificate::try_from(certificate).map_err(io::Error::other)?;
        let spki_hash = hash(labels::SPKI, &[certificate.subject_public_key_info().as_ref()]);
        Ok(Channel { io: Box::new(tls), binding, spki_hash })
    }
}

/// Verifies that the server holds the key it shows, and leaves who that is to the card.
#[derive(Debug)]
struct KeyHolder(Arc<CryptoProvider>);

impl ServerCertVerifier for KeyHolder {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not spoken here".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
