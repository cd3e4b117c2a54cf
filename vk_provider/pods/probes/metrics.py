"""What probes found and how long it took, as `/metrics/probes` shows it (prober_manager.go)."""

from __future__ import annotations

from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Histogram

from vk_provider.pods.podspec import name_of, namespace_of, uid_of
from vk_provider.pods.probes.checker import Target
from vk_provider.pods.probes.model import ProbeKind, ProbeResult

_RESULTS = {ProbeResult.SUCCESS: "successful", ProbeResult.FAILURE: "failed"}


class ProbeMetrics:
    """Counts by container; a container's series go with it. `registry` is what to show."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._total = Counter(
            "prober_probe",
            "Answers of liveness, readiness and startup probes, by container and result.",
            ["probe_type", "result", "container", "pod", "namespace", "pod_uid"],
            registry=self.registry,
        )
        self._duration = Histogram(
            "prober_probe_duration_seconds",
            "How long successful probes took, in seconds.",
            ["probe_type", "container", "pod", "namespace"],
            registry=self.registry,
        )

    def observe(
        self, target: Target, kind: ProbeKind, result: ProbeResult, duration_s: float
    ) -> None:
        """Count one answer; only the time of good ones says something of the container."""
        self._total.labels(*_names(target, kind, _RESULTS[result])).inc()
        if result is ProbeResult.SUCCESS:
            self._duration.labels(*_duration_names(target, kind)).observe(duration_s)

    def forget(self, target: Target) -> None:
        """Drop a container's series."""
        for kind in ProbeKind:
            with suppress(KeyError):
                self._duration.remove(*_duration_names(target, kind))
            for result in _RESULTS.values():
                with suppress(KeyError):
                    self._total.remove(*_names(target, kind, result))


def _names(target: Target, kind: ProbeKind, result: str) -> tuple[str, ...]:
    pod = target.pod
    container = str(target.container["name"])
    return (kind.value, result, container, name_of(pod), namespace_of(pod), uid_of(pod))


def _duration_names(target: Target, kind: ProbeKind) -> tuple[str, ...]:
    pod = target.pod
    return (kind.value, str(target.container["name"]), name_of(pod), namespace_of(pod))
