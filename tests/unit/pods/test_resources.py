"""Quality of service, cgroup settings, sums over a pod, what the shape rule is told."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from tests.support.podspecs import container, make_pod, resources
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Invalid
from vk_provider.pods.demand import container_demand
from vk_provider.pods.qos import compute_qos_class, oom_score_adj, qos_class
from vk_provider.pods.resource_fields import resource_field
from vk_provider.pods.resources import (
    cpu_quota_us,
    cpu_shares,
    linux_resources,
    pod_limits,
    pod_requests,
)
from vk_provider.pods.settings import PodSettings

GI = 1 << 30
FULL = resources(limits={"cpu": "1", "memory": "1Gi"})


def one(name: str = "app", **kinds: Any) -> Any:
    return container(name, resources=resources(**kinds))


@pytest.mark.parametrize(
    ("pod", "expected"),
    [
        (make_pod(), "BestEffort"),
        (make_pod(one(requests={"ephemeral-storage": "1Gi"})), "BestEffort"),
        (make_pod(one(requests={"cpu": "0"})), "BestEffort"),
        (make_pod(one(limits={"cpu": "1", "memory": "1Gi"})), "Guaranteed"),
        (
            make_pod(one(requests={"cpu": "1000m"}, limits={"cpu": "1", "memory": "1Gi"})),
            "Guaranteed",
        ),
        (make_pod(one(requests={"cpu": "1"})), "Burstable"),
        (make_pod(one(limits={"cpu": "1"})), "Burstable"),
        (
            make_pod(one(requests={"cpu": "500m"}, limits={"cpu": "1", "memory": "1Gi"})),
            "Burstable",
        ),
        (make_pod(one(limits={"cpu": "1", "memory": "1Gi"}), container("b")), "Burstable"),
        (
            make_pod(
                one(limits={"cpu": "1", "memory": "1Gi"}),
                initContainers=[one("init", requests={"cpu": "1"})],
            ),
            "Burstable",
        ),
        (make_pod(resources=FULL), "Guaranteed"),
        (make_pod(resources={"requests": {"cpu": "1"}}), "Burstable"),
        (make_pod(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}), "Burstable"),
    ],
)
def test_quality_of_service(pod: Any, expected: str) -> None:
    assert compute_qos_class(pod) == expected


def test_the_class_that_the_api_server_recorded_stays() -> None:
    pod = make_pod() | {"status": {"qosClass": "Guaranteed"}}
    assert qos_class(pod) == "Guaranteed"


@pytest.mark.parametrize(
    ("pod", "score"),
    [
        (make_pod(), 1000),
        (make_pod(one(limits={"cpu": "1", "memory": "1Gi"})), -997),
        (make_pod(priorityClassName="system-node-critical"), -997),
        (make_pod(one(requests={"memory": "1Gi"})), 900),
        (make_pod(one(requests={"cpu": "1"})), 999),
        (make_pod(one(requests={"memory": "10Gi"})), 3),
        (make_pod(one(requests={"cpu": "1"}), resources={"requests": {"memory": "2Gi"}}), 800),
    ],
)
def test_the_oom_score_follows_the_share_of_the_node(pod: Any, score: int) -> None:
    assert oom_score_adj(pod, pod["spec"]["containers"][0], 10 * GI) == score


def test_a_sidecar_outlives_the_least_protected_app_container() -> None:
    sidecar = container("log", restartPolicy="Always")
    pod = make_pod(one(requests={"memory": "2Gi"}), initContainers=[sidecar])
    assert oom_score_adj(pod, sidecar, 10 * GI) == 800


@pytest.mark.parametrize(
    ("milli", "shares"), [(0, 2), (1, 2), (100, 102), (1000, 1024), (10**6, 262144)]
)
def test_cpu_shares(milli: int, shares: int) -> None:
    assert cpu_shares(milli) == shares


@pytest.mark.parametrize(
    ("milli", "quota"), [(0, 0), (1, 1000), (10, 1000), (500, 50_000), (2000, 200_000)]
)
def test_cpu_quota(milli: int, quota: int) -> None:
    assert cpu_quota_us(milli) == quota


def test_cgroup_settings_of_a_container() -> None:
    app = one(requests={"cpu": "250m", "memory": "1Gi"}, limits={"cpu": "1", "memory": "2Gi"})
    found = linux_resources(make_pod(app), app, settings=PodSettings(memory_capacity_bytes=10 * GI))
    assert found == pb.LinuxResources(
        cpu_shares=256,
        cpu_quota_us=100_000,
        cpu_period_us=100_000,
        memory_limit_bytes=2 * GI,
        memory_request_bytes=GI,
        oom_score_adj=900,
    )


def test_a_container_without_limits_has_the_pods_own() -> None:
    app = container()
    pod = make_pod(app, resources=FULL)
    found = linux_resources(pod, app, settings=PodSettings())
    assert (found.cpu_quota_us, found.memory_limit_bytes) == (100_000, GI)
    assert found.cpu_shares == 1024


@pytest.mark.parametrize(
    ("pod", "cpu"),
    [
        (make_pod(one(requests={"cpu": "1"}), one("b", requests={"cpu": "500m"})), "3/2"),
        (
            make_pod(one(requests={"cpu": "1"}), initContainers=[one("i", requests={"cpu": "3"})]),
            "3",
        ),
        (
            make_pod(
                one(requests={"cpu": "1"}),
                initContainers=[
                    one("side", requests={"cpu": "2"}) | {"restartPolicy": "Always"},
                    one("i", requests={"cpu": "500m"}),
                ],
            ),
            "3",
        ),
        (
            make_pod(
                one(requests={"cpu": "1"}),
                initContainers=[
                    one("side", requests={"cpu": "2"}) | {"restartPolicy": "Always"},
                    one("i", requests={"cpu": "4"}),
                ],
            ),
            "6",
        ),
        (make_pod(one(requests={"cpu": "1"}), overhead={"cpu": "250m"}), "5/4"),
        (make_pod(one(requests={"cpu": "1"}), resources={"requests": {"cpu": "5"}}), "5"),
    ],
)
def test_a_pod_takes_the_larger_of_its_init_and_its_running_phase(pod: Any, cpu: str) -> None:
    assert pod_requests(pod)["cpu"] == Fraction(cpu)


def test_overhead_is_added_only_to_limits_that_are_set() -> None:
    pod = make_pod(one(limits={"cpu": "1"}), overhead={"cpu": "1", "memory": "1Gi"})
    assert pod_limits(pod) == {"cpu": 2}
    assert pod_requests(pod) == {"cpu": 2, "memory": GI}


def test_the_shape_rule_is_told_each_container_in_order() -> None:
    pod = make_pod(
        one(requests={"cpu": "100m"}, limits={"memory": "1Gi"}),
        initContainers=[
            one("i", limits={"cpu": "1"}),
            container("side", restartPolicy="Always"),
        ],
    )
    demand = pb.ContainerDemand
    assert container_demand(pod) == [
        demand(kind=demand.INIT, cpu_request_milli=1000, cpu_limit_milli=1000),
        demand(kind=demand.SIDECAR),
        demand(
            kind=demand.APP,
            cpu_request_milli=100,
            memory_request_bytes=GI,
            memory_limit_bytes=GI,
        ),
    ]


def test_pod_level_resources_stand_for_all_containers() -> None:
    pod = make_pod(one(limits={"cpu": "4"}), one("b", limits={"memory": "1Gi"}), resources=FULL)
    first, second = container_demand(pod)
    assert (first.cpu_request_milli, first.cpu_limit_milli, first.memory_limit_bytes) == (
        1000,
        1000,
        GI,
    )
    assert second == pb.ContainerDemand()


ALLOCATABLE = {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "100Gi"}


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ({"resource": "requests.cpu"}, "1"),
        ({"resource": "requests.cpu", "divisor": "1m"}, "250"),
        ({"resource": "limits.cpu"}, "4"),
        ({"resource": "limits.cpu", "divisor": "0"}, "4"),
        ({"resource": "requests.memory"}, str(32 << 20)),
        ({"resource": "requests.memory", "divisor": "1Mi"}, "32"),
        ({"resource": "requests.memory", "divisor": "1Gi"}, "1"),
        ({"resource": "limits.memory"}, str(64 << 20)),
        ({"resource": "limits.ephemeral-storage", "divisor": "1Gi"}, "100"),
        ({"resource": "requests.ephemeral-storage"}, "0"),
        ({"resource": "limits.hugepages-2Mi"}, "0"),
        ({"resource": "limits.memory", "containerName": "b"}, str(8 * GI)),
        ({"resource": "limits.cpu", "containerName": "i"}, "0"),
    ],
)
def test_resource_fields(reference: Any, expected: str) -> None:
    app = one(requests={"cpu": "250m", "memory": "32Mi"}, limits={"memory": "64Mi"})
    pod = make_pod(app, container("b"), initContainers=[container("i")])
    assert resource_field(pod, reference, ALLOCATABLE, app) == expected


def test_a_limit_that_the_container_lacks_is_the_pods_own() -> None:
    pod = make_pod(container(), resources=FULL)
    assert resource_field(pod, {"resource": "limits.cpu"}, ALLOCATABLE, container()) == "1"


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        (
            {"resource": "limits.gpu", "containerName": "app"},
            "unsupported container resource : limits.gpu",
        ),
        ({"resource": "usage.cpu", "containerName": "app"}, "unsupported container resource"),
        ({"resource": "limits.cpu", "containerName": "no"}, "container no not found"),
    ],
)
def test_resource_fields_that_are_none(reference: Any, complaint: str) -> None:
    with pytest.raises(Invalid, match=complaint):
        resource_field(make_pod(), reference, ALLOCATABLE)
