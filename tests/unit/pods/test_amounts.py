"""Amounts beyond every host are refused in words by others, and break nothing here."""

from __future__ import annotations

import pytest

from tests.support.podspecs import FakeObjects, container, make_pod
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.amounts import MAX_AMOUNT, MAX_CPU_MILLI
from vk_provider.pods.errors import VolumeError
from vk_provider.pods.resources import linux_resources
from vk_provider.pods.sandbox_config import make_run_sandbox_request
from vk_provider.pods.settings import PodSettings
from vk_provider.pods.volumes.build import build_volumes

# What the API server makes of any larger number.
MOST = "9223372036854775807"
LIMITS = {"limits": {"cpu": MOST, "memory": MOST, "ephemeral-storage": MOST}}


def test_the_largest_amounts_of_the_api_fit_the_seam() -> None:
    containers = [container(str(number), resources=LIMITS) for number in range(3)]
    pod = make_pod(*containers)
    request = make_run_sandbox_request(
        pod, "s", 0, [], host=pb.HostInfo(), settings=PodSettings(), annotations={}
    )
    assert request.ephemeral_storage_limit_bytes == MAX_AMOUNT
    assert request.demand[0].cpu_limit_milli == MAX_CPU_MILLI
    found = linux_resources(pod, containers[0], settings=PodSettings(memory_capacity_bytes=1))
    assert (found.memory_limit_bytes, found.cpu_quota_us) == (MAX_AMOUNT, 100 * MAX_CPU_MILLI)


async def test_the_same_holds_for_volumes() -> None:
    volume = {"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": MOST}}
    pod = make_pod(*[container(str(n), resources=LIMITS) for n in range(3)], volumes=[volume])
    (built,) = await build_volumes(pod, FakeObjects(), allocatable={})
    assert built.scratch.size_limit_bytes == MAX_AMOUNT


async def test_a_size_that_is_none_is_an_error_of_its_volume() -> None:
    pod = make_pod(volumes=[{"name": "v", "emptyDir": {"sizeLimit": "large"}}])
    with pytest.raises(VolumeError, match=r'volume "v" : .*not a resource quantity'):
        await build_volumes(pod, FakeObjects(), allocatable={})
