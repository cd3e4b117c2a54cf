"""A runtime in memory that keeps the same contract as the agent (tests/contract says which).

For tests of everything above the seam. Containers run `Program`s instead of processes; time is
the given clock's. A test may also take the agent away, fail or hold up single calls, end
containers and lose whole VMs.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import Clock
from vk_provider.common.errors import (
    AlreadyExists,
    FailedPrecondition,
    NotFound,
    Unavailable,
    VkError,
)
from vk_provider.runtime.fake_records import (
    FakeContainer,
    FakeImage,
    FakeSandbox,
    Program,
    Scripted,
)
from vk_provider.runtime.fake_streams import answer_exec, log_bytes

_KEPT_EVENTS = 1024


class FakeRuntime:
    """See the module. `registry` holds what may be pulled; `program` says what a container runs.

    Use it as an asynchronous context manager: it owns the tasks that play running programs.
    """

    def __init__(self, clock: Clock, host: pb.HostInfo | None = None) -> None:
        self.clock = clock
        self.host = host or pb.HostInfo(
            cpu_milli=4000,
            memory_bytes=8 << 30,
            max_pods=110,
            addresses=["192.0.2.1"],
            network_ready=True,
            resolv_conf="nameserver 192.0.2.53\n",
        )
        self.registry: dict[str, FakeImage] = {}
        self.program: Callable[[pb.ContainerConfig], Program] = lambda _: Program()
        self.calls: list[tuple[str, str]] = []
        self.volumes: dict[tuple[str, str], pb.Volume] = {}
        self.pod_cidrs: list[str] = []
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.containers: dict[str, FakeContainer] = {}
        self.images: dict[str, pb.Image] = {}
        self.usage: asyncio.Queue[pb.UsageSnapshot] = asyncio.Queue()
        self.usage_records: list[pb.UsageRecord] = []
        self._away = False
        self._scripted: dict[str, Scripted] = defaultdict(Scripted)
        self._events: list[pb.Event] = []
        self._seq = 0
        self._news = asyncio.Event()
        self._group: asyncio.TaskGroup | None = None
        self._next_ip = 1

    async def __aenter__(self) -> FakeRuntime:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for container in self.containers.values():
            if container.task is not None:
                container.task.cancel()
        assert self._group is not None
        await self._group.__aexit__(None, None, None)

    # ---- what a test may do to it ----

    def go_away(self) -> None:
        """Answer every call with Unavailable and break the streams; the pods run on."""
        self._away = True
        self._wake()

    def come_back(self) -> None:
        """Serve again."""
        self._away = False

    def fail(self, call: str, *errors: VkError) -> None:
        """Let the next calls of that name fail, one error a call."""
        self._scripted[call].errors.extend(errors)

    def hold(self, call: str) -> asyncio.Event:
        """Hold up calls of that name until the returned event is set."""
        gate = self._scripted[call].gate = asyncio.Event()
        return gate

    def exit(self, container_id: str, code: int, reason: str = "", message: bytes = b"") -> None:
        """End a running container's process."""
        container = self.containers[container_id]
        container.status.termination_message = message
        self._ended(container, code, reason)

    def lose_vm(self, sandbox_id: str) -> None:
        """Kill a sandbox's VM, as `kill -9` of QEMU does."""
        self._stop(self.sandboxes[sandbox_id], "VMExited", "the VM ended unexpectedly")

    def forget_events(self) -> None:
        """Drop all kept events, so that a watch from before them starts with RESYNC."""
        self._events.clear()

    # ---- the Runtime protocol ----

    async def host_info(self) -> pb.HostInfo:
        await self._enter("host_info")
        return self.host

    async def update_runtime_config(self, pod_cidrs: list[str]) -> None:
        await self._enter("update_runtime_config")
        self.pod_cidrs = list(pod_cidrs)

    async def run_sandbox(self, request: pb.RunSandboxRequest) -> pb.SandboxStatus:
        sandbox = self.sandboxes.get(request.sandbox_id)
        if sandbox is None and not self._away:
            sandbox = FakeSandbox.of(request, self.clock.now_ns())
            self.sandboxes[request.sandbox_id] = sandbox
        try:
            await self._enter("run_sandbox", request.sandbox_id)
        except Unavailable:
            raise
        except VkError as exc:
            assert sandbox is not None
            self._stop(sandbox, "StartFailed", str(exc))
            raise
        assert sandbox is not None
        if sandbox.request != request:
            raise AlreadyExists(f"sandbox {request.sandbox_id} exists with other content")
        if sandbox.status.state == pb.SANDBOX_NOT_READY:
            raise FailedPrecondition(f"sandbox {request.sandbox_id} has ended")
        if sandbox.status.state == pb.SANDBOX_STARTING:
            sandbox.status.state = pb.SANDBOX_READY
            sandbox.status.ips.append(f"10.1.{self._next_ip >> 8}.{self._next_ip & 255}")
            self._next_ip += 1
            for volume in request.volumes:
                self.volumes[request.sandbox_id, volume.name] = volume
            self._event(pb.Event.SANDBOX_CHANGED, sandbox)
        return self._snapshot(sandbox)

    async def stop_sandbox(self, sandbox_id: str) -> None:
        await self._enter("stop_sandbox", sandbox_id)
        self._stop(self._sandbox(sandbox_id), "Stopped", "")

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self._enter("remove_sandbox", sandbox_id)
        sandbox = self._sandbox(sandbox_id)
        self._stop(sandbox, "Stopped", "")
        for id_ in list(sandbox.container_ids):
            del self.containers[id_]
        del self.sandboxes[sandbox_id]
        self._event(pb.Event.SANDBOX_CHANGED, sandbox)

    async def list_sandboxes(
        self, sandbox_id: str = "", pod_uid: str = ""
    ) -> pb.ListSandboxesResponse:
        await self._enter("list_sandboxes", pod_uid)
        found = [
            self._snapshot(s)
            for s in self.sandboxes.values()
            if sandbox_id in {"", s.status.sandbox_id} and pod_uid in {"", s.status.pod.uid}
        ]
        return pb.ListSandboxesResponse(sandboxes=found, event_seq=self._seq)

    async def create_container(self, request: pb.CreateContainerRequest) -> pb.ContainerStatus:
        await self._enter("create_container", request.config.name)
        sandbox = self._sandbox(request.sandbox_id)
        if sandbox.status.state != pb.SANDBOX_READY:
            raise FailedPrecondition(f"sandbox {request.sandbox_id} is not ready")
        known = self.containers.get(request.config.container_id)
        if known is not None:
            if known.config.name != request.config.name:
                raise AlreadyExists(f"container {known.config.name} has that id")
            known.made = True
            return known.copy()
        if all(i.image_ref != request.config.image_ref for i in self.images.values()):
            raise NotFound(f"image {request.config.image_ref} is not in the store")
        container = FakeContainer.of(request, self.program(request.config), self.clock.now_ns())
        self.containers[request.config.container_id] = container
        sandbox.container_ids.append(request.config.container_id)
        self._event(pb.Event.CONTAINER_CHANGED, sandbox, container)
        return container.copy()

    async def start_container(self, container_id: str) -> pb.ContainerStatus:
        await self._enter("start_container", container_id)
        container = self._container(container_id)
        if container.status.state != pb.CONTAINER_CREATED:
            return container.copy()
        if not container.made:
            raise FailedPrecondition(f"container {container_id} was not created in full")
        program = container.program
        if program.start_error:
            container.status.message = program.start_error
            self._ended(container, 128, "StartError")
            return container.copy()
        container.status.state = pb.CONTAINER_RUNNING
        container.status.started_at_ns = self.clock.now_ns()
        container.log.append((self.clock.now_ns(), program.output))
        if program.run_s is not None:
            assert self._group is not None
            container.task = self._group.create_task(
                self._play(container, program.run_s), name=f"program/{container.config.name}"
            )
        self._event(pb.Event.CONTAINER_CHANGED, self._sandbox_of(container), container)
        return container.copy()

    async def stop_container(
        self, container_id: str, grace_s: int, signal: str = ""
    ) -> pb.ContainerStatus:
        await self._enter("stop_container", container_id)
        container = self._container(container_id)
        container.stops.append((grace_s, signal))
        if container.status.state == pb.CONTAINER_CREATED or grace_s <= 0:
            self._ended(container, 137, "Error")
        elif container.program.term_code is not None:
            self._ended(container, container.program.term_code, "")
        elif container.status.state == pb.CONTAINER_RUNNING:
            await self._killed_after(container, grace_s)
        return container.copy()

    async def remove_container(self, container_id: str) -> None:
        await self._enter("remove_container", container_id)
        container = self._container(container_id)
        if container.status.state == pb.CONTAINER_RUNNING:
            raise FailedPrecondition(f"container {container_id} is running; stop it first")
        sandbox = self._sandbox_of(container)
        sandbox.container_ids.remove(container_id)
        del self.containers[container_id]
        self._event(pb.Event.CONTAINER_CHANGED, sandbox, container)

    async def update_container_resources(
        self, container_id: str, resources: pb.LinuxResources, annotations: Mapping[str, str]
    ) -> pb.ContainerStatus:
        await self._enter("update_container_resources", container_id)
        container = self._container(container_id)
        container.status.resources.CopyFrom(resources)
        container.status.annotations.update(annotations)
        return container.copy()

    async def update_volume(self, sandbox_id: str, volume: pb.Volume) -> None:
        await self._enter("update_volume", volume.name)
        self._sandbox(sandbox_id)
        self.volumes[sandbox_id, volume.name] = volume

    async def pull_image(
        self, image: str, auth: pb.RegistryAuth | None = None
    ) -> AsyncGenerator[pb.PullImageProgress, None]:
        await self._enter("pull_image", image)
        found = self.registry.get(image)
        if found is None:
            raise NotFound(f"image {image} is in no registry that this runtime knows")
        if found.error is not None:
            raise found.error
        yield pb.PullImageProgress(phase="fetching", bytes_total=found.size_bytes)
        digest = f"{image.partition('@')[0].rpartition(':')[0] or image}@{found.image_ref}"
        self.images[image] = pb.Image(
            image_ref=found.image_ref,
            repo_tags=[image],
            repo_digests=[digest],
            size_bytes=found.size_bytes,
            user=found.user,
            uid=found.uid,
        )
        yield pb.PullImageProgress(phase="done", image=self.images[image], duration_ns=1_000_000)

    async def list_images(self, image: str = "") -> list[pb.Image]:
        await self._enter("list_images", image)
        return [i for name, i in self.images.items() if image in {"", name, i.image_ref}]

    async def remove_image(self, image: str) -> None:
        await self._enter("remove_image", image)
        names = [n for n, i in self.images.items() if image in {n, i.image_ref}]
        if not names:
            raise NotFound(f"image {image} is not in the store")
        for name in names:
            del self.images[name]

    async def exec(
        self, requests: AsyncIterator[pb.ExecRequest]
    ) -> AsyncGenerator[pb.ExecResponse, None]:
        await self._enter("exec")
        start = (await anext(requests)).start
        container = self._container(start.container_id)
        if container.status.state != pb.CONTAINER_RUNNING:
            raise FailedPrecondition(f"container {start.container_id} is not running")
        async with aclosing(answer_exec(container, start, requests, self.clock)) as answers:
            async for answer in answers:
                yield answer

    async def attach(
        self, requests: AsyncIterator[pb.AttachRequest]
    ) -> AsyncGenerator[pb.AttachResponse, None]:
        await self._enter("attach")
        start = (await anext(requests)).start
        container = self._container(start.container_id)
        yield pb.AttachResponse(started=True)
        if start.stdout:
            yield pb.AttachResponse(stdout=log_bytes(container))
        async for request in requests:
            if request.WhichOneof("message") == "stdin":
                yield pb.AttachResponse(stdout=request.stdin)

    async def port_forward(
        self, requests: AsyncIterator[pb.PortForwardRequest]
    ) -> AsyncGenerator[pb.PortForwardResponse, None]:
        await self._enter("port_forward")
        self._sandbox((await anext(requests)).start.sandbox_id)
        yield pb.PortForwardResponse(started=True)
        async for request in requests:
            if request.WhichOneof("message") == "data":
                yield pb.PortForwardResponse(data=request.data)

    async def read_logs(self, request: pb.ReadLogsRequest) -> AsyncGenerator[bytes, None]:
        await self._enter("read_logs", request.container_id)
        container = self._container(request.container_id)
        sent = log_bytes(container, request)
        yield sent
        while request.follow and container.status.state == pb.CONTAINER_RUNNING:
            await self._news_after(self._seq)
            everything = log_bytes(container, request)
            yield everything[len(sent) :]
            sent = everything

    async def watch_events(self, after_seq: int = 0) -> AsyncGenerator[pb.Event, None]:
        await self._enter("watch_events")
        oldest = self._events[0].seq if self._events else self._seq + 1
        if after_seq + 1 < oldest and after_seq < self._seq:
            yield pb.Event(seq=self._seq, kind=pb.Event.RESYNC, time_ns=self.clock.now_ns())
            after_seq = self._seq
        while True:
            for event in [e for e in self._events if e.seq > after_seq]:
                after_seq = event.seq
                yield event
            await self._news_after(after_seq)

    async def watch_usage(self) -> AsyncGenerator[pb.UsageSnapshot, None]:
        await self._enter("watch_usage")
        while True:
            yield await self.usage.get()

    async def list_usage_records(
        self, since_ns: int = 0, pod_uid: str = ""
    ) -> list[pb.UsageRecord]:
        await self._enter("list_usage_records")
        return [
            r
            for r in self.usage_records
            if r.started_at_ns >= since_ns and pod_uid in {"", r.pod.uid}
        ]

    # ---- inside ----

    async def _enter(self, call: str, what: str = "") -> None:
        self._check()
        self.calls.append((call, what))
        scripted = self._scripted[call]
        if scripted.gate is not None:
            await scripted.gate.wait()
        self._check()
        if scripted.errors:
            raise scripted.errors.pop(0)

    def _check(self) -> None:
        if self._away:
            raise Unavailable("the agent is away")

    def _sandbox(self, sandbox_id: str) -> FakeSandbox:
        if sandbox_id not in self.sandboxes:
            raise NotFound(f"sandbox {sandbox_id} does not exist")
        return self.sandboxes[sandbox_id]

    def _container(self, container_id: str) -> FakeContainer:
        if container_id not in self.containers:
            raise NotFound(f"container {container_id} does not exist")
        return self.containers[container_id]

    def _sandbox_of(self, container: FakeContainer) -> FakeSandbox:
        return self.sandboxes[container.status.sandbox_id]

    def _snapshot(self, sandbox: FakeSandbox) -> pb.SandboxStatus:
        status = pb.SandboxStatus()
        status.CopyFrom(sandbox.status)
        status.containers.extend(self.containers[i].copy() for i in sandbox.container_ids)
        return status

    async def _play(self, container: FakeContainer, run_s: float) -> None:
        await self.clock.sleep(run_s)
        container.task = None
        self._ended(container, container.program.exit_code, "")

    async def _killed_after(self, container: FakeContainer, grace_s: int) -> None:
        async with asyncio.TaskGroup() as group:
            waits = {
                group.create_task(container.ended.wait(), name="fake/ended"),
                group.create_task(self.clock.sleep(grace_s), name="fake/grace"),
            }
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()
        self._ended(container, 137, "Error")

    def _ended(self, container: FakeContainer, code: int, reason: str) -> None:
        if container.status.state == pb.CONTAINER_EXITED:
            return
        if container.task is not None:
            container.task.cancel()
            container.task = None
        container.status.state = pb.CONTAINER_EXITED
        container.status.exit_code = code
        container.status.reason = reason or ("Error" if code else "Completed")
        container.status.finished_at_ns = self.clock.now_ns()
        container.ended.set()
        sandbox = self.sandboxes.get(container.status.sandbox_id)
        if sandbox is not None:
            self._event(pb.Event.CONTAINER_CHANGED, sandbox, container)

    def _stop(self, sandbox: FakeSandbox, reason: str, message: str) -> None:
        if sandbox.status.state == pb.SANDBOX_NOT_READY:
            return
        sandbox.status.state = pb.SANDBOX_NOT_READY
        sandbox.status.reason = reason
        sandbox.status.message = message
        sandbox.status.ended_at_ns = self.clock.now_ns()
        for id_ in sandbox.container_ids:
            if self.containers[id_].status.state == pb.CONTAINER_RUNNING:
                self._ended(self.containers[id_], 137, "Error")
        self._event(pb.Event.SANDBOX_CHANGED, sandbox)

    def _event(
        self,
        kind: pb.Event.Kind.ValueType,
        sandbox: FakeSandbox,
        container: FakeContainer | None = None,
    ) -> None:
        self._seq += 1
        event = pb.Event(
            seq=self._seq,
            kind=kind,
            sandbox_id=sandbox.status.sandbox_id,
            container_id=container.status.container_id if container else "",
            pod_uid=sandbox.status.pod.uid,
            time_ns=self.clock.now_ns(),
        )
        self._events = [*self._events, event][-_KEPT_EVENTS:]
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _news_after(self, seq: int) -> None:
        if self._seq == seq and not self._away:
            await self._news.wait()
        self._check()
