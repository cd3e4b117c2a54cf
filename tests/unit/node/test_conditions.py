from __future__ import annotations

from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.node.conditions import make_conditions, same_conditions

T0 = 1_700_000_000_000_000_000
T1 = T0 + 60_000_000_000


def by_type(conditions: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in conditions}


def test_a_calm_host_is_ready_and_ready_comes_last() -> None:
    conditions, transitions = make_conditions(pb.HostInfo(network_ready=True), "", (), T0)
    assert by_type(conditions) == {
        "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID"),
        "Ready": ("True", "KubeletReady"),
    }
    assert conditions[-1]["type"] == "Ready"
    assert [t.reason for t in transitions] == [
        "NodeHasSufficientMemory",
        "NodeHasNoDiskPressure",
        "NodeHasSufficientPID",
    ]


def test_transition_times_change_with_the_status_alone() -> None:
    host = pb.HostInfo(network_ready=True)
    before, _ = make_conditions(host, "", (), T0)
    after, transitions = make_conditions(host, "", before, T1)
    assert {c["lastTransitionTime"] for c in after} == {"2023-11-14T22:13:20Z"}
    assert {c["lastHeartbeatTime"] for c in after} == {"2023-11-14T22:14:20Z"}
    assert not transitions
    assert same_conditions(after, before)


def test_pressure_is_told_with_the_agents_words() -> None:
    host = pb.HostInfo(network_ready=True)
    before, _ = make_conditions(host, "", (), T0)
    host.conditions.add(type="DiskPressure", status=True, message="3 % left of /var")
    after, transitions = make_conditions(host, "", before, T1)
    disk = next(c for c in after if c["type"] == "DiskPressure")
    assert (disk["status"], disk["reason"]) == ("True", "KubeletHasDiskPressure")
    assert disk["message"] == "kubelet has disk pressure: 3 % left of /var"
    assert [t.reason for t in transitions] == ["NodeHasDiskPressure"]
    assert not same_conditions(after, before)


def test_without_an_agent_pressures_stay_and_the_node_is_not_ready() -> None:
    before, _ = make_conditions(pb.HostInfo(network_ready=True), "", (), T0)
    after, transitions = make_conditions(None, "container runtime is down", before, T1)
    assert by_type(after) == {"Ready": ("False", "KubeletNotReady")}
    assert [t.reason for t in transitions] == ["NodeNotReady"]


def test_without_a_network_the_node_is_not_ready() -> None:
    conditions, _ = make_conditions(pb.HostInfo(network_message="no CNI"), "", (), T0)
    assert conditions[-1]["status"] == "False"
    assert "NetworkPluginNotReady message:no CNI" in conditions[-1]["message"]
