"""The records of the fake runtime: what a sandbox, a container and its program are."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import VkError


@dataclass(frozen=True, slots=True)
class Executed:
    """What a command run by exec does."""

    code: int = 0
    stdout: bytes = b""
    stderr: bytes = b""
    run_s: float = 0


@dataclass(frozen=True, slots=True)
class Program:
    """What a container does once it is started.

    `run_s` None: until it is stopped. `term_code` None: it ignores its stop signal. `execs` are
    the commands it knows; any other is not found.
    """

    run_s: float | None = None
    exit_code: int = 0
    term_code: int | None = 0
    output: bytes = b""
    start_error: str = ""
    execs: Mapping[tuple[str, ...], Executed] = field(default_factory=dict)


@dataclass(slots=True)
class FakeImage:
    """What a registry holds under a name: its content, or the error that a pull ends in."""

    image_ref: str = "sha256:" + "1" * 64
    size_bytes: int = 1_000_000
    user: str = ""
    uid: int | None = None
    error: VkError | None = None


@dataclass(slots=True)
class Scripted:
    """What a test has laid down for the next calls of one name."""

    errors: list[VkError] = field(default_factory=list)
    gate: asyncio.Event | None = None


@dataclass(slots=True)
class FakeSandbox:
    """A sandbox; its status carries no containers, those are found by id."""

    request: pb.RunSandboxRequest
    status: pb.SandboxStatus
    container_ids: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, request: pb.RunSandboxRequest, now_ns: int) -> FakeSandbox:
        """Return the record of a sandbox about to start."""
        status = pb.SandboxStatus(
            sandbox_id=request.sandbox_id,
            pod=request.pod,
            attempt=request.attempt,
            state=pb.SANDBOX_STARTING,
            created_at_ns=now_ns,
            shape=pb.Shape(cpu_milli=1000, memory_bytes=1 << 30, vcpus=1, reason="fake"),
            start_mode="cold",
            annotations=request.annotations,
        )
        return cls(request, status)


@dataclass(slots=True)
class FakeContainer:
    """A container's one run."""

    config: pb.ContainerConfig
    status: pb.ContainerStatus
    program: Program
    log: list[tuple[int, bytes]] = field(default_factory=list)
    stops: list[tuple[int, str]] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    made: bool = True
    """False: the runtime ended while it was created, and knows of it no more than its record."""

    @classmethod
    def of(cls, request: pb.CreateContainerRequest, program: Program, now_ns: int) -> FakeContainer:
        """Return the record of a container just created."""
        config = request.config
        status = pb.ContainerStatus(
            container_id=config.container_id,
            sandbox_id=request.sandbox_id,
            name=config.name,
            attempt=config.attempt,
            state=pb.CONTAINER_CREATED,
            image=config.image,
            image_ref=config.image_ref,
            image_digest=f"{config.image}@{config.image_ref}",
            created_at_ns=now_ns,
            annotations=config.annotations,
            resources=config.resources,
        )
        return cls(config, status, program)

    def copy(self) -> pb.ContainerStatus:
        """Return the status as of now, for the caller to keep."""
        status = pb.ContainerStatus()
        status.CopyFrom(self.status)
        return status
