"""A guest's figures are held to what can be, and its messages to what may be said."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.guest_calls import GuestMisbehaved, broke_off
from vk_provider.agent.guest_stats import MAX_TOLD, ask_or_hold, take_stats
from vk_provider.agent.records import SandboxRecord
from vk_provider.agent.sandbox import Sandbox
from vk_provider.agent.usage_records import usage_record

_SECOND = 1_000_000_000
_MOST = 2**64 - 1


def sandbox() -> Sandbox:
    shape = pb.Shape(vcpus=2, cpu_milli=2000, memory_bytes=1 << 30)
    status = pb.SandboxStatus(sandbox_id="0" * 32, shape=shape)
    return Sandbox(SandboxRecord(status, started_at_ns=100 * _SECOND))


def test_no_figure_is_larger_than_what_can_be() -> None:
    box = sandbox()
    most = guest_pb2.CgroupStats(cpu_usec=_MOST, memory_current=_MOST, pgfault=_MOST)
    take_stats(box, guest_pb2.Stats(pod=most, time_ns=-(2**63)), 110 * _SECOND, 0)
    assert box.stats is not None
    assert box.stats.pod.cpu_usec == 2 * (10 + 3600) * 1_000_000
    assert box.stats.pod.memory_current == 2 << 30
    assert box.stats.pod.pgfault == 2**63 - 1
    assert usage_record(box, 110 * _SECOND).cpu_ns == box.stats.pod.cpu_usec * 1000


def test_honest_figures_stay_as_they_are() -> None:
    box = sandbox()
    told = guest_pb2.Stats(
        pod=guest_pb2.CgroupStats(cpu_usec=139_000_000, memory_current=5 << 20),
        filesystems=[guest_pb2.FilesystemStats(name=n, used_bytes=7) for n in ("", "data")],
    )
    wanted = guest_pb2.Stats()
    wanted.CopyFrom(told)
    take_stats(box, told, 110 * _SECOND, 0)
    assert box.stats == wanted


def test_names_that_no_volume_has_and_doubled_ones_are_dropped() -> None:
    box = sandbox()
    names = ["same", "same", "../x", 'a"} 1\nb 1', "x" * 64]
    told = guest_pb2.Stats(filesystems=[guest_pb2.FilesystemStats(name=n) for n in names])
    take_stats(box, told, 110 * _SECOND, 0)
    assert [f.name for f in told.filesystems] == ["same"]


def test_more_than_a_pod_can_have_is_a_breach() -> None:
    told = guest_pb2.Stats(containers=[guest_pb2.ContainerStats()] * (MAX_TOLD + 1))
    with pytest.raises(GuestMisbehaved, match="told of 1001 containers"):
        take_stats(sandbox(), told, 0, 0)


def test_a_message_too_large_is_a_breach_and_a_broken_stream_is_none() -> None:
    def error(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
        return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())

    broke_off(error(grpc.StatusCode.UNAVAILABLE), "its events")
    with pytest.raises(GuestMisbehaved, match="its events in a message too large"):
        broke_off(error(grpc.StatusCode.RESOURCE_EXHAUSTED), "its events")


def test_an_idle_vm_is_asked_each_twenty_seconds_and_its_sample_holds_meanwhile() -> None:
    box = sandbox()
    take_stats(box, guest_pb2.Stats(), 110 * _SECOND, 7 * _SECOND)
    for second in range(1, 20):
        now = (110 + second) * _SECOND
        ask_or_hold(box, 7 * _SECOND + 39_000_000, now)
        assert (box.stats_wanted.is_set(), box.stats_at_ns) == (False, now)
    ask_or_hold(box, 7 * _SECOND + 39_000_000, 130 * _SECOND)
    assert (box.stats_wanted.is_set(), box.stats_at_ns) == (True, 129 * _SECOND)


def test_a_host_clock_that_was_set_back_holds_no_sample() -> None:
    box = sandbox()
    take_stats(box, guest_pb2.Stats(), 4000 * _SECOND, 7 * _SECOND)
    ask_or_hold(box, 7 * _SECOND, 400 * _SECOND)
    assert box.stats_wanted.is_set()


def test_a_vm_that_did_something_is_asked_and_its_last_sample_gets_no_younger() -> None:
    box = sandbox()
    take_stats(box, guest_pb2.Stats(), 110 * _SECOND, 7 * _SECOND)
    ask_or_hold(box, 7 * _SECOND + 40_000_000, 111 * _SECOND)
    assert (box.stats_wanted.is_set(), box.stats_at_ns) == (True, 110 * _SECOND)
    ask_or_hold(box, 7 * _SECOND + 40_000_000, 112 * _SECOND)  # the answer is on its way
    assert box.stats_at_ns == 110 * _SECOND
