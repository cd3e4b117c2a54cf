//! The service's streams. Each ends with its connection: nothing of it is left then.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::Guest;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::pb::{attach_input, attach_output, AttachInput, AttachOutput};
use crate::pb::{ContainerState, Event, OutputAck, OutputRecord, Stats, TakeStatsRequest};

type Item<T> = Result<T, Status>;
pub type Boxed<T> = Pin<Box<dyn Stream<Item = Item<T>> + Send>>;

/// The stream of what comes through a channel.
pub fn of<T: Send + 'static>(receiver: mpsc::Receiver<Item<T>>) -> Boxed<T> {
    Box::pin(ReceiverStream::new(receiver))
}

async fn first<T>(stream: &mut Streaming<T>, what: &str) -> Result<T> {
    stream
        .message()
        .await
        .map_err(|s| Error::new(s.code(), s.message()))?
        .ok_or_else(|| Error::invalid(format!("{what} ended before its first message")))
}

/// State changes from the first one after `seq`.
pub fn events(guest: Arc<Guest>, mut seq: i64) -> Boxed<Event> {
    let mut news = guest.events.subscribe();
    Box::pin(async_stream::stream! {
        loop {
            news.mark_unchanged();
            for event in guest.events.after(seq) {
                seq = event.seq;
                yield Ok(event);
            }
            if news.changed().await.is_err() {
                return;
            }
        }
    })
}

/// A container's output; acknowledgements come the other way.
pub async fn output(
    guest: &Arc<Guest>,
    mut acks: Streaming<OutputAck>,
) -> Result<Boxed<OutputRecord>> {
    let begin = first(&mut acks, "Output").await?;
    let container = guest.containers.get(&begin.container_id)?;
    let log = container.output.clone();
    log.acknowledge(begin.acked_seq, begin.cookie)?;
    Ok(Box::pin(async_stream::stream! {
        let (reader, resume) = log.resume();
        let mut seq = resume.resume.as_ref().map_or(0, |r| r.acked_seq);
        let mut acks = Some(acks);
        let mut eof = false;
        yield Ok(resume);
        loop {
            // Which of the two came: a record for the host, or an acknowledgement of it.
            let step = tokio::select! {
                ack = next_ack(&mut acks) => Step::Ack(ack),
                record = log.next(reader, seq) => Step::Record(record),
            };
            match step {
                Step::Record(Some(record)) => {
                    seq = record.seq;
                    eof = record.eof;
                    yield Ok(record);
                }
                Step::Record(None) => return,
                Step::Ack(Ok(Some(ack))) => {
                    if let Err(why) = log.acknowledge(ack.acked_seq, ack.cookie) {
                        yield Err(why.into());
                        return;
                    }
                }
                // A host that will not acknowledge any more still gets what there is.
                Step::Ack(Ok(None)) if !eof => acks = None,
                Step::Ack(_) => return,
            }
        }
    }))
}

enum Step {
    Ack(Item<Option<OutputAck>>),
    Record(Option<OutputRecord>),
}

async fn next_ack(acks: &mut Option<Streaming<OutputAck>>) -> Item<Option<OutputAck>> {
    match acks {
        Some(acks) => acks.message().await,
        None => std::future::pending().await,
    }
}

/// A live view, and stdin.
pub async fn attach(
    guest: &Arc<Guest>,
    mut input: Streaming<AttachInput>,
) -> Result<Boxed<AttachOutput>> {
    let container = match first(&mut input, "Attach").await?.message {
        Some(attach_input::Message::ContainerId(id)) => guest.containers.get(&id)?,
        _ => return Err(Error::invalid("the first message names the container")),
    };
    let mut viewed = container.viewers.subscribe();
    Ok(Box::pin(async_stream::stream! {
        let mut changes = container.changes();
        // A view may be asked for before the start, so as to miss nothing.
        if changes.wait_for(|s| *s != ContainerState::Created).await.is_err() {
            return;
        }
        yield Ok(message(attach_output::Message::Started(true)));
        let feeding = feed(container.clone(), input);
        tokio::pin!(feeding);
        let mut fed = false;
        loop {
            tokio::select! {
                () = &mut feeding, if !fed => fed = true,
                chunk = viewed.recv() => match chunk {
                    None => return,
                    Some(chunk) if chunk.stderr => {
                        yield Ok(message(attach_output::Message::Stderr(chunk.data)));
                    }
                    Some(chunk) => yield Ok(message(attach_output::Message::Stdout(chunk.data))),
                },
            }
        }
    }))
}

fn message(message: attach_output::Message) -> AttachOutput {
    AttachOutput {
        message: Some(message),
    }
}

/// With stdinOnce, the first client's end of input is the container's.
struct CloseOnce(Arc<Container>);

impl Drop for CloseOnce {
    fn drop(&mut self) {
        let container = self.0.clone();
        if container.settings.stdin_once && !container.settings.tty {
            tokio::spawn(async move { drop(container.stdin.lock().await.take()) });
        }
    }
}

async fn feed(container: Arc<Container>, mut input: Streaming<AttachInput>) {
    let mut close = None;
    while let Ok(Some(AttachInput { message })) = input.message().await {
        // The lock is not held while the container takes its time to read.
        let file = container.stdin.lock().await.clone();
        match (message, file) {
            (Some(attach_input::Message::Stdin(data)), Some(file)) if container.settings.stdin => {
                close.get_or_insert_with(|| CloseOnce(container.clone()));
                // A container that has closed its stdin wants no more of it.
                if file.write_all(&data).await.is_err() {
                    return;
                }
            }
            (Some(attach_input::Message::StdinEof(true)), _) => {
                close.get_or_insert_with(|| CloseOnce(container.clone()));
                close = None;
            }
            (Some(attach_input::Message::Resize(size)), Some(file)) if container.settings.tty => {
                // A terminal that is gone has no size.
                let _ = file.resize(size.width, size.height);
            }
            _ => {}
        }
    }
    drop(close);
}

/// A sample for each that is asked for.
pub fn stats(guest: Arc<Guest>, mut asked: Streaming<TakeStatsRequest>) -> Boxed<Stats> {
    Box::pin(async_stream::stream! {
        while let Ok(Some(TakeStatsRequest {})) = asked.message().await {
            yield crate::stats::sample(&guest).await.map_err(Status::from);
        }
    })
}
