"""The chain of programs before QEMU, sockets, and what is told of the host."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vk_provider.agent.hypervisor import GuestImage, VmRecord, VmSpec
from vk_provider.agent.hypervisor.accelerator import decide_accelerator, kvm_access
from vk_provider.agent.hypervisor.launch import launch_arguments, listen
from vk_provider.agent.hypervisor.tsc import frequency_khz
from vk_provider.common.errors import DeadlineExceeded, Internal, Invalid


def test_privileges_go_before_qemu_runs() -> None:
    arguments = launch_arguments(
        ["qemu", "-S"], procs_files=[Path("/cg/a"), Path("/cg/b")], netns="vk-1", uid=2_000_001
    )
    assert arguments[3:7] == ["sh", "2", "/cg/a", "/cg/b"]
    rest = arguments[7:]
    assert rest[:3] == ["prlimit", "--core=1:1", "--"]
    assert rest[3:6] == ["nsenter", "--net=/run/netns/vk-1", "--"]
    assert {"--reuid=2000001", "--regid=2000001", "--clear-groups", "--no-new-privs"} <= set(rest)
    assert rest[-2:] == ["qemu", "-S"]


def test_small_pages_are_what_children_get() -> None:
    program = (
        "import subprocess; from vk_provider.agent.hypervisor.launch import use_small_pages; "
        "use_small_pages(); subprocess.run(['cat', '/proc/self/status'], check=True)"
    )
    said = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert b"THP_enabled:\t0" in said.stdout


def test_a_vm_without_a_namespace_stays_in_the_hosts() -> None:
    arguments = launch_arguments(["qemu"], procs_files=[], netns=None, uid=5, groups=[108])
    assert "nsenter" not in arguments
    assert "--groups=108" in arguments


def test_a_socket_is_roots_alone_and_replaces_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "s"
    listen(path).close()
    with listen(path):
        assert path.stat().st_mode & 0o777 == 0o600


def test_a_path_too_long_for_a_socket_is_told(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="shorter run directory"):
        listen(tmp_path / ("x" * 110))


@pytest.mark.parametrize(
    ("mode", "gid", "usable", "groups"),
    [
        (None, 0, False, ()),
        (0o666, 0, True, ()),
        (0o660, 108, True, (108,)),
        (0o660, 0, False, ()),
        (0o600, 108, False, ()),
    ],
)
def test_kvm_is_for_an_unprivileged_qemu(
    mode: int | None, gid: int, usable: bool, groups: tuple[int, ...]
) -> None:
    access = kvm_access(mode, gid)
    assert (access.usable, access.groups) == (usable, groups)
    assert access.reason


class Probe:
    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.calls = 0

    async def __call__(self) -> None:
        self.calls += 1
        if self.error:
            raise self.error


@pytest.mark.parametrize(
    ("error", "name"), [(None, "kvm"), (DeadlineExceeded("its kernel never came up"), "tcg")]
)
async def test_a_probe_decides_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None, name: str
) -> None:
    where = "vk_provider.agent.hypervisor.accelerator.host_kvm_access"
    monkeypatch.setattr(where, lambda: kvm_access(0o666, 0))
    probe, cache = Probe(error), tmp_path / "accelerator.json"
    first = await decide_accelerator(cache, "7.2.22", "key", probe)
    again = await decide_accelerator(cache, "7.2.22", "key", probe)
    assert first == again
    assert (first.name, probe.calls) == (name, 1)
    await decide_accelerator(cache, "8.0.0", "key", probe)
    cache.write_text("torn")
    await decide_accelerator(cache, "8.0.0", "key", probe)
    assert probe.calls == 3


def test_the_frequency_is_ticks_over_time() -> None:
    assert frequency_khz((1000, 0), (1000 + 2_596_130 * 200, 200_000_000)) == 2_596_130


def spec(**changes: int) -> VmSpec:
    values = {"vcpus": 1, "memory_mib": 512, "cpu_milli": 250, "uid": 2_000_000} | changes
    return VmSpec(
        sandbox_id="a" * 32,
        netns=None,
        tap_fd=None,
        run_dir=Path("/run/x"),
        vcpus=values["vcpus"],
        memory_mib=values["memory_mib"],
        cpu_milli=values["cpu_milli"],
        uid=values["uid"],
    )


def test_a_vm_has_more_memory_than_its_shape() -> None:
    assert spec().ram_mib > 512


@pytest.mark.parametrize("bad", [{"vcpus": 0}, {"memory_mib": 1}, {"cpu_milli": 0}, {"uid": 0}])
def test_impossible_vms_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(Invalid):
        spec(**bad)


RECORD = VmRecord("a" * 32, 7, 99, "/run/x", 2_000_000, "a" * 32, "cold", "why", 1, 512, 250)


def test_a_record_outlives_the_agent_and_newer_ones() -> None:
    assert VmRecord.from_json(RECORD.to_json()) == RECORD
    newer = json.dumps(json.loads(RECORD.to_json()) | {"colour": "blue"})
    assert VmRecord.from_json(newer) == RECORD


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_a_damaged_record_is_told(text: str) -> None:
    with pytest.raises(Internal, match="record of a VM"):
        VmRecord.from_json(text)


def test_a_guest_image_is_found_by_its_manifest(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="hack/guest-image"):
        GuestImage.load(tmp_path)
    (tmp_path / "manifest.json").write_text('{"key": "k", "kernel_release": "6.1"}')
    with pytest.raises(Invalid, match="no complete guest image"):
        GuestImage.load(tmp_path)
    (tmp_path / "vmlinux").write_text("")
    (tmp_path / "initramfs.cpio").write_text("")
    assert GuestImage.load(tmp_path).key == "k"
    (tmp_path / "vmlinux").chmod(0o600)
    with pytest.raises(Invalid, match=r"chmod o\+r"):
        GuestImage.load(tmp_path)
