"""Volumes that stay current while their pods run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from tests.support.fake_clock import FakeClock
from tests.support.podspecs import FakeObjects, FakeToken, make_pod
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import NotFound, Unavailable, VkError
from vk_provider.pods.volumes.build import build_volumes
from vk_provider.pods.volumes.refresher import VolumeRefresher
from vk_provider.runtime.api import Runtime

VOLUMES = [
    {"name": "settings", "configMap": {"name": "settings"}},
    {
        "name": "labels",
        "downwardAPI": {
            "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
        },
    },
]
TOKEN = [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]


class Guest:
    """The part of a runtime that takes new content."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, str, bytes]] = []
        self.errors: list[VkError] = []

    async def update_volume(self, sandbox_id: str, volume: pb.Volume) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.updates.append((sandbox_id, volume.name, volume.files.files[0].data))


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.objects = FakeObjects()
        self.objects.put_config_map("settings", {"color": "blue"})
        self.guest = Guest()
        self.failures: list[str] = []
        self.refresher = VolumeRefresher(
            cast("Runtime", self.guest),
            self.objects,
            self.clock,
            allocatable=dict,
            on_error=lambda _, message: self.failures.append(message),
        )

    async def add(self, pod: Any) -> None:
        sent = await build_volumes(pod, self.objects, allocatable={})
        self.refresher.add_pod(pod, "s1", sent)
        await self.clock.settle()

    def taken(self) -> list[tuple[str, str, bytes]]:
        updates, self.guest.updates = self.guest.updates, []
        return updates


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(bench.refresher.run(), name="refresher")
        yield bench
        running.cancel()


async def test_what_the_guest_has_is_not_sent_again(bench: Bench) -> None:
    await bench.add(make_pod(volumes=VOLUMES))
    assert bench.taken() == []


async def test_after_a_restart_of_the_node_all_is_sent_once(bench: Bench) -> None:
    bench.refresher.add_pod(make_pod(volumes=VOLUMES, labels={"a": "1"}), "s1")
    await bench.clock.settle()
    assert bench.taken() == [("s1", "settings", b"blue"), ("s1", "labels", b'a="1"')]


async def test_a_changed_object_reaches_the_pods_that_show_it(bench: Bench) -> None:
    await bench.add(make_pod(volumes=VOLUMES))
    bench.objects.put_config_map("settings", {"color": "red"})
    bench.refresher.object_changed("Secret", "shop", "settings")
    bench.refresher.object_changed("ConfigMap", "elsewhere", "settings")
    await bench.clock.settle()
    assert bench.taken() == []
    bench.refresher.object_changed("ConfigMap", "shop", "settings")
    await bench.clock.settle()
    assert bench.taken() == [("s1", "settings", b"red")]


async def test_new_labels_reach_the_downward_api(bench: Bench) -> None:
    await bench.add(make_pod(volumes=VOLUMES, labels={"a": "1"}))
    bench.refresher.update_pod(make_pod(volumes=VOLUMES, labels={"a": "2"}))
    await bench.clock.settle()
    assert bench.taken() == [("s1", "labels", b'a="2"')]


async def test_a_token_is_renewed_when_it_is_due(bench: Bench) -> None:
    start = bench.clock.now_ns()
    bench.objects.token = FakeToken("one", refresh_at_ns=start + 2880 * 10**9)
    await bench.add(make_pod(volumes=TOKEN))
    bench.objects.token = FakeToken("two", refresh_at_ns=start + 6000 * 10**9)
    await bench.clock.advance(2879)
    assert bench.taken() == []
    await bench.clock.advance(2)
    assert bench.taken() == [("s1", "token", b"two")]


async def test_an_overdue_token_is_not_asked_for_in_a_loop(bench: Bench) -> None:
    bench.objects.token = FakeToken("one", refresh_at_ns=0)
    await bench.add(make_pod(volumes=TOKEN))
    calls = len(bench.objects.token_calls)
    await bench.clock.advance(25)
    assert len(bench.objects.token_calls) == calls + 2


async def test_a_missing_object_is_told_and_tried_again_ever_more_slowly(bench: Bench) -> None:
    await bench.add(make_pod(volumes=VOLUMES))
    del bench.objects.config_maps["shop", "settings"]
    bench.refresher.object_changed("ConfigMap", "shop", "settings")
    await bench.clock.advance(4)
    complaint = 'MountVolume.SetUp failed for volume "settings" : configmap "settings" not found'
    assert bench.failures == [complaint] * 4  # at 0, 0.5, 1.5 and 3.5 s
    bench.objects.put_config_map("settings", {"color": "green"})
    bench.refresher.object_changed("ConfigMap", "shop", "settings")
    await bench.clock.settle()
    assert bench.taken() == [("s1", "settings", b"green")]


async def test_an_agent_that_is_away_is_tried_again(bench: Bench) -> None:
    await bench.add(make_pod(volumes=VOLUMES))
    bench.objects.put_config_map("settings", {"color": "red"})
    bench.guest.errors = [Unavailable("away"), Unavailable("away")]
    bench.refresher.object_changed("ConfigMap", "shop", "settings")
    await bench.clock.advance(2)
    assert bench.taken() == [("s1", "settings", b"red")]
    assert bench.failures == []


async def test_a_sandbox_that_is_gone_is_left_alone(bench: Bench) -> None:
    await bench.add(make_pod(volumes=VOLUMES))
    bench.objects.put_config_map("settings", {"color": "red"})
    bench.guest.errors = [NotFound("no such sandbox")]
    bench.refresher.object_changed("ConfigMap", "shop", "settings")
    await bench.clock.advance(300)
    bench.refresher.object_changed("ConfigMap", "shop", "settings")
    await bench.clock.advance(300)
    assert bench.taken() == []


async def test_a_removed_pod_is_forgotten(bench: Bench) -> None:
    await bench.add(make_pod(volumes=VOLUMES))
    bench.refresher.remove_pod("u-1")
    bench.refresher.remove_pod("u-1")
    bench.objects.put_config_map("settings", {"color": "red"})
    bench.refresher.object_changed("ConfigMap", "shop", "settings")
    await bench.clock.advance(10)
    assert bench.taken() == []


async def test_a_new_sandbox_of_the_pod_is_served_in_place_of_the_old(bench: Bench) -> None:
    pod = make_pod(volumes=VOLUMES)
    await bench.add(pod)
    bench.refresher.add_pod(pod, "s2")
    await bench.clock.settle()
    assert {sandbox for sandbox, _, _ in bench.taken()} == {"s2"}
