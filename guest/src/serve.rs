//! Serves the host on one port: one HTTP/2 connection after the other, for ever.

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;

use crate::pb::guest_service_server::GuestServiceServer;
use crate::port::Port;
use crate::service::Service;

/// What a stream of the host may have in flight; the connection's window is far larger, so that
/// a stream nobody reads cannot hold up the others.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// Calls that the host may have given up before they were looked at: a VM that stands still for a
/// while gets many at once, and its port has no other client to go away for.
const GIVEN_UP: usize = 1 << 16;
/// The largest message: a volume's files.
const MESSAGE_LIMIT: usize = 64 << 20;

/// Serves `service` on the port named `name`; ends only with an error of the port itself.
pub async fn serve(name: &str, service: Service) -> std::io::Result<()> {
    let port = Port::open(name)?;
    loop {
        port.wait_for_host().await?;
        let server = GuestServiceServer::new(service.clone())
            .max_decoding_message_size(MESSAGE_LIMIT)
            .max_encoding_message_size(MESSAGE_LIMIT);
        let connection = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(256 << 10)
            .max_pending_accept_reset_streams(GIVEN_UP)
            .serve_connection(
                TokioIo::new(port.stream()?),
                TowerToHyperService::new(server),
            );
        // A connection ends in whatever way its host went; the next host starts afresh.
        if let Err(why) = connection.await {
            crate::log::line(&format!("{name}: the host's connection ended: {why}"));
        }
    }
}
