//! Lies below the calls: bytes that are no HTTP/2, frames and messages of false lengths, silence.

use std::convert::Infallible;
use std::future::pending;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::{service_fn, Service as _};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tonic::body::Body;

use crate::calls::Hostile;
use vk_guest::pb::guest_service_server::GuestServiceServer;
use vk_guest::port::Port;

const CHUNK: usize = 16 << 10;
/// An empty SETTINGS frame, and the header of a DATA frame far longer than any may be.
const LONG_FRAME: &[u8] = &[
    0, 0, 0, 4, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1,
];

/// Serves one port; what it says depends on the way that was chosen.
pub async fn serve(name: &str, hostile: Hostile) -> std::io::Result<()> {
    let port = Port::open(name)?;
    loop {
        port.wait_for_host().await?;
        match hostile.way().as_str() {
            "silent" => pending().await,
            "garbage" => pour(&port, b"").await,
            "frames" => pour(&port, LONG_FRAME).await,
            _ => {
                let raw = hostile.clone();
                tokio::select! {
                    () = converse(&port, hostile.clone()) => {}
                    () = raw.turned_raw() => {}
                }
            }
        }
    }
}

async fn converse(port: &Port, hostile: Hostile) {
    let Ok(stream) = port.stream() else { return };
    let limit = 256 << 20;
    let honest = TowerToHyperService::new(
        GuestServiceServer::new(hostile.clone()).max_encoding_message_size(limit),
    );
    let front = service_fn(move |request: hyper::Request<Incoming>| {
        let (honest, way) = (honest.clone(), hostile.way());
        async move {
            if way == "lengths" {
                return Ok::<_, Infallible>(endless_message());
            }
            honest.call(request).await
        }
    });
    // However a connection ends, the next one is served.
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), front)
        .await;
}

/// An answer whose one message says that it has 4 GiB, and never ends.
fn endless_message() -> hyper::Response<Body> {
    let data = async_stream::stream! {
        yield Ok::<_, Infallible>(Frame::data(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff])));
        loop {
            yield Ok(Frame::data(Bytes::from_static(&[b'A'; CHUNK])));
        }
    };
    let mut answer = hyper::Response::new(Body::new(StreamBody::new(data)));
    answer.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/grpc"),
    );
    answer
}

/// Writes `head` and then noise for as long as the host takes it.
async fn pour(port: &Port, head: &[u8]) {
    let Ok(mut stream) = port.stream() else {
        return;
    };
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut chunk = head.to_vec();
    while stream.write_all(&chunk).await.is_ok() {
        chunk.clear();
        while chunk.len() < CHUNK {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.extend_from_slice(&state.to_le_bytes());
        }
        tokio::task::yield_now().await;
    }
}
