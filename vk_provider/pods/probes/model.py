"""What probes are, and how their answers are counted (pkg/kubelet/prober)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from vk_provider.pods.podspec import Container

OUTPUT_LIMIT_BYTES = 10 * 1024


class ProbeKind(Enum):
    """What a probe's result decides; the value is how events call it."""

    STARTUP = "Startup"
    READINESS = "Readiness"
    LIVENESS = "Liveness"


class ProbeResult(Enum):
    """What is known of a container in one respect."""

    UNKNOWN = "unknown"
    SUCCESS = "success"
    FAILURE = "failure"


INITIAL_RESULTS = {
    ProbeKind.STARTUP: ProbeResult.UNKNOWN,
    ProbeKind.READINESS: ProbeResult.FAILURE,
    ProbeKind.LIVENESS: ProbeResult.SUCCESS,
}
"""What holds before the first result: not ready, but alive."""

_FIELDS = {
    ProbeKind.STARTUP: "startupProbe",
    ProbeKind.READINESS: "readinessProbe",
    ProbeKind.LIVENESS: "livenessProbe",
}


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """A probe's times (seconds) and thresholds, and the handler as the pod's JSON has it.

    Its terminationGracePeriodSeconds is the planner's, who kills.
    """

    kind: ProbeKind
    handler: Mapping[str, Any]
    initial_delay_s: int
    period_s: int
    timeout_s: int
    success_threshold: int
    failure_threshold: int

    @classmethod
    def of(cls, container: Container, kind: ProbeKind) -> ProbeSpec | None:
        """Read a container's probe, with the API's defaults; None where it has none."""
        probe = container.get(_FIELDS[kind])
        if not probe:
            return None
        return cls(
            kind,
            probe,
            int(probe.get("initialDelaySeconds") or 0),
            int(probe.get("periodSeconds") or 10),
            int(probe.get("timeoutSeconds") or 1),
            int(probe.get("successThreshold") or 1),
            int(probe.get("failureThreshold") or 3),
        )


@dataclass(slots=True)
class Tally:
    """Counts equal answers in a row, until they are enough to change the result."""

    spec: ProbeSpec
    last: ProbeResult | None = None
    run: int = 0

    def count(self, answer: ProbeResult) -> ProbeResult | None:
        """Return the result that now holds, None while the old one stays."""
        self.run = self.run + 1 if answer is self.last else 1
        self.last = answer
        failed = answer is ProbeResult.FAILURE
        needed = self.spec.failure_threshold if failed else self.spec.success_threshold
        return answer if self.run >= needed else None


@dataclass(frozen=True, slots=True)
class Answer:
    """One check's outcome.

    `warning`: it counts as a success, and its output is worth an event.
    """

    success: bool
    output: str = ""
    warning: bool = False


class CheckError(Exception):
    """A check that could not be made: says nothing about the container."""
