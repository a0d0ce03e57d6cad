//! A server that speaks HTTP/2 and nothing else of the protocol, over a simulated network.

use std::{convert::Infallible, io, pin::Pin, sync::Arc};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sr_client::{Client, ClientError, Dial};
use sr_wire::{Invite, Misbehaviour};
use tokio::runtime::{Handle, Runtime};

use crate::world::clock;

struct Hostile {
    runtime: Handle,
    status: StatusCode,
    answer: Bytes,
}

impl Dial for Hostile {
    fn dial(&self) -> Pin<Box<dyn Future<Output = io::Result<sr_client::Channel>> + Send + '_>> {
        Box::pin(async {
            let (ours, theirs) = tokio::io::duplex(64 << 10);
            let (status, answer) = (self.status, self.answer.clone());
            self.runtime.spawn(async move {
                let service = service_fn(move |_| {
                    let mut response = Response::new(Full::new(answer.clone()));
                    *response.status_mut() = status;
                    async { Ok::<_, Infallible>(response) }
                });
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(theirs), service)
                    .await;
            });
            let io = Box::new(ours);
            Ok(sr_client::Channel { io, binding: [1; 32], spki_hash: [2; 32] })
        })
    }

    fn address(&self) -> String {
        "hostile".into()
    }
}

#[test]
fn answers_of_a_wrong_form_or_size_are_refused() {
    let runtime = Runtime::new().expect("runtime");
    let answers: [(StatusCode, Vec<u8>); 6] = [
        (StatusCode::OK, vec![]),
        (StatusCode::OK, vec![0xff; 10_000]),
        (StatusCode::OK, vec![0; 50 << 20]),
        (StatusCode::OK, b"<html>hello</html>".to_vec()),
        (StatusCode::NOT_FOUND, b"no such page".to_vec()),
        (StatusCode::FOUND, vec![0xff; 100_000]),
    ];
    for (status, answer) in answers {
        let hostile: Arc<dyn Dial> =
            Arc::new(Hostile { runtime: runtime.handle().clone(), status, answer: answer.into() });
        let dialer: sr_client::MakeDialer = Arc::new(move |_| Ok(Arc::clone(&hostile)));
        let dir = tempfile::tempdir().expect("dir");
        let profile = dir.path().join("profile");
        let invite = Invite { address: "h:1".into(), card_hash: [0; 32], token: [0; 16] };
        let joined = Client::join_by(&profile, &invite, None, "d", clock(), &dialer);
        assert!(
            matches!(joined, Err(ClientError::Misbehaviour(Misbehaviour::ResponseMalformed))),
            "{status}: {joined:?}"
        );
        assert!(!profile.exists(), "nothing is made for a server that is none");
    }
}
