"""The newest usage of every sandbox, and how fast processor time is being used."""

from __future__ import annotations

from collections import deque
from contextlib import aclosing

from prometheus_client import Gauge

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import Clock
from vk_provider.common.errors import VkError
from vk_provider.common.logging import get_logger
from vk_provider.runtime.api import Runtime

_WINDOW_NS = 10_000_000_000  # long enough to smooth, short enough for an autoscaler
_RETRY_S = (0.5, 10.0)

NODE = "node"

SPARE_VMS = Gauge(
    "vk_provider_spare_vms", "Number of microVMs that are kept ready for pods to come."
)

log = get_logger("kubelet_api.usage")


class CpuRates:
    """Processor time over the last ten seconds, for many counters by key."""

    def __init__(self) -> None:
        self._samples: dict[str, deque[tuple[int, int]]] = {}

    def add(self, key: str, time_ns: int, cpu_ns: int) -> None:
        """Take a reading; one that is not newer, or a counter that went back, starts anew."""
        samples = self._samples.setdefault(key, deque())
        if samples and (time_ns <= samples[-1][0] or cpu_ns < samples[-1][1]):
            if time_ns == samples[-1][0]:
                return
            samples.clear()
        samples.append((time_ns, cpu_ns))
        while len(samples) > 2 and time_ns - samples[1][0] >= _WINDOW_NS:
            samples.popleft()

    def nano_cores(self, key: str) -> int | None:
        """Return billionths of a processor in use; None before two readings."""
        samples = self._samples.get(key)
        if samples is None or len(samples) < 2:
            return None
        (t0, c0), (t1, c1) = samples[0], samples[-1]
        return (c1 - c0) * 1_000_000_000 // (t1 - t0)

    def keep(self, keys: set[str]) -> None:
        """Forget all other counters."""
        for key in self._samples.keys() - keys:
            del self._samples[key]


class UsageCache:
    """Follows the runtime's usage stream and keeps what is newest."""

    def __init__(self, runtime: Runtime, clock: Clock) -> None:
        self._runtime = runtime
        self._clock = clock
        self._snapshot: pb.UsageSnapshot | None = None
        self.rates = CpuRates()

    @property
    def snapshot(self) -> pb.UsageSnapshot | None:
        """The newest snapshot; None where the runtime is away, for old figures are wrong ones."""
        return self._snapshot

    async def run(self) -> None:
        """Follow until cancelled; a runtime that is away is asked again."""
        pause = _RETRY_S[0]
        while True:
            try:
                async with aclosing(self._runtime.watch_usage()) as snapshots:
                    async for snapshot in snapshots:
                        pause = _RETRY_S[0]
                        self.take(snapshot)
            except VkError as exc:
                log.warning("usage figures are not to be had", error=str(exc), retry_s=pause)
            self._snapshot = None
            await self._clock.sleep(pause)
            pause = min(pause * 2, _RETRY_S[1])

    def take(self, snapshot: pb.UsageSnapshot) -> None:
        """Keep a snapshot and what it says about rates."""
        SPARE_VMS.set(snapshot.spare_vms)
        keys = {NODE}
        self.rates.add(NODE, snapshot.time_ns, snapshot.host_cpu_ns)
        for sandbox in snapshot.sandboxes:
            keys.add(sandbox.sandbox_id)
            self.rates.add(sandbox.sandbox_id, sandbox.time_ns, sandbox.pod_counters.cpu_ns)
            for container in sandbox.containers:
                keys.add(container.container_id)
                self.rates.add(container.container_id, sandbox.time_ns, container.counters.cpu_ns)
        self.rates.keep(keys)
        self._snapshot = snapshot
