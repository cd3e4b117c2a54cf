//! PortForward: one TCP connection to a port of the pod's loopback.

use std::pin::Pin;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status};

use crate::error::{Error, Result};
use crate::pb::{
    port_forward_input as input, port_forward_output as output, PortForwardInput, PortForwardOutput,
};

type Input = Pin<Box<dyn Stream<Item = Result<PortForwardInput, Status>> + Send>>;
type Output = Result<PortForwardOutput, Status>;

/// Connects, and passes bytes both ways until both sides are done or the host has gone.
pub async fn forward(mut from_host: Input) -> Result<mpsc::Receiver<Output>> {
    let first = from_host.next().await.transpose();
    let port = match first.map_err(|s| Error::new(s.code(), s.message()))? {
        Some(PortForwardInput {
            message: Some(input::Message::Port(port)),
        }) => port,
        _ => return Err(Error::invalid("the first message names the port")),
    };
    let number = u16::try_from(port)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| Error::invalid(format!("{port} is no port")))?;
    let stream = match TcpStream::connect(("127.0.0.1", number)).await {
        Ok(stream) => stream,
        Err(why) => TcpStream::connect(("::1", number)).await.map_err(|_| {
            let text = format!("cannot connect to port {port} of the pod's loopback: {why}");
            Error::new(Code::Unavailable, text)
        })?,
    };
    let (sender, receiver) = mpsc::channel(8);
    tokio::spawn(async move {
        let closed = sender.clone();
        tokio::select! {
            () = both_ways(stream, from_host, sender) => {}
            () = closed.closed() => {}
        }
    });
    Ok(receiver)
}

async fn both_ways(stream: TcpStream, mut from_host: Input, to_host: mpsc::Sender<Output>) {
    let (mut reader, mut writer) = stream.into_split();
    let up = async {
        while let Some(Ok(PortForwardInput { message })) = from_host.next().await {
            match message {
                Some(input::Message::Data(data)) => {
                    let written = writer.write_all(&data).await;
                    if written.is_err() {
                        return;
                    }
                }
                Some(input::Message::Eof(true)) => break,
                _ => {}
            }
        }
        // The other side may have closed first.
        let _ = writer.shutdown().await;
    };
    let down = async {
        let started = output::Message::Started(true);
        let mut more = send(&to_host, started).await;
        let mut buf = vec![0; 16 << 10];
        while more {
            match reader.read(&mut buf).await {
                Ok(n @ 1..) => {
                    let data = Bytes::copy_from_slice(&buf[..n]);
                    more = send(&to_host, output::Message::Data(data)).await;
                }
                _ => more = false,
            }
        }
    };
    // The pod's end closes the stream; the host's end alone is a half-close.
    tokio::select! {
        () = async { up.await; std::future::pending::<()>().await } => {}
        () = down => {}
    }
}

async fn send(to_host: &mpsc::Sender<Output>, message: output::Message) -> bool {
    let message = Some(message);
    to_host
        .send(Ok(PortForwardOutput { message }))
        .await
        .is_ok()
}
