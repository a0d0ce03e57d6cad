//! How a witness is asked.

use std::{fmt, io, str::FromStr, time::Duration};

use bytes::Bytes;
use data_encoding::{BASE64, HEXLOWER};
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use sr_crypto::sha256;
use sr_tlog::{Digest, NOTE_LEN_MAX};
use thiserror::Error;
use tokio::{net::TcpStream, runtime, time};

/// No witness is waited for longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a witness is: `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WitnessUrl {
    uri: Uri,
}

/// Why a witness has not done what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AskError {
    /// It is no address of a witness.
    #[error("a witness's address is http://HOST:PORT")]
    Url,
    /// It did not answer.
    #[error("it can't be reached: {0}")]
    Unreachable(#[from] io::Error),
    /// Its answer is none.
    #[error("its answer is not that of a witness")]
    Malformed,
    /// The newest that it has cosigned has this size.
    #[error("it has cosigned the log at {0} entries")]
    Conflict(u64),
    /// It does not watch this log.
    #[error("it does not watch this log")]
    Unknown,
    /// It refuses, with a status code of HTTP.
    #[error("it refuses, with status {0}")]
    Refused(u16),
}

impl FromStr for WitnessUrl {
    type Err = AskError;

    fn from_str(text: &str) -> Result<Self, AskError> {
        let uri: Uri = text.parse().map_err(|_| AskError::Url)?;
        let is_one = uri.scheme_str() == Some("http") && uri.host().is_some_and(|h| !h.is_empty());
        let is_plain = uri.query().is_none() && !text.contains(['@', '#', ' ', '\t']);
        // One that is no number is not left out.
        let is_port = uri.authority().is_some_and(|authority| {
            let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
            port.is_empty() || port[1..].parse::<u16>().is_ok()
        });
        if is_one && is_plain && is_port { Ok(Self { uri }) } else { Err(AskError::Url) }
    }
}

impl fmt::Display for WitnessUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uri.to_string().trim_end_matches('/'))
    }
}

/// Has a witness cosign `note`. `old` is the size that it has cosigned before, and `proof` that the log is
/// consistent with it. Returns the lines, which are not verified.
///
/// **Errors** [`AskError`].
pub fn add_checkpoint(
    url: &WitnessUrl,
    old: u64,
    proof: &[Digest],
    note: &[u8],
) -> Result<Vec<u8>, AskError> {
    let mut body = format!("old {old}\n").into_bytes();
    for hash in proof {
        body.extend(format!("{}\n", BASE64.encode(hash)).bytes());
    }
    body.push(b'\n');
    body.extend_from_slice(note);
    match ask(url, Method::POST, "add-checkpoint", body)? {
        (200, lines) => Ok(lines),
        (404, _) => Err(AskError::Unknown),
        (409, size) => {
            let size = std::str::from_utf8(&size).ok().and_then(|size| size.trim().parse().ok());
            Err(size.map_or(AskError::Malformed, AskError::Conflict))
        }
        (status, _) => Err(AskError::Refused(status)),
    }
}

/// Returns the newest checkpoint of a log that a witness has cosigned. Nothing of it is verified.
///
/// **Errors** [`AskError`].
pub fn checkpoint(url: &WitnessUrl, origin: &str) -> Result<Vec<u8>, AskError> {
    let path = format!("{}/checkpoint", HEXLOWER.encode(&sha256(&[origin.as_bytes()])));
    match ask(url, Method::GET, &path, Vec::new())? {
        (200, note) => Ok(note),
        (404, _) => Err(AskError::Unknown),
        (status, _) => Err(AskError::Refused(status)),
    }
}

/// Sends one request, on a thread that may wait.
fn ask(
    url: &WitnessUrl,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(u16, Vec<u8>), AskError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = async { time::timeout(PATIENCE, send(url, method, path, body)).await };
    let answer = runtime.block_on(asked);
    // A name that nobody resolves is not waited for.
    runtime.shutdown_background();
    answer.map_err(|_| AskError::Unreachable(io::ErrorKind::TimedOut.into()))?
}

async fn send(
    url: &WitnessUrl,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<(u16, Vec<u8>), AskError> {
    let host = url.uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, url.uri.port_u16().unwrap_or(80))).await?;
    let broken = |error| AskError::Unreachable(io::Error::other(error));
    let (mut sender, connection) =
        http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(broken)?;
    let exchange = async {
        let path = format!("{}/{path}", url.uri.path().trim_end_matches('/'));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, url.uri.authority().map_or("", |a| a.as_str()))
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| AskError::Url)?;
        let (parts, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, NOTE_LEN_MAX).collect().await;
        let body = body.map_err(|_| AskError::Malformed)?.to_bytes();
        Ok((parts.status.as_u16(), body.to_vec()))
    };
    // The connection goes on as long as somebody waits for it.
    tokio::pin!(exchange);
    tokio::select! {
        done = &mut exchange => done,
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(broken(error)),
        },
    }
}
