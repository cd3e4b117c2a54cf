"""The agent with real microVMs: isolation, logs over kills, ends of every kind, nothing left."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import uuid
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import orjson
import pytest

from tests.integration.agent.conftest import Pod
from tests.integration.agent.test_restores import restored
from tests.support.real_agent import RealAgent
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.store import Store
from vk_provider.runtime.exec_sync import exec_sync
from vk_provider.runtime.grpc_client import AgentClient

pytestmark = pytest.mark.vm

FILLED_MIB = 60
COUNT = "i=0; while true; do echo $i; i=$((i+1)); usleep 10000; done"


def qemu_pid(agent: RealAgent, pod: Pod) -> int:
    store = Store.open(agent.state_dir / "agent.db")
    try:
        records = {r.id: r for r in store.sandboxes()}
    finally:
        store.close()
    pid: int = orjson.loads(records[pod.sandbox_id].vm)["pid"]
    return pid


def proc_status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_pods_are_vms_of_users_of_their_own(
    agent: RealAgent, client: AgentClient, pod: Pod
) -> None:
    other = Pod(client, agent, str(uuid.uuid4()))
    for each in (pod, other):
        await each.run()
        await each.start("uname -r; cat /proc/sys/kernel/random/boot_id; hostname")
        await each.exited()
    first, second = await pod.logs(), await other.logs()
    assert first.splitlines()[0] != os.uname().release
    assert first.splitlines()[1] != second.splitlines()[1]
    status = [proc_status(qemu_pid(agent, each)) for each in (pod, other)]
    users = [s["Uid"].split()[0] for s in status]
    assert "0" not in users
    assert users[0] != users[1]
    assert [s["Seccomp"] for s in status] == ["2", "2"]
    assert [s["NoNewPrivs"] for s in status] == ["1", "1"]


async def test_a_log_has_each_line_once_over_kills_of_the_agent(agent: RealAgent, pod: Pod) -> None:
    await pod.run()
    await pod.start(COUNT)
    for _ in range(3):
        async with aclosing(
            pod.client.read_logs(
                pb.ReadLogsRequest(container_id=pod.container_id(), follow=True, tail_lines=0)
            )
        ) as lines:
            async for _line in lines:
                break
        agent.kill(signal.SIGKILL)
        agent.start()
    await pod.client.stop_container(pod.container_id(), 0)
    numbers = [int(line) for line in (await pod.logs()).splitlines()]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 3


async def test_the_end_of_qemu_is_the_end_of_its_containers(agent: RealAgent, pod: Pod) -> None:
    await pod.run()
    await pod.start("echo said; sleep 1000")
    async with aclosing(
        pod.client.read_logs(pb.ReadLogsRequest(container_id=pod.container_id(), follow=True))
    ) as lines:
        assert await anext(lines) == b"said\n"
    os.kill(qemu_pid(agent, pod), signal.SIGKILL)
    status = await pod.exited()
    assert status.exit_code == 137
    assert "SIGKILL" in status.message
    assert await pod.logs() == "said\n"
    sandbox = (await pod.client.list_sandboxes(pod.sandbox_id)).sandboxes[0]
    assert (sandbox.state, sandbox.reason) == (pb.SANDBOX_NOT_READY, "VMExited")


async def test_too_much_memory_is_told_as_such(pod: Pod) -> None:
    await pod.run()
    await pod.start("tail /dev/zero", resources=pb.LinuxResources(memory_limit_bytes=24 << 20))
    assert (await pod.exited()).reason == "OOMKilled"


async def test_identity_and_rights_are_the_pods(pod: Pod) -> None:
    await pod.run()
    security = pb.SecurityContext(
        run_as_user=1234,
        run_as_group=5678,
        supplemental_groups=[9],
        readonly_rootfs=True,
        no_new_privileges=True,
        drop_capabilities=["ALL"],
    )
    script = "id -u; id -g; id -G; touch /x 2>&1; grep -E 'NoNewPrivs|CapBnd' /proc/self/status"
    await pod.start(script, security=security)
    assert (await pod.exited()).exit_code == 0
    text = await pod.logs()
    assert text.splitlines()[:3] == ["1234", "5678", "5678 9"]
    assert "Read-only file system" in text
    assert re.search(r"NoNewPrivs:\s+1", text)
    assert re.search(r"CapBnd:\s+0+$", text, re.MULTILINE)


async def test_volumes_are_shared_updated_and_bounded(pod: Pod) -> None:
    files = pb.Volume(name="f", files=pb.FilesVolume(files=[pb.File(path="k", data=b"one")]))
    await pod.run(volumes=[files, pb.Volume(name="s", scratch=pb.ScratchVolume())])
    mounts = [
        pb.Mount(volume="f", container_path="/f", read_only=True),
        pb.Mount(volume="s", container_path="/s"),
        pb.Mount(volume="s", container_path="/sub", sub_path="a/b"),
    ]
    await pod.start("sleep 1000", mounts=mounts)
    other = await pod.start("cat /f/k; touch /s/there; sleep 1000", name="other", mounts=mounts)
    files.files.files[0].data = b"two"
    await pod.client.update_volume(pod.sandbox_id, files)
    command = ["sh", "-c", "cat /f/k; ls -d /s/a/b; touch /sub/x && ls /s/a/b"]
    result = await exec_sync(pod.client, other, command, timeout_s=30)
    assert result.stdout == b"two/s/a/b\nx\n"


async def test_an_exec_carries_ten_mebibytes_there_and_back(pod: Pod) -> None:
    await pod.run()
    id_ = await pod.start("sleep 1000")
    data = os.urandom(1 << 20) * 10

    async def requests() -> object:
        start = pb.ExecStart(container_id=id_, command=["cat"], stdin=True, stdout=True)
        yield pb.ExecRequest(start=start)
        for at in range(0, len(data), 32768):
            yield pb.ExecRequest(stdin=data[at : at + 32768])
        yield pb.ExecRequest(stdin_eof=True)

    received = bytearray()
    async with aclosing(pod.client.exec(requests())) as answers:  # type: ignore[arg-type]
        async for answer in answers:
            received += answer.stdout
    assert bytes(received) == data


async def test_use_is_metered_as_it_is_used(pod: Pod) -> None:
    await pod.run()
    limits = pb.LinuxResources(cpu_quota_us=50_000, cpu_period_us=100_000)
    await pod.start("while true; do :; done", resources=limits)
    samples: list[pb.SandboxUsage] = []
    async with aclosing(pod.client.watch_usage()) as snapshots:
        async for snapshot in snapshots:
            used = [s for s in snapshot.sandboxes if s.sandbox_id == pod.sandbox_id]
            if used and used[0].containers and used[0].containers[0].counters.cpu_ns:
                samples.append(used[0])
            if len(samples) == 7:
                break
    first, last = samples[1], samples[-1]
    wall = last.time_ns - first.time_ns
    burnt = last.containers[0].counters.cpu_ns - first.containers[0].counters.cpu_ns
    # A share of a CPU and not of the time that a busy host takes: never more than the limit.
    assert 0 < burnt <= wall * 0.56
    assert last.vm_cpu_ns > first.vm_cpu_ns


@pytest.mark.parametrize("mode", ["template", "cold"])
async def test_memory_that_a_guest_frees_goes_back_to_the_host(
    agent: RealAgent, client: AgentClient, mode: str
) -> None:
    if mode == "template":
        pod, _ = await restored(client, agent)
    else:
        pod = Pod(client, agent, str(uuid.uuid4()))
        assert (await pod.run(size_override="1x448Mi")).start_mode == "cold"
    id_ = await pod.start("exec sleep 100000")
    before = await memory(pod, lambda used: used > 0)
    fill = (
        f"dd if=/dev/zero of=/dev/shm/x bs=1M count={FILLED_MIB} 2>/dev/null; sha256sum /dev/shm/x"
    )
    summed = await exec_sync(client, id_, ["sh", "-c", fill], timeout_s=60)
    assert summed.stdout.split()[0].decode() == hashlib.sha256(bytes(FILLED_MIB << 20)).hexdigest()
    full = await memory(pod, lambda used: used > before + (FILLED_MIB - 10 << 20))
    await exec_sync(client, id_, ["rm", "/dev/shm/x"], timeout_s=60)
    await memory(pod, lambda used: used < full - (FILLED_MIB - 10 << 20))
    # What has gone is whole again where it is used again, and what has stayed is as it was.
    again = await exec_sync(client, id_, ["sh", "-c", fill], timeout_s=60)
    assert again.stdout == summed.stdout


async def memory(pod: Pod, wanted: Callable[[int], bool]) -> int:
    """Return what the pod's VM holds of the host's memory, once it is as wanted."""
    last = 0
    try:
        async with (
            asyncio.timeout(60),
            aclosing(pod.client.watch_usage()) as snapshots,
        ):
            async for snapshot in snapshots:
                for used in snapshot.sandboxes:
                    if used.sandbox_id == pod.sandbox_id:
                        last = used.vm_memory_bytes
                        if wanted(last):
                            return last
    except TimeoutError:
        pass
    raise AssertionError(f"it held {last >> 20} MiB at last")


async def test_nothing_is_left_of_a_removed_pod(agent: RealAgent, pod: Pod) -> None:
    await pod.run()
    await pod.start("echo x; sleep 1000")
    pid = qemu_pid(agent, pod)
    await pod.client.remove_sandbox(pod.sandbox_id)
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(f"/run/netns/vk-{pod.sandbox_id}").exists()
    assert not list(agent.log_dir.iterdir())
    for parent in (agent.state_dir, agent.run_dir):
        assert not list(parent.glob(f"**/*{pod.sandbox_id}*"))
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{pod.sandbox_id}"))


async def test_secrets_are_on_no_disk_and_in_no_command_line(agent: RealAgent, pod: Pod) -> None:
    secret = b"kept-away-" + uuid.uuid4().hex.encode()
    volume = pb.Volume(name="v", files=pb.FilesVolume(files=[pb.File(path="k", data=secret)]))
    await pod.run(volumes=[volume])
    await pod.start("sleep 1000", env=[pb.EnvVar(name="S", value=secret.decode())])
    for path in agent.state_dir.rglob("*"):
        if path.is_file() and path.suffix not in (".erofs", ".img", ".mem"):
            assert secret not in path.read_bytes(), path
    assert secret not in agent.output.read_bytes()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert secret not in path.read_bytes()
        except OSError:
            continue


async def test_an_agent_holds_no_descriptor_of_pods_that_are_gone(
    agent: RealAgent, client: AgentClient
) -> None:
    await from_start_to_end(agent, client)  # may open what stays
    before = descriptors(agent)
    for _ in range(3):
        await from_start_to_end(agent, client)
    async with asyncio.timeout(30):  # connections are gone a moment after their ends
        while descriptors(agent) > before:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def from_start_to_end(agent: RealAgent, client: AgentClient) -> None:
    pod, _ = await restored(client, agent)
    await pod.start("echo x")
    await pod.exited()
    await client.remove_sandbox(pod.sandbox_id)


def descriptors(agent: RealAgent) -> int:
    return len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))
