"""Which pods may run here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.podspecs import container, make_pod, resources
from vk_provider.pods.admission import Rejection, admit
from vk_provider.pods.node_affinity import matches_node, tolerates
from vk_provider.pods.settings import PodSettings

ALLOCATABLE = {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "10Gi", "pods": "3"}
LABELS = {"zone": "a", "disks": "3"}
NODE = {
    "metadata": {"name": "vk-1", "labels": LABELS},
    "spec": {"taints": [{"key": "vk-provider.dev/virtual-node", "effect": "NoSchedule"}]},
}


def asking(name: str = "web", **requests: Any) -> Any:
    fields = {key.replace("_", "-"): value for key, value in requests.items()}
    return make_pod(container(resources=resources(requests=fields)), uid=name)


def judge(pod: Any, *others: Any, node: Any = None, **settings: Any) -> Rejection | None:
    return admit(
        pod,
        active_pods=others,
        allocatable=ALLOCATABLE,
        node=node or NODE,
        settings=PodSettings(**settings),
    )


def test_what_fits_is_admitted() -> None:
    assert judge(make_pod()) is None
    assert judge(asking(cpu="2", memory="4Gi", ephemeral_storage="10Gi")) is None


def insufficient(name: str, requested: int, capacity: int) -> str:
    figures = f"requested: {requested}, used: 0, capacity: {capacity}"
    return f"Node didn't have enough resource: {name}, {figures}"


@pytest.mark.parametrize(
    ("pod", "others", "reason", "message"),
    [
        (
            asking(cpu="1500m"),
            [asking("b", cpu="600m")],
            "OutOfcpu",
            "Node didn't have enough resource: cpu, requested: 1500, used: 600, capacity: 2000",
        ),
        (
            asking(memory="5Gi"),
            [],
            "OutOfmemory",
            insufficient("memory", 5 << 30, 4 << 30),
        ),
        (
            asking(ephemeral_storage="11Gi"),
            [],
            "OutOfephemeral-storage",
            insufficient("ephemeral-storage", 11 << 30, 10 << 30),
        ),
        (
            make_pod(),
            [asking("b"), asking("c"), asking("d")],
            "OutOfpods",
            "Node didn't have enough resource: pods, requested: 1, used: 3, capacity: 3",
        ),
    ],
)
def test_what_does_not_fit(pod: Any, others: Any, reason: str, message: str) -> None:
    assert judge(pod, *others) == Rejection(reason, message)


def test_the_pod_itself_does_not_stand_in_its_own_way() -> None:
    pod = asking(cpu="2")
    assert judge(pod, pod, asking("b"), asking("c")) is None


def test_an_extended_resource_counts_where_the_node_offers_it() -> None:
    pod = asking(**{"example.com/foo": "2"})
    assert judge(pod) is None
    found = admit(
        pod,
        active_pods=(),
        allocatable=ALLOCATABLE | {"example.com/foo": "1"},
        node=NODE,
        settings=PodSettings(),
    )
    assert found
    assert found.reason == "OutOfexample.com/foo"


def test_a_message_for_the_status() -> None:
    found = judge(make_pod(hostNetwork=True))
    assert found
    assert found.reason == "PodFeatureUnsupported"
    assert found.status_message.startswith("Pod was rejected: spec.hostNetwork=true is not")
    assert "DaemonSet" not in found.message


def test_a_daemon_sets_pod_is_told_how_to_stay_away() -> None:
    owner = {"kind": "DaemonSet", "name": "kube-proxy", "controller": True}
    found = judge(make_pod(hostNetwork=True, owners=[owner]))
    assert found
    assert "The DaemonSet kube-proxy belongs on machines" in found.message
    assert judge(make_pod(owners=[owner])) is None


@pytest.mark.parametrize("name", ["hugepages-2Mi", "nvidia.com/gpu", "amd.com/gpu", "x.com/gpu.a"])
def test_devices_and_huge_pages_are_refused(name: str) -> None:
    found = judge(make_pod(container(resources=resources(limits={name: "1"}))))
    assert found
    assert found.reason == "PodFeatureUnsupported"
    assert f"asks for {name}" in found.message


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        (make_pod(os={"name": "windows"}), "PodOSNotSupported"),
        (make_pod(labels={"kubernetes.io/os": "windows"}), "PodOSSelectorNodeLabelDoesNotMatch"),
        (make_pod(runtimeClassName="gvisor"), "PodFeatureUnsupported"),
        (make_pod(securityContext={"appArmorProfile": {"type": "Localhost"}}), "AppArmor"),
        (
            make_pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
            "SysctlForbidden",
        ),
        (make_pod(nodeSelector={"zone": "b"}), "NodeAffinity"),
        (make_pod(nodeName="other"), "NodeName"),
        (asking(cpu="much"), "UnexpectedAdmissionError"),
    ],
)
def test_other_reasons(pod: Any, reason: str) -> None:
    found = judge(pod)
    assert found
    assert found.reason == reason


def test_settings_widen_what_is_admitted() -> None:
    sysctls = [{"name": "kernel.msgmax", "value": "1"}]
    pod = make_pod(runtimeClassName="kata", securityContext={"sysctls": sysctls})
    assert judge(pod, runtime_classes=("kata",), allowed_unsafe_sysctls=("kernel.msg*",)) is None


def port(number: int, protocol: str = "TCP", ip: str = "", uid: str = "web") -> Any:
    ports = [{"containerPort": 80, "hostPort": number, "protocol": protocol, "hostIP": ip}]
    return make_pod(container(ports=ports), uid=uid)


@pytest.mark.parametrize(
    ("mine", "theirs", "collide"),
    [
        (port(80), port(80, uid="b"), True),
        (port(80), port(81, uid="b"), False),
        (port(80), port(80, "UDP", uid="b"), False),
        (port(80, ip="192.0.2.1"), port(80, uid="b"), True),
        (port(80, ip="192.0.2.1"), port(80, ip="192.0.2.2", uid="b"), False),
        (port(80, ip="192.0.2.1"), port(80, ip="0.0.0.0", uid="b"), True),
    ],
)
def test_host_ports_are_given_once(mine: Any, theirs: Any, collide: bool) -> None:
    found = judge(mine, theirs)
    assert (found is not None) is collide
    if found:
        assert found == Rejection(
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod "
            "ports",
        )


def test_only_no_execute_taints_are_the_nodes_business() -> None:
    taint = {"key": "k", "value": "v", "effect": "NoExecute"}
    node = NODE | {"spec": {"taints": [taint]}}
    found = judge(make_pod(), node=node)
    assert found
    assert found.reason == "TaintToleration"
    assert judge(make_pod(tolerations=[{"operator": "Exists"}]), node=node) is None


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, False),
        ({"key": "k", "value": "5"}, True),
        ({"key": "k", "operator": "Equal", "value": "6"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "k", "operator": "Gt", "value": "4"}, True),
        ({"key": "k", "operator": "Lt", "value": "4"}, False),
        ({"key": "k", "operator": "Lt", "value": "x"}, False),
        ({"key": "k", "operator": "Like", "value": "5"}, False),
    ],
)
def test_tolerations(toleration: Any, expected: bool) -> None:
    taint = {"key": "k", "value": "5", "effect": "NoExecute"}
    assert tolerates(make_pod(tolerations=[toleration]), taint) is expected


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}], True),
        ([{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}]}], False),
        ([{"matchExpressions": [{"key": "no", "operator": "NotIn", "values": ["a"]}]}], True),
        ([{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}], True),
        ([{"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}], False),
        ([{"matchExpressions": [{"key": "disks", "operator": "Gt", "values": ["2"]}]}], True),
        ([{"matchExpressions": [{"key": "disks", "operator": "Lt", "values": ["2"]}]}], False),
        ([{"matchExpressions": [{"key": "zone", "operator": "Gt", "values": ["2"]}]}], False),
        (
            [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["vk-1"]}]}],
            True,
        ),
        (
            [
                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]},
                {"matchExpressions": [{"key": "disks", "operator": "Exists"}]},
            ],
            True,
        ),
        ([{}], False),
        ([], False),
    ],
)
def test_required_node_affinity(terms: Any, expected: bool) -> None:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    pod = make_pod(affinity={"nodeAffinity": required})
    assert matches_node(pod, "vk-1", LABELS) is expected
