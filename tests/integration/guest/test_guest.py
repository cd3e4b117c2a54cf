"""The guest agent in a real microVM, asked as the agent on the host asks it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from tests.support.guest_bed import GuestBed, bind, guest_bed, process, read, spec
from vk_provider._pb import guest_pb2 as pb
from vk_provider.agent.hypervisor import GuestImage, Hypervisor, HypervisorSettings, VmSpec

UNACKNOWLEDGED_BYTES = 1 << 20

pytestmark = [pytest.mark.vm, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GuestBed]:
    """One guest for all tests: each takes container ids of its own."""
    folder = tmp_path_factory.mktemp("guest")
    run_dir = Path(tempfile.mkdtemp(prefix="vkg", dir="/run"))
    image = GuestImage.load(Path(os.environ["VK_GUEST_IMAGE"]))
    settings = HypervisorSettings(state_dir=folder / "state", run_dir=run_dir / "own")
    hypervisor = Hypervisor(settings, image)
    await hypervisor.open()
    vm_dir = run_dir / "vm"
    vm_dir.mkdir()
    order = VmSpec(
        sandbox_id="0123456789abcdef" * 2,
        vcpus=1,
        memory_mib=256,
        cpu_milli=1000,
        uid=2_190_000,
        netns=None,
        tap_fd=None,
        run_dir=vm_dir,
        allow_template=False,
    )
    async with guest_bed(hypervisor, order, folder) as made:
        yield made
    await hypervisor.close()
    shutil.rmtree(run_dir)


# First: grpcio keeps the socket of a channel that was closed for as long as anybody refers to one
# of its calls, as later tests do; a host that goes is a process that ends, which closes all.
async def test_the_host_may_go_and_come_back(bed: GuestBed) -> None:
    await bed.run("stays", "sleep", "1000")
    await bed.reconnect()
    # What a host left that died in the middle of its first words is dropped.
    await bed.vm.guest.close()
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(bed.control_address.removeprefix("unix:"))
        raw.send(b"PRI * HTTP/2.0\r\n\r\nSM")
    await bed.reconnect()
    found = (await bed.control.ListContainers(pb.ListContainersRequest())).containers
    assert next(c for c in found if c.container_id == "stays").state == pb.RUNNING
    assert (await bed.exec("stays", "echo", "here"))[0] == b"here\n"


async def test_a_container_runs_and_its_output_is_kept_in_order(bed: GuestBed) -> None:
    await bed.run("plain", "sh", "-c", "echo out; echo err >&2; cat /proc/self/cgroup; exit 3")
    records = await bed.output("plain")
    assert records[0].HasField("resume")
    assert [r.seq for r in records[1:]] == list(range(1, len(records)))
    assert records[-1].eof
    assert b"".join(r.data for r in records if not r.stderr) == b"out\n0::/\n"
    assert b"".join(r.data for r in records if r.stderr) == b"err\n"
    ended = await bed.wait("plain")
    assert (ended.exit_code, ended.signal, ended.oom_killed) == (3, 0, False)


async def test_output_waits_for_the_host_and_resumes_where_it_was(bed: GuestBed) -> None:
    await bed.run("flood", "seq", "1", "300000")
    call = bed.bulk.Output()
    await call.write(pb.OutputAck(container_id="flood"))
    taken = [await read(call) for _ in range(30)]
    await call.write(pb.OutputAck(acked_seq=20, cookie=b"twenty"))
    # The guest holds no more than that unacknowledged: what is beyond it says that the
    # acknowledgement was taken.
    while sum(len(record.data) for record in taken) <= UNACKNOWLEDGED_BYTES:
        taken.append(await read(call))
    call.cancel()
    records = await bed.output("flood")
    assert records[0].resume == pb.OutputResume(acked_seq=20, cookie=b"twenty")
    text = b"".join(r.data for r in taken if 0 < r.seq <= 20) + b"".join(r.data for r in records)
    assert text == b"".join(b"%d\n" % n for n in range(1, 300_001))


@pytest.mark.parametrize(
    ("program", "code", "why"),
    [
        ("foo", 127, 'exec: "foo": executable file not found in $PATH'),
        ("/none", 127, 'exec: "/none": stat /none: no such file or directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
    ],
)
async def test_a_program_that_cannot_run_is_an_answer(
    bed: GuestBed, program: str, code: int, why: str
) -> None:
    container_id = f"bad{program.replace('/', '-')}"
    answer = await bed.run(container_id, program)
    assert (answer.error, answer.error_exit_code) == (why, code)
    assert (await bed.wait(container_id)).exit_code == code
    assert (await bed.output(container_id))[-1].eof
    await bed.run(f"{container_id}-exec", "sleep", "1000")
    out, err, end = await bed.exec(f"{container_id}-exec", program)
    assert (out, err, end) == (b"", b"", pb.ExecExit(code=code, error=why))


async def test_exec_carries_bytes_both_ways_and_its_exit_code(bed: GuestBed) -> None:
    await bed.run("execs", "sleep", "1000")
    data = os.urandom(10 << 20)
    out, err, end = await bed.exec("execs", "cat", stdin=data)
    assert out == data
    assert (err, end.code) == (b"", 0)
    out, err, end = await bed.exec("execs", "sh", "-c", "echo o; echo e >&2; exit 7")
    assert (out, err, end.code) == (b"o\n", b"e\n", 7)
    out, _, end = await bed.exec("execs", "sh", "-c", "tty; kill -9 $$", tty=True)
    assert (out, end.code) == (b"/dev/pts/0\r\n", 137)
    # The container's own environment, and a terminal's kind where there is one.
    say = ("sh", "-c", 'echo "$PATH $TERM"')
    assert (await bed.exec("execs", *say))[0] == b"/bin \n"
    assert (await bed.exec("execs", *say, tty=True))[0] == b"/bin xterm\r\n"
    # SIGPIPE has its default action, and a child that keeps stdout open holds nothing up.
    out, _, end = await bed.exec("execs", "sh", "-c", "yes | head -1; sleep 1000 &")
    assert (out, end.code) == (b"y\n", 0)


async def test_bytes_that_go_both_ways_at_once_never_stand_still(bed: GuestBed) -> None:
    # A wake-up that the guest's port loses is one in many thousands; all that follows it waits.
    await bed.run("streams", "sleep", "1000")
    data = os.urandom(10 << 20)
    for _ in range(6):
        assert (await bed.exec("streams", "cat", stdin=data))[0] == data


async def test_an_exec_ends_with_its_caller(bed: GuestBed) -> None:
    await bed.run("left", "sleep", "1000")
    call = bed.bulk.Exec()
    start = pb.ExecStart(container_id="left", process_json=json.dumps(process(["sleep", "77"])))
    await call.write(pb.ExecInput(start=start))
    assert (await read(call)).started
    call.cancel()
    out, _, _ = await bed.exec("left", "ps")
    while b"sleep 77" in out:
        out, _, _ = await bed.exec("left", "ps")


async def test_an_exec_that_is_given_up_while_it_starts_leaves_nothing(bed: GuestBed) -> None:
    await bed.run("early", "sleep", "1000")
    start = pb.ExecStart(container_id="early", process_json=json.dumps(process(["sleep", "78"])))
    for n in range(12):
        call = bed.bulk.Exec()
        await call.write(pb.ExecInput(start=start))
        await asyncio.sleep(0.02 * n)
        call.cancel()
    for _ in range(5):  # begun after the last of them, and so launched after it
        out, _, _ = await bed.exec("early", "ps")
    while b"sleep 78" in out:
        out, _, _ = await bed.exec("early", "ps")


async def test_signals_and_memory_limits_end_containers(bed: GuestBed) -> None:
    await bed.run("killed", "sleep", "1000")
    await bed.control.SignalContainer(pb.SignalContainerRequest(container_id="killed", signal=9))
    ended = await bed.wait("killed")
    assert (ended.exit_code, ended.signal, ended.oom_killed) == (137, 9, False)
    grow = "x=a; while true; do x=$x$x; done"
    await bed.create("oom", spec("oom", ["sh", "-c", grow], memory=32 << 20))
    await bed.start("oom")
    ended = await bed.wait("oom")
    assert (ended.exit_code, ended.oom_killed) == (137, True)
    for container_id in ("killed", "oom", "killed"):
        request = pb.RemoveContainerRequest(container_id=container_id)
        await bed.control.RemoveContainer(request, timeout=20)
    left = (await bed.control.ListContainers(pb.ListContainersRequest())).containers
    assert not {"killed", "oom"} & {c.container_id for c in left}


async def test_volumes_are_the_kubelets(bed: GuestBed) -> None:
    def files(**contents: str) -> pb.FilesVolume:
        made = [pb.File(path=p, data=d.encode(), mode=0o400) for p, d in contents.items()]
        return pb.FilesVolume(files=made)

    put = bed.control.PutVolume
    await put(pb.PutVolumeRequest(name="files", files=files(a="1", b="2"), fs_group=2000))
    await put(pb.PutVolumeRequest(name="space", scratch=pb.ScratchVolume(), fs_group=2000))
    mounts = [
        bind("/run/vk/volumes/files", "/files", "ro"),
        bind("/run/vk/volumes/space", "/space"),
        bind("/run/vk/containers/vols/subpaths/0", "/sub"),
        bind("/run/vk/containers/vols/termination-log", "/log"),
    ]
    script = (
        "read x; cat /files/a; ls /files; touch /sub/x /space/y; ls /space/deep; "
        "yes 0123456 | head -1000 > /log"
    )
    await bed.create(
        "vols",
        spec("vols", ["sh", "-c", script], mounts=mounts),
        sub_paths=[pb.SubPath(volume="space", path="deep")],
        termination_message_path="/log",
        stdin=True,
    )
    await bed.start("vols")
    await put(pb.PutVolumeRequest(name="files", files=files(a="3"), fs_group=2000))
    attach = bed.bulk.Attach()
    await attach.write(pb.AttachInput(container_id="vols"))
    assert (await read(attach)).started
    await attach.write(pb.AttachInput(stdin=b"\n"))
    assert await bed.text("vols") == b"3a\nx\n"
    assert (await bed.wait("vols")).termination_message == b"0123456\n" * 512
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await put(pb.PutVolumeRequest(name="bad", files=files(**{"../a": ""})))
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_attach_has_stdin_once_and_a_terminal_its_size(bed: GuestBed) -> None:
    script = ["sh", "-c", "cat; echo end"]
    await bed.create("once", spec("once", script), stdin=True, stdin_once=True)
    call = bed.bulk.Attach()
    await call.write(pb.AttachInput(container_id="once"))
    await bed.start("once")
    assert (await read(call)).started
    await call.write(pb.AttachInput(stdin=b"one\n"))
    assert (await read(call)).stdout == b"one\n"
    await call.write(pb.AttachInput(stdin_eof=True))
    assert (await read(call)).stdout == b"end\n"
    assert await read(call) is grpc.aio.EOF

    await bed.create("tty", spec("tty", ["sh"], tty=True), stdin=True, tty=True)
    await bed.start("tty")
    call = bed.bulk.Attach()
    await call.write(pb.AttachInput(container_id="tty"))
    await call.write(pb.AttachInput(resize=pb.TerminalSize(width=77, height=22)))
    await call.write(pb.AttachInput(stdin=b"stty size; exit\n"))
    shown = b"".join([answer.stdout async for answer in call])
    assert b"22 77\r\n" in shown
    assert shown in await bed.text("tty")


async def test_seccomp_profiles_hold(bed: GuestBed) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    script = ["sh", "-c", "mkdir /tmp/x; cat /proc/self/status"]
    await bed.create("seccomp", spec("seccomp", script, seccomp=profile))
    await bed.start("seccomp")
    text = await bed.text("seccomp")
    assert b"Operation not permitted" in text
    assert b"Seccomp:\t2" in text


async def test_figures_and_port_forwards(bed: GuestBed) -> None:
    await bed.run("serves", "sh", "-c", "echo pong | nc -l -p 8080; sleep 1000")
    answer = b""
    while not answer:
        call = bed.bulk.PortForward()
        await call.write(pb.PortForwardInput(port=8080))
        try:
            answer = b"".join([got.data async for got in call])
        except grpc.aio.AioRpcError as exc:
            # Until the program listens.
            assert exc.code() == grpc.StatusCode.UNAVAILABLE
    assert answer == b"pong\n"
    stats = bed.control.TakeStats()
    await stats.write(pb.TakeStatsRequest())
    sample = await read(stats)
    stats.cancel()
    assert isinstance(sample, pb.Stats)
    own = next(c for c in sample.containers if c.container_id == "serves")
    assert 0 < own.cgroup.cpu_usec <= sample.pod.cpu_usec
    assert sample.filesystems[0].capacity_bytes > 200 << 20
