"""A real guest without the agent: its VM, an image of busybox, and short ways to ask it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vk_provider._pb import guest_pb2 as pb
from vk_provider.agent.guest import GuestConnection
from vk_provider.agent.hypervisor import Hypervisor, Vm, VmSpec
from vk_provider.agent.hypervisor.vm import guest_addresses
from vk_provider.common.errors import Unavailable

if TYPE_CHECKING:
    # The generated stubs alone know it.
    from vk_provider._pb.guest_pb2_grpc import GuestServiceAsyncStub

IMAGE_KEY = "busybox"
_APPLETS = (
    "cat dd df echo false head hostname id ls mkdir nc ps seq sh sleep stty touch true tty yes"
)
_CAPABILITIES = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"]
_CALL_S = 30


async def command(*words: str | Path) -> None:
    """Run a program that must succeed."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words), stdout=asyncio.subprocess.DEVNULL
    )
    assert await process.wait() == 0, words


async def make_disks(folder: Path) -> tuple[Path, Path]:
    """Make an erofs image of busybox and an empty scratch disk."""
    root, image, scratch = folder / "root", folder / "image", folder / "scratch"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (root / name).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for name in _APPLETS.split():
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    await command("mkfs.erofs", "--quiet", image, root)
    scratch.touch()
    os.truncate(scratch, 256 << 20)
    await command("mkfs.ext4", "-q", "-O", "^has_journal", scratch)
    return image, scratch


async def read(call: Any) -> Any:
    """Return a stream's next message; grpc.aio types it as an object or its own EOF."""
    return await call.read()


def bind(source: str, destination: str, *options: str) -> dict[str, Any]:
    """Return a bind mount of an OCI spec."""
    return {
        "destination": destination,
        "type": "bind",
        "source": source,
        "options": ["rbind", *options],
    }


def process(args: Sequence[str], *, tty: bool = False, uid: int = 0) -> dict[str, Any]:
    """Return an OCI process object."""
    return {
        "terminal": tty,
        "user": {"uid": uid, "gid": uid},
        "args": list(args),
        "env": ["PATH=/bin"],
        "cwd": "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
        "oomScoreAdj": 1000,
    }


def spec(
    container_id: str,
    args: Sequence[str],
    *,
    tty: bool = False,
    mounts: Sequence[dict[str, Any]] = (),
    memory: int = -1,
    seccomp: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a small OCI spec with the namespaces that guest.proto prescribes."""
    linux: dict[str, Any] = {
        "cgroupsPath": f"/pod/{container_id}",
        "namespaces": [
            {"type": "pid"},
            {"type": "mount"},
            {"type": "ipc", "path": "/run/vk/sandbox/ns/ipc"},
            {"type": "uts", "path": "/run/vk/sandbox/ns/uts"},
            {"type": "cgroup"},
        ],
        "resources": {
            "memory": {"limit": memory, "swap": memory},
            "unified": {"memory.oom.group": "1"},
        },
    }
    if seccomp is not None:
        linux["seccomp"] = seccomp
    system = [("/proc", "proc"), ("/dev", "tmpfs"), ("/sys", "sysfs"), ("/dev/pts", "devpts")]
    return {
        "ociVersion": "1.0.2",
        "process": process(args, tty=tty),
        "root": {"path": f"/run/vk/containers/{container_id}/rootfs"},
        "mounts": [
            *({"destination": at, "type": kind, "source": kind} for at, kind in system),
            *mounts,
        ],
        "linux": linux,
    }


class GuestBed:
    """A configured guest with its disks mounted."""

    def __init__(self, vm: Vm, run_dir: Path) -> None:
        self.vm = vm
        self.control_address, self._bulk_address = guest_addresses(run_dir)
        self.control: GuestServiceAsyncStub = vm.guest.control
        self.bulk: GuestServiceAsyncStub = vm.guest.bulk

    async def reconnect(self) -> None:
        """Drop the connection and make another."""
        await self.vm.guest.close()
        # The next host is a new process and never comes sooner than one starts; a successor within
        # microseconds is one and the same host to the guest's port.
        successor = await asyncio.create_subprocess_exec(sys.executable, "-c", "import grpc.aio")
        await successor.wait()
        self.vm.guest = GuestConnection(self.control_address, self._bulk_address)
        self.control, self.bulk = self.vm.guest.control, self.vm.guest.bulk
        while True:
            # A guest that was left in the middle of a frame may take one try to find the next.
            with suppress(Unavailable):
                await self.vm.guest.hello(_CALL_S)
                return

    async def create(self, container_id: str, spec: dict[str, Any], **fields: Any) -> None:
        """Make a container; `fields` are CreateContainerRequest's others."""
        request = pb.CreateContainerRequest(
            container_id=container_id, oci_spec_json=json.dumps(spec), image_key=IMAGE_KEY, **fields
        )
        await self.control.CreateContainer(request, timeout=_CALL_S)

    async def start(self, container_id: str) -> pb.StartContainerResponse:
        """Start a container."""
        request = pb.StartContainerRequest(container_id=container_id)
        return await self.control.StartContainer(request, timeout=_CALL_S)

    async def run(self, container_id: str, *args: str, **fields: Any) -> pb.StartContainerResponse:
        """Make and start a container with a plain spec."""
        await self.create(container_id, spec(container_id, args), **fields)
        return await self.start(container_id)

    async def wait(self, container_id: str) -> pb.ContainerInfo:
        """Return a container's last state, once it has exited."""
        call = self.control.Events(pb.EventsRequest(), timeout=_CALL_S)
        async for event in call:
            container = event.container
            if container.container_id == container_id and container.state == pb.EXITED:
                call.cancel()
                return container
        raise AssertionError(f"the events ended before {container_id} did")

    async def output(self, container_id: str, acked: int = 0) -> list[pb.OutputRecord]:
        """Take all of a container's output, acknowledging each record; the first one resumes."""
        call = self.bulk.Output(timeout=_CALL_S)
        await call.write(pb.OutputAck(container_id=container_id, acked_seq=acked))
        records: list[pb.OutputRecord] = []
        async for record in call:
            records.append(record)
            if not record.HasField("resume"):
                await call.write(pb.OutputAck(acked_seq=record.seq, cookie=b"%d" % record.seq))
        return records

    async def text(self, container_id: str) -> bytes:
        """Return what a container wrote."""
        return b"".join(record.data for record in await self.output(container_id))

    async def exec(
        self, container_id: str, *args: str, stdin: bytes | None = None, tty: bool = False
    ) -> tuple[bytes, bytes, pb.ExecExit]:
        """Run an exec; return its stdout, its stderr and how it ended."""
        call = self.bulk.Exec(timeout=_CALL_S)
        start = pb.ExecStart(
            container_id=container_id,
            args=args,
            stdin=stdin is not None,
            tty=tty,
        )
        await call.write(pb.ExecInput(start=start))

        async def feed() -> None:
            for at in range(0, len(stdin or b""), 65536):
                await call.write(pb.ExecInput(stdin=(stdin or b"")[at : at + 65536]))
            if not tty:
                await call.write(pb.ExecInput(stdin_eof=True))

        out, err, end = bytearray(), bytearray(), pb.ExecExit(code=-1)
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(feed(), name="exec's stdin")
            async for answer in call:
                out += answer.stdout
                err += answer.stderr
                if answer.HasField("exit"):
                    end = answer.exit
            feeding.cancel()
        return bytes(out), bytes(err), end


@asynccontextmanager
async def guest_bed(hypervisor: Hypervisor, order: VmSpec, folder: Path) -> AsyncIterator[GuestBed]:
    """Start a VM, configure its guest, mount its disks."""
    image, scratch = await make_disks(folder)
    vm = await hypervisor.start(order, lambda _: None)
    try:
        bed = GuestBed(vm, order.run_dir)
        identity = pb.ConfigureRequest(
            sandbox_id=order.sandbox_id,
            hostname="pod",
            resolv_conf="nameserver 10.0.0.10\n",
            clock_ns=time.time_ns(),
            entropy=os.urandom(64),
            machine_id=order.sandbox_id,
        )
        await bed.control.Configure(identity, timeout=_CALL_S)
        await vm.attach_disk(0, scratch, read_only=False)
        await vm.attach_disk(1, image, read_only=True)
        for mount in (
            pb.MountDiskRequest(lun=0, scratch=True),
            pb.MountDiskRequest(lun=1, image_key=IMAGE_KEY),
        ):
            await bed.control.MountDisk(mount, timeout=_CALL_S)
        yield bed
    finally:
        await vm.kill()
