from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_stub import Answer, api_stub, status, write_kubeconfig
from tests.support.fake_clock import FakeClock
from vk_provider.cli.checks import host
from vk_provider.cli.checks.cluster import check_cluster, node_rights
from vk_provider.cli.checks.model import Finding, Verdict
from vk_provider.kube.client import KubeClient

REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def test_a_missing_tool_names_its_package() -> None:
    findings = list(host.check_tools(lambda tool: None if tool == "skopeo" else f"/x/{tool}"))
    (bad,) = [f for f in findings if f.verdict is not Verdict.OK]
    assert (bad.what, bad.verdict, bad.mend) == (
        "skopeo",
        Verdict.FAILED,
        "apt-get install skopeo",
    )


def test_plugins_may_be_in_any_folder(tmp_path: Path) -> None:
    for folder, names in (("a", ["bridge", "loopback"]), ("b", ["host-local", "portmap"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    both = [tmp_path / "a", tmp_path / "b"]
    assert host.check_plugins(both).verdict is Verdict.OK
    assert "host-local, portmap not in" in host.check_plugins(both[:1]).found


def test_a_kernel_that_refuses_is_quoted() -> None:
    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 2, "", "Operation not supported\n")

    finding = host.check_links(run)
    assert (finding.verdict, finding.found) == (Verdict.FAILED, "Operation not supported")


def test_forwarding_off_is_said(tmp_path: Path) -> None:
    (tmp_path / "net/ipv4").mkdir(parents=True)
    (tmp_path / "net/ipv4/ip_forward").write_text("0\n")
    assert host.check_forwarding(tmp_path).verdict is Verdict.DOUBTFUL
    (tmp_path / "net/ipv4/ip_forward").write_text("1\n")
    assert host.check_forwarding(tmp_path).verdict is Verdict.OK


def test_a_disk_is_judged_where_the_folder_will_be(tmp_path: Path) -> None:
    assert str(tmp_path) in host.check_disk("d", tmp_path / "not/there", 1).found
    assert host.check_disk("d", tmp_path, 1 << 60).verdict is Verdict.DOUBTFUL


def test_memory_is_read_from_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable: 4194304 kB\n")
    assert host.check_memory(tmp_path / "meminfo").found == "4.0 GiB available"
    (tmp_path / "meminfo").write_text("nonsense")
    assert host.check_memory(tmp_path / "meminfo").verdict is Verdict.DOUBTFUL


def test_swap_in_clear_is_said(tmp_path: Path) -> None:
    swaps, swap, sys = tmp_path / "swaps", tmp_path / "swapfile", tmp_path / "sys"
    head = "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    swaps.write_text(head)
    assert host.check_swap(swaps, sys).verdict is Verdict.OK
    swap.touch()
    swaps.write_text(f"{head}{swap}\t\tfile\t\t1048572\t\t0\t\t-2\n")
    assert host.check_swap(swaps, sys).verdict is Verdict.DOUBTFUL
    assert str(swap) in host.check_swap(swaps, sys).found
    # A volume group on an encrypted disk.
    number = swap.stat().st_dev
    volume = sys / f"dev/block/{os.major(number)}:{os.minor(number)}"
    lower = sys / "block/dm-0"
    for device, uuid in ((volume, "LVM-x"), (lower, "CRYPT-LUKS2-x")):
        (device / "dm").mkdir(parents=True)
        (device / "dm/uuid").write_text(uuid)
    (volume / "slaves").mkdir()
    (volume / "slaves/dm-0").symlink_to(lower)
    assert host.check_swap(swaps, sys).verdict is Verdict.OK


def test_a_port_in_use_is_found() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert host.check_port("p", "127.0.0.1", port).verdict is Verdict.DOUBTFUL
    assert host.check_port("p", "127.0.0.1", port).verdict is Verdict.OK


async def look(
    tmp_path: Path, date: str, *reviews: Any, user: str = "system:node:n"
) -> dict[str, Finding]:
    clock = FakeClock()  # 2023-11-14T22:13:20Z
    async with api_stub() as api:
        api.on("GET", "/version", Answer({"gitVersion": "v1.37.2"}, headers={"Date": date}))
        review = {"status": {"userInfo": {"username": user}}}
        api.on("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", review)
        api.on("POST", REVIEWS, *reviews)
        path = write_kubeconfig(tmp_path / "kubeconfig", api.url)
        client = await KubeClient.from_kubeconfig(path, user_agent="test", clock=clock)
        findings = [f async for f in check_cluster(client, clock, node_rights("n"))]
        await client.close()
    return {f.what: f for f in findings}


async def test_a_good_cluster_is_well(tmp_path: Path) -> None:
    findings = await look(tmp_path, "Tue, 14 Nov 2023 22:13:19 GMT", {"status": {"allowed": True}})
    assert {f.verdict for f in findings.values()} == {Verdict.OK}
    assert findings["identity"].found == "system:node:n"


async def test_missing_rights_and_a_wrong_clock_are_said(tmp_path: Path) -> None:
    findings = await look(tmp_path, "Tue, 14 Nov 2023 22:03:20 GMT", {"status": {}})
    assert findings["clock"].verdict is Verdict.FAILED
    assert "+600 s" in findings["clock"].found
    assert findings["rights there"].verdict is Verdict.FAILED
    assert "patch nodes/status" in findings["rights there"].found


async def test_what_a_node_gets_by_its_pods_is_asked_of_others_alone(tmp_path: Path) -> None:
    date = "Tue, 14 Nov 2023 22:13:19 GMT"
    refused: dict[str, Any] = {"status": {}}
    by_pods = ("get configmaps", "watch secrets", "create serviceaccounts/token")
    node = await look(tmp_path, date, refused)
    assert not any(right in node["rights there"].found for right in by_pods)
    other = await look(tmp_path, date, refused, user="system:serviceaccount:default:vk")
    assert all(right in other["rights there"].found for right in by_pods)


async def test_a_cluster_out_of_reach_ends_the_look(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "kubeconfig", "http://127.0.0.1:1")
    client = await KubeClient.from_kubeconfig(path, user_agent="test")
    (finding,) = [f async for f in check_cluster(client, FakeClock(), ())]
    await client.close()
    assert finding.verdict is Verdict.FAILED


@pytest.mark.parametrize("code", [401, 503])
async def test_a_server_that_refuses_all_is_told(tmp_path: Path, code: int) -> None:
    async with api_stub() as api:
        api.on("GET", "/version", status(code, "X", "go away"))
        path = write_kubeconfig(tmp_path / "kubeconfig", api.url)
        client = await KubeClient.from_kubeconfig(path, user_agent="test")
        (finding,) = [f async for f in check_cluster(client, FakeClock(), ())]
        await client.close()
    assert "go away" in finding.found
