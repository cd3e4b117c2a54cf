"""Patches, and the one task that sends them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.support.fake_api import FakeApi
from tests.support.fake_clock import FakeClock
from tests.support.pod_world import pod
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Invalid
from vk_provider.pods.annotations import pod_notes
from vk_provider.pods.status.patch import apply_patch, make_patch
from vk_provider.pods.status.writer import StatusWriter


def _condition(status: str, **fields: Any) -> dict[str, Any]:
    return {"type": "Ready", "status": status, **fields}


def test_equal_statuses_need_no_patch() -> None:
    status = {"phase": "Running", "conditions": [_condition("True")], "qosClass": "Burstable"}
    assert make_patch("u", status, {**status, "message": ""}) is None


def test_only_what_changed_is_sent() -> None:
    old = {"phase": "Pending", "startTime": "t", "conditions": [_condition("False", reason="R")]}
    new = {"phase": "Running", "startTime": "t", "conditions": [_condition("True")]}
    assert make_patch("u", old, new) == {
        "metadata": {"uid": "u"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "reason": None}],
        },
    }


def test_what_is_gone_is_removed_and_addresses_are_replaced() -> None:
    old = {"reason": "Evicted", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}
    new = {"podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}]}
    patch = make_patch("u", old, new)
    assert patch is not None
    assert patch["status"] == {
        "reason": None,
        "podIP": "10.0.0.2",
        "podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.2"}],
    }


def test_others_conditions_are_never_sent_and_never_lost() -> None:
    theirs = {"type": "example.test/x", "status": "True"}
    old = {"conditions": [theirs, _condition("False")]}
    new = {"conditions": [_condition("True")]}
    patch = make_patch("u", old, new)
    assert patch is not None
    assert [c["type"] for c in patch["status"]["conditions"]] == ["Ready"]
    merged = apply_patch(old, new)
    assert theirs in merged["conditions"] and make_patch("u", merged, new) is None


@contextlib.asynccontextmanager
async def _writing() -> AsyncIterator[tuple[FakeApi, StatusWriter, FakeClock]]:
    clock = FakeClock()
    api = FakeApi(clock)
    writer = StatusWriter(api, api.create(pod()), clock)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer.run(), name="writer")
        yield api, writer, clock
        task.cancel()


async def test_changes_that_come_fast_are_written_once() -> None:
    async with _writing() as (api, writer, _):
        for i in range(5):
            writer.put({"phase": "Running", "message": str(i)})
        await writer.flush()
        assert len(api.patches) == 1
        assert api.status("web")["message"] == "4"


async def test_annotations_go_out_with_the_status_and_once() -> None:
    async with _writing() as (api, writer, clock):
        box = pb.SandboxStatus(
            start_mode="template", shape=pb.Shape(cpu_milli=1000, memory_bytes=2**31)
        )
        notes = pod_notes(box)
        assert notes == {
            "vk-provider.dev/shape": "1x2Gi",
            "vk-provider.dev/start-mode": "template",
        }
        writer.put({"phase": "Running"}, notes)
        await writer.flush()
        assert api.pods["default", "web"]["metadata"]["annotations"] == notes
        writer.seen(api.pods["default", "web"])
        writer.put({"phase": "Running"}, notes)
        await clock.settle()
        assert len(api.patches) == 1


async def test_it_is_repeated_until_the_server_is_back() -> None:
    async with _writing() as (api, writer, clock):
        api.go_away()
        writer.put({"phase": "Running"})
        await clock.advance(30)
        assert api.status("web")["phase"] == "Pending"
        api.come_back()
        await clock.advance(10)
        assert api.status("web")["phase"] == "Running"


async def test_another_pod_of_that_name_is_left_alone() -> None:
    async with _writing() as (api, writer, _):
        api.remove("web")
        api.create(pod(uid="another"))
        writer.put({"phase": "Running"})
        await writer.flush()
        assert writer.gone
        assert api.status("web")["phase"] == "Pending"
        await writer.delete()
        assert api.pods


async def test_what_somebody_overwrote_is_written_again() -> None:
    async with _writing() as (api, writer, clock):
        writer.put({"phase": "Running"})
        await writer.flush()
        uid = api.pods["default", "web"]["metadata"]["uid"]
        path = "/api/v1/namespaces/default/pods/web/status"
        body = {"metadata": {"uid": uid}, "status": {"phase": "Pending"}}
        writer.seen(await api.patch(path, body, kind="strategic"))
        await clock.settle()
        assert api.status("web")["phase"] == "Running"


async def test_an_older_event_does_not_count() -> None:
    async with _writing() as (api, writer, clock):
        before = api.pods["default", "web"]
        writer.put({"phase": "Running"})
        await writer.flush()
        writer.seen(before)
        await clock.settle()
        assert len(api.patches) == 1


async def test_a_status_that_is_refused_is_not_sent_for_ever() -> None:
    async with _writing() as (api, writer, clock):
        refused = 0

        async def patch(*args: Any, **kwargs: Any) -> Any:
            nonlocal refused
            refused += 1
            raise Invalid("no such field")

        api.patch = patch  # type: ignore[method-assign]
        writer.put({"phase": "Running"})
        await writer.flush()
        await clock.advance(100)
        assert refused == 1
