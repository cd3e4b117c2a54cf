import inspect

import pytest
from prometheus_client import REGISTRY

from tests.support.fake_clock import FakeClock
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import NotFound
from vk_provider.kubelet_api.measured_runtime import MeasuredRuntime
from vk_provider.runtime.api import Runtime
from vk_provider.runtime.fake import FakeRuntime
from vk_provider.runtime.fake_records import FakeImage


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def of(operation: str) -> tuple[float, float, float]:
    """How often it was asked for, failed and was timed."""
    names = (
        "kubelet_runtime_operations_total",
        "kubelet_runtime_operations_errors_total",
        "kubelet_runtime_operations_duration_seconds_count",
    )
    total, errors, timed = (value(name, operation_type=operation) for name in names)
    return total, errors, timed


def since(before: tuple[float, ...], operation: str) -> tuple[float, ...]:
    return tuple(now - then for now, then in zip(of(operation), before, strict=True))


def test_every_call_of_a_runtime_is_passed_on() -> None:
    wanted = {name for name, _ in inspect.getmembers(Runtime, inspect.isfunction)}
    assert {name for name in wanted if name[0] != "_"} <= set(vars(MeasuredRuntime))


async def test_successes_and_failures_are_counted() -> None:
    async with FakeRuntime(FakeClock()) as fake:
        runtime: Runtime = MeasuredRuntime(fake)
        before = of("status")
        assert await runtime.host_info() == fake.host
        assert since(before, "status") == (1, 0, 1)
        before = of("start_container")
        with pytest.raises(NotFound):
            await runtime.start_container("nope")
        assert since(before, "start_container") == (1, 1, 1)


async def test_pulls_are_timed_to_their_end() -> None:
    async with FakeRuntime(FakeClock()) as fake:
        fake.registry["img"] = FakeImage()
        runtime = MeasuredRuntime(fake)
        before = of("pull_image")
        assert [p.phase async for p in runtime.pull_image("img")] == ["fetching", "done"]
        with pytest.raises(NotFound):
            _ = [p async for p in runtime.pull_image("other")]
        assert since(before, "pull_image") == (2, 1, 2)


async def test_the_phases_of_a_start_are_told() -> None:
    name = "vk_provider_sandbox_start_phase_duration_seconds"
    labels = {"phase": "boot", "start_mode": "cold"}
    async with FakeRuntime(FakeClock()) as fake:
        request = pb.RunSandboxRequest(sandbox_id="s")
        await fake.run_sandbox(request)
        fake.sandboxes["s"].status.phases.append(
            pb.Phase(name="boot", start_ns=1_000_000_000, end_ns=3_500_000_000)
        )
        before = value(f"{name}_sum", **labels)
        await MeasuredRuntime(fake).run_sandbox(request)
        assert value(f"{name}_sum", **labels) - before == pytest.approx(2.5)
