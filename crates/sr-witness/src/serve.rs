//! The witness on the network.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use sr_tlog::NOTE_LEN_MAX;
use tokio::{net::TcpListener, sync::Semaphore, time};

use crate::{Answer, Witness, WitnessError};

/// A checkpoint, and the longest proof before it.
const REQUEST_LEN_MAX: usize = NOTE_LEN_MAX + 64 * 45 + 32;
/// Connections at once.
const CONNECTIONS_MAX: usize = 128;
/// No connection lasts longer: nobody needs more than a few requests.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Who asks nothing makes room.
const HEADER_TIME: Duration = Duration::from_secs(3);

impl Witness {
    /// Serves until the future is dropped. `report` is told of the witness's own failures.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        report: impl Fn(&str) + Send + Sync + 'static,
    ) {
        let (connections, report) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), Arc::new(report));
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    report(&format!("a connection was not accepted: {error}"));
                    // Out of file descriptors, most likely: accepting at once would spin.
                    time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            while tasks.try_join_next().is_some() {}
            let (witness, report) = (Arc::clone(&self), Arc::clone(&report));
            tasks.spawn(async move {
                let service = service_fn(|request| {
                    respond(Arc::clone(&witness), Arc::clone(&report), request)
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIME)
                    .max_buf_size(16 << 10)
                    .serve_connection(TokioIo::new(stream), service);
                // However it ends, a connection's end is no failure of the witness.
                drop(time::timeout(CONNECTION_TIME, served).await);
                drop(permit);
            });
        }
    }
}

async fn respond(
    witness: Arc<Witness>,
    report: Arc<impl Fn(&str)>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, REQUEST_LEN_MAX).collect().await else {
        return Ok(response(Answer { status: 400, body: Vec::new() }));
    };
    let is_post = parts.method == Method::POST;
    if !is_post && parts.method != Method::GET {
        return Ok(response(Answer { status: 405, body: Vec::new() }));
    }
    let answer = move || witness.answer(is_post, parts.uri.path(), &body.to_bytes());
    Ok(match tokio::task::spawn_blocking(answer).await {
        Ok(Ok(answer)) => response(answer),
        Ok(Err(error)) => {
            report(&failure(&error));
            response(Answer { status: 500, body: Vec::new() })
        }
        Err(_) => response(Answer { status: 500, body: Vec::new() }),
    })
}

fn response(answer: Answer) -> Response<Full<Bytes>> {
    let is_size = answer.status == 409;
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() =
        StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = if is_size { "text/x.tlog.size" } else { "text/plain; charset=utf-8" };
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn failure(error: &WitnessError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
