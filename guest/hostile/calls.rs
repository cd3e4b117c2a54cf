//! The service: the real one's answers, but for the call that the chosen way is about.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::lies;
use vk_guest::lock;
use vk_guest::pb::guest_service_server::GuestService;
use vk_guest::pb::*;
use vk_guest::service::Service;

const LATE: Duration = Duration::from_secs(1);

type Answer<T> = Result<Response<T>, Status>;
type Boxed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
pub struct Hostile {
    real: Service,
    way: Arc<watch::Sender<String>>,
    late_way: Arc<Mutex<Option<String>>>,
    containers: Arc<Mutex<Vec<String>>>,
}

impl Hostile {
    pub fn new(real: Service) -> Self {
        Self {
            real,
            way: Arc::new(watch::Sender::new(String::new())),
            late_way: Arc::default(),
            containers: Arc::default(),
        }
    }

    /// How the contract is broken now.
    pub fn way(&self) -> String {
        self.way.borrow().clone()
    }

    /// Returns once the ports are to carry no HTTP/2 any more.
    pub async fn turned_raw(&self) {
        let mut changes = self.way.subscribe();
        let raw = |way: &String| matches!(way.as_str(), "silent" | "garbage" | "frames");
        // The sender is ours, and so never gone.
        let _ = changes.wait_for(raw).await;
    }

    fn choose(&self, hostname: String) {
        match hostname.strip_prefix("late-") {
            Some(late) => *lock(&self.late_way) = Some(late.to_owned()),
            None => drop(self.way.send_replace(hostname)),
        }
    }

    /// Begins the late way when the host has heard of the start.
    fn started(&self) {
        if let Some(late) = lock(&self.late_way).take() {
            let way = self.way.clone();
            tokio::spawn(async move {
                tokio::time::sleep(LATE).await;
                way.send_replace(late);
            });
        }
    }
}

fn endless<T: Send + 'static>(mut next: impl FnMut(i64) -> T + Send + 'static) -> Answer<Boxed<T>> {
    Ok(Response::new(Box::pin(async_stream::stream! {
        for seq in 1.. {
            yield Ok(next(seq));
            tokio::task::yield_now().await;
        }
    })))
}

macro_rules! honest {
    ($($name:ident: $request:ty => $answer:ty),* $(,)?) => {
        #[tonic::async_trait]
        impl GuestService for Hostile {
            type EventsStream = Boxed<Event>;
            type OutputStream = Boxed<OutputRecord>;
            type AttachStream = Boxed<AttachOutput>;
            type ExecStream = Boxed<ExecOutput>;
            type PortForwardStream = Boxed<PortForwardOutput>;
            type TakeStatsStream = Boxed<Stats>;

            $(async fn $name(&self, request: Request<$request>) -> Answer<$answer> {
                self.real.$name(request).await
            })*

            async fn configure(&self, request: Request<ConfigureRequest>) -> Answer<ConfigureResponse> {
                let hostname = request.get_ref().hostname.clone();
                let done = self.real.configure(request).await;
                self.choose(hostname);
                done
            }

            async fn start_container(
                &self,
                request: Request<StartContainerRequest>,
            ) -> Answer<StartContainerResponse> {
                let done = self.real.start_container(request).await;
                self.started();
                done
            }

            async fn create_container(
                &self,
                request: Request<CreateContainerRequest>,
            ) -> Answer<CreateContainerResponse> {
                lock(&self.containers).push(request.get_ref().container_id.clone());
                self.real.create_container(request).await
            }

            async fn list_containers(
                &self,
                request: Request<ListContainersRequest>,
            ) -> Answer<ListContainersResponse> {
                let honest = self.real.list_containers(request).await?.into_inner();
                Ok(Response::new(lies::list(&self.way(), honest)))
            }

            async fn events(&self, request: Request<EventsRequest>) -> Answer<Boxed<Event>> {
                let way = self.way();
                let containers = self.containers.clone();
                match way.as_str() {
                    "times" | "huge-events" | "flood-events" => endless(move |seq| {
                        let newest = lock(&containers).last().cloned().unwrap_or_default();
                        lies::event(seq, &way, &newest)
                    }),
                    _ => self.real.events(request).await,
                }
            }

            async fn output(&self, request: Request<Streaming<OutputAck>>) -> Answer<Boxed<OutputRecord>> {
                // Each begins with a resume, like an honest stream.
                let next: fn(i64) -> OutputRecord = match self.way().as_str() {
                    "cookie" => |_| lies::resume(br#"{"after":"../../etc/passwd","offset":-1}"#),
                    "flood-output" => |seq| match seq {
                        1 => lies::resume(b""),
                        _ => lies::record(seq - 1, 16 << 10),
                    },
                    "tiny-output" => |seq| match seq {
                        1 => lies::resume(b""),
                        _ => lies::record(seq - 1, 1),
                    },
                    "backward" => |seq| match seq {
                        1 => lies::resume(b""),
                        _ => lies::record(4 - seq, 10),
                    },
                    "long-record" => |seq| match seq {
                        1 => lies::resume(b""),
                        _ => lies::record(seq - 1, 1 << 20),
                    },
                    _ => return self.real.output(request).await,
                };
                // The host's acknowledgements are read and ignored.
                let mut acks = request.into_inner();
                tokio::spawn(async move { while let Ok(Some(_)) = acks.message().await {} });
                endless(next)
            }

            async fn attach(&self, request: Request<Streaming<AttachInput>>) -> Answer<Boxed<AttachOutput>> {
                self.real.attach(request).await
            }

            async fn exec(&self, request: Request<Streaming<ExecInput>>) -> Answer<Boxed<ExecOutput>> {
                if self.way() != "flood-exec" {
                    return self.real.exec(request).await;
                }
                endless(|_| ExecOutput {
                    message: Some(exec_output::Message::Stdout(vec![b'x'; 60_000].into())),
                })
            }

            async fn port_forward(
                &self,
                request: Request<Streaming<PortForwardInput>>,
            ) -> Answer<Boxed<PortForwardOutput>> {
                self.real.port_forward(request).await
            }

            async fn take_stats(
                &self,
                request: Request<Streaming<TakeStatsRequest>>,
            ) -> Answer<Boxed<Stats>> {
                let way = self.way();
                let containers = self.containers.clone();
                match way.as_str() {
                    "huge-stats" | "lying-stats" => {
                        endless(move |_| lies::stats(&way, &lock(&containers)))
                    }
                    _ => self.real.take_stats(request).await,
                }
            }
        }
    };
}

honest! {
    hello: HelloRequest => HelloResponse,
    rehearse: RehearseRequest => RehearseResponse,
    set_clock: SetClockRequest => SetClockResponse,
    mount_disk: MountDiskRequest => MountDiskResponse,
    put_volume: PutVolumeRequest => PutVolumeResponse,
    signal_container: SignalContainerRequest => SignalContainerResponse,
    remove_container: RemoveContainerRequest => RemoveContainerResponse,
    update_container: UpdateContainerRequest => UpdateContainerResponse,
    shutdown: ShutdownRequest => ShutdownResponse,
}
