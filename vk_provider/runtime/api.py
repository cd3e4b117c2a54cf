"""What the node asks of its runtime, one method for each call of `sandbox.proto`.

Every call is idempotent by the ids in it, may be repeated after any failure, and raises the kinds
of `vk_provider.common.errors`: `Unavailable` means that the backend is away and the truth unknown,
never that a pod failed. Cancelling a call gives up waiting; what it began may still take effect.
Streams are asynchronous generators: close them (`contextlib.aclosing`) to end the call.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Protocol

from vk_provider._pb import sandbox_pb2 as pb


class Runtime(Protocol):
    """A runtime of sandboxes (one microVM each) and of the containers in them."""

    async def host_info(self) -> pb.HostInfo:
        """Return what the host is and offers, as of now."""
        ...

    async def update_runtime_config(self, pod_cidrs: list[str]) -> None:
        """Hand on the pod CIDRs that the cluster gave this node, for the built-in network."""
        ...

    async def run_sandbox(self, request: pb.RunSandboxRequest) -> pb.SandboxStatus:
        """Start a sandbox and return once containers can be created in it."""
        ...

    async def stop_sandbox(self, sandbox_id: str) -> None:
        """End the VM at once; records and logs stay. Not there: `NotFound`."""
        ...

    async def remove_sandbox(self, sandbox_id: str) -> None:
        """Stop it if need be, and remove every trace, the logs too. Not there: `NotFound`."""
        ...

    async def list_sandboxes(
        self, sandbox_id: str = "", pod_uid: str = ""
    ) -> pb.ListSandboxesResponse:
        """Return sandboxes with their containers, live and ended; "" selects all."""
        ...

    async def create_container(self, request: pb.CreateContainerRequest) -> pb.ContainerStatus:
        """Create a container, ready to be started."""
        ...

    async def start_container(self, container_id: str) -> pb.ContainerStatus:
        """Start it. A command that can't run is a status (EXITED, StartError), not an error."""
        ...

    async def stop_container(
        self, container_id: str, grace_s: int, signal: str = ""
    ) -> pb.ContainerStatus:
        """Signal, wait `grace_s` at most, kill; return when it has exited, its log complete.

        A second call with a shorter grace shortens the first. `signal` "": its own stop signal.
        """
        ...

    async def remove_container(self, container_id: str) -> None:
        """Remove an exited or never started container with its log and record."""
        ...

    async def update_container_resources(
        self, container_id: str, resources: pb.LinuxResources, annotations: Mapping[str, str]
    ) -> pb.ContainerStatus:
        """Set new limits; the answer's `resources` are read back from the cgroup.

        annotations: laid over the container's own. Raises FailedPrecondition for a memory limit
        below what the container uses, among others.
        """
        ...

    async def update_volume(self, sandbox_id: str, volume: pb.Volume) -> None:
        """Replace the content of a files volume, atomically for readers."""
        ...

    def pull_image(
        self, image: str, auth: pb.RegistryAuth | None = None
    ) -> AsyncGenerator[pb.PullImageProgress]:
        """Fetch an image; the last message has `image` set."""
        ...

    async def list_images(self, image: str = "") -> list[pb.Image]:
        """Return the images that are there; `image` is a name, digest or id, "" for all."""
        ...

    async def remove_image(self, image: str) -> None:
        """Remove an image that no sandbox uses."""
        ...

    def exec(self, requests: AsyncIterator[pb.ExecRequest]) -> AsyncGenerator[pb.ExecResponse]:
        """Run a command in a container; the first request carries `start`, the last answer `exit`.

        Requests are taken no faster than the other side reads them.
        """
        ...

    def attach(
        self, requests: AsyncIterator[pb.AttachRequest]
    ) -> AsyncGenerator[pb.AttachResponse]:
        """Take part in a container's stdio; the first request carries `start`."""
        ...

    def port_forward(
        self, requests: AsyncIterator[pb.PortForwardRequest]
    ) -> AsyncGenerator[pb.PortForwardResponse]:
        """Open one connection to a port of the sandbox; the first request carries `start`."""
        ...

    def read_logs(self, request: pb.ReadLogsRequest) -> AsyncGenerator[bytes]:
        """Yield a container's log as bytes, no faster than the caller takes them."""
        ...

    def watch_events(self, after_seq: int = 0) -> AsyncGenerator[pb.Event]:
        """Yield events after `after_seq`; RESYNC first where some are no longer kept."""
        ...

    def watch_usage(self) -> AsyncGenerator[pb.UsageSnapshot]:
        """Yield a snapshot of every live sandbox each second."""
        ...

    async def list_usage_records(
        self, since_ns: int = 0, pod_uid: str = ""
    ) -> list[pb.UsageRecord]:
        """Return what was used, a record a sandbox; `since_ns` is wall time."""
        ...
