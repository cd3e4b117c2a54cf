//! The service's trait: unary calls are answered here, streams are begun.

use std::future::Future;

use nix::sys::reboot::{reboot, RebootMode};
use nix::unistd::sync;
use tonic::{Request, Response, Status, Streaming};

use super::{streams, Service};
use crate::container::{self, blocking};
use crate::error::{Context, Result};
use crate::pb::guest_service_server::GuestService;
use crate::pb::*;
use crate::{clock, configure, portforward, stats};

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(done: Result<T>) -> Answer<T> {
    done.map(Response::new).map_err(Status::from)
}

/// Does work to its end, also when the caller goes away: the next one could not tell what was left
/// half done from what is done.
async fn finish<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    tokio::spawn(work).await.context("finish a call")?
}

#[tonic::async_trait]
impl GuestService for Service {
    type EventsStream = streams::Boxed<Event>;
    type OutputStream = streams::Boxed<OutputRecord>;
    type AttachStream = streams::Boxed<AttachOutput>;
    type ExecStream = streams::Boxed<ExecOutput>;
    type PortForwardStream = streams::Boxed<PortForwardOutput>;
    type TakeStatsStream = streams::Boxed<Stats>;

    async fn hello(&self, request: Request<HelloRequest>) -> Answer<HelloResponse> {
        let host = request.into_inner();
        if host.protocol_version != crate::PROTOCOL_VERSION {
            return Err(Status::failed_precondition(format!(
                "the host speaks protocol version {}, this guest {}",
                host.protocol_version,
                crate::PROTOCOL_VERSION
            )));
        }
        let sandbox_id = self.guest().sandbox_id();
        let boot_id = if sandbox_id.is_empty() {
            String::new()
        } else {
            configure::boot_id()?
        };
        let release = nix::sys::utsname::uname().context("ask for the kernel's release")?;
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        Ok(Response::new(HelloResponse {
            protocol_version: crate::PROTOCOL_VERSION,
            guest_version: env!("CARGO_PKG_VERSION").into(),
            kernel_release: release.release().to_string_lossy().into_owned(),
            sandbox_id,
            memory_total_bytes: stats::memory().0,
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            clock_ns: clock::now_ns(),
            boot_id,
        }))
    }

    async fn configure(&self, request: Request<ConfigureRequest>) -> Answer<ConfigureResponse> {
        let (guest, asked) = (self.guest().clone(), request.into_inner());
        let done = finish(async move { guest.configure(asked).await }).await;
        answer(done)
    }

    async fn rehearse(&self, request: Request<RehearseRequest>) -> Answer<RehearseResponse> {
        let (guest, asked) = (self.guest().clone(), request.into_inner());
        let done = finish(async move { guest.rehearse(asked).await }).await;
        answer(done.map(|()| RehearseResponse {}))
    }

    async fn set_clock(&self, request: Request<SetClockRequest>) -> Answer<SetClockResponse> {
        let done = clock::set(&request.into_inner());
        answer(done.map(|offset_ns| SetClockResponse { offset_ns }))
    }

    async fn mount_disk(&self, request: Request<MountDiskRequest>) -> Answer<MountDiskResponse> {
        let (guest, asked) = (self.guest().clone(), request.into_inner());
        let done = finish(async move { guest.mount_disk(asked).await }).await;
        answer(done.map(|()| MountDiskResponse {}))
    }

    async fn put_volume(&self, request: Request<PutVolumeRequest>) -> Answer<PutVolumeResponse> {
        let (guest, asked) = (self.guest().clone(), request.into_inner());
        let done = finish(async move { guest.put_volume(asked).await }).await;
        answer(done.map(|()| PutVolumeResponse {}))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Answer<CreateContainerResponse> {
        let (guest, asked) = (self.guest().clone(), request.into_inner());
        let done = finish(async move { guest.create_container(asked).await }).await;
        answer(done.map(|()| CreateContainerResponse {}))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Answer<StartContainerResponse> {
        let (guest, id) = (self.guest().clone(), request.into_inner().container_id);
        answer(finish(async move { guest.start_container(&id).await }).await)
    }

    async fn signal_container(
        &self,
        request: Request<SignalContainerRequest>,
    ) -> Answer<SignalContainerResponse> {
        let asked = request.into_inner();
        let done = self
            .guest()
            .signal_container(&asked.container_id, asked.signal, asked.all);
        answer(done.map(|()| SignalContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Answer<RemoveContainerResponse> {
        let (guest, id) = (self.guest().clone(), request.into_inner().container_id);
        let done = finish(async move { guest.remove_container(&id).await }).await;
        answer(done.map(|()| RemoveContainerResponse {}))
    }

    async fn update_container(
        &self,
        request: Request<UpdateContainerRequest>,
    ) -> Answer<UpdateContainerResponse> {
        let asked = request.into_inner();
        let found = self.guest().containers.get(&asked.container_id)?;
        let done = blocking(move || container::update(&found, &asked.resources_json)).await;
        answer(done.map(|resources_json| UpdateContainerResponse { resources_json }))
    }

    async fn list_containers(
        &self,
        _: Request<ListContainersRequest>,
    ) -> Answer<ListContainersResponse> {
        // The number first: a change in between is told again rather than not at all.
        let event_seq = self.guest().events.seq();
        let all = self.guest().containers.list();
        Ok(Response::new(ListContainersResponse {
            containers: all.iter().map(|c| c.info()).collect(),
            event_seq,
        }))
    }

    async fn events(&self, request: Request<EventsRequest>) -> Answer<Self::EventsStream> {
        let seq = request.into_inner().after_seq;
        Ok(Response::new(streams::events(self.guest().clone(), seq)))
    }

    async fn output(&self, request: Request<Streaming<OutputAck>>) -> Answer<Self::OutputStream> {
        answer(streams::output(self.guest(), request.into_inner()).await)
    }

    async fn attach(&self, request: Request<Streaming<AttachInput>>) -> Answer<Self::AttachStream> {
        answer(streams::attach(self.guest(), request.into_inner()).await)
    }

    async fn exec(&self, request: Request<Streaming<ExecInput>>) -> Answer<Self::ExecStream> {
        let input = Box::pin(request.into_inner());
        let done = container::exec(self.guest().clone(), input).await;
        answer(done.map(streams::of))
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<PortForwardInput>>,
    ) -> Answer<Self::PortForwardStream> {
        let done = portforward::forward(Box::pin(request.into_inner())).await;
        answer(done.map(streams::of))
    }

    async fn take_stats(
        &self,
        request: Request<Streaming<TakeStatsRequest>>,
    ) -> Answer<Self::TakeStatsStream> {
        let asked = request.into_inner();
        Ok(Response::new(streams::stats(self.guest().clone(), asked)))
    }

    async fn shutdown(&self, _: Request<ShutdownRequest>) -> Answer<ShutdownResponse> {
        // The answer is on its way before the power goes: the connection is served meanwhile.
        tokio::spawn(async {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            let _ = blocking(|| {
                sync();
                reboot(RebootMode::RB_POWER_OFF)
                    .context("power off")
                    .map(drop)
            })
            .await;
        });
        Ok(Response::new(ShutdownResponse {}))
    }
}
