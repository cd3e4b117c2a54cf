"""One pod's facts, shared by its worker and by the action that is under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.actions import ProbeResults
from vk_provider.pods.holds import tell_holds
from vk_provider.pods.pod_state import PodState
from vk_provider.pods.podspec import Container, Pod, all_containers, uid_of
from vk_provider.pods.probes.model import ProbeKind, ProbeResult
from vk_provider.pods.resizing import Resizing
from vk_provider.pods.services import PodServices
from vk_provider.pods.status.containers import Waiting
from vk_provider.pods.status.generate import primary_ips
from vk_provider.runtime.ids import parse_status_container_id

_NS = 1_000_000_000
_RETRY_S = (1.0, 10.0)


@dataclass
class PodContext:
    """See the module. `report` shows a change at once, `wake_at` asks for another look."""

    services: PodServices
    pod: Pod
    """With the resources that it has been given; what the API asks for may be more."""
    resizing: Resizing
    report: Callable[[], None]
    wake_at: Callable[[int], None]
    state: PodState = field(default_factory=PodState)
    status: Mapping[str, Any] = field(default_factory=dict)
    """The newest status, written or not; at first what the API had."""
    waiting: dict[str, Waiting] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    """Termination messages by container id."""
    changes: int = 0
    """How often `state` was changed by an action: an older listing must not undo it."""
    sandbox_ids: set[str] = field(default_factory=set)
    """Every sandbox that was asked for, answered or not."""
    not_before: dict[str, int] = field(default_factory=dict)
    """When a container may be tried again, by name (wall time)."""
    released: set[str] = field(default_factory=set)
    """Ended runs whose back-off is over: what comes next is not delayed again."""
    told_backoff: set[str] = field(default_factory=set)
    _pauses: dict[str, float] = field(default_factory=dict)

    @property
    def uid(self) -> str:
        """The pod's UID."""
        return uid_of(self.pod)

    @property
    def pod_ips(self) -> list[str]:
        """The pod's addresses, one a family."""
        sandbox = self.state.ready_sandbox
        return primary_ips(sandbox.ips, self.services.host_ips()) if sandbox else []

    @property
    def pod_ip(self) -> str:
        """The pod's first address, "" for none."""
        return next(iter(self.pod_ips), "")

    def container(self, name: str) -> Container:
        """Return the newest definition of a container."""
        return next(c for c in all_containers(self.pod) if c["name"] == name)

    def observe(self, state: PodState) -> None:
        """Take a listing of the runtime."""
        tell_holds(self.services.recorder, self.pod, self.state, state)
        self.state = state
        self.sandbox_ids.update(s.sandbox_id for s in state.sandboxes)
        known = {run.container_id for run in state.containers}
        self.messages = {id_: text for id_, text in self.messages.items() if id_ in known}
        self.released &= known
        self.told_backoff &= known
        self._tell_probes()

    def merge_sandbox(self, sandbox: pb.SandboxStatus) -> None:
        """Take a sandbox as a call has answered it, and show it."""
        self.changes += 1
        self.observe(self.state.with_sandbox(sandbox))
        self.report()

    def merge_container(self, container: pb.ContainerStatus) -> None:
        """Take a container as a call has answered it, and show it."""
        self.changes += 1
        self.observe(self.state.with_container(container))
        self.report()

    def probe_results(self) -> ProbeResults:
        """Return what the probes know of the runs that are running."""
        probes = self.services.probes
        failed: set[str] = set()
        startup: dict[str, bool] = {}
        readiness: dict[str, bool] = {}
        for run in self.state.running():
            id_ = run.container_id
            if probes.result(ProbeKind.LIVENESS, id_) is ProbeResult.FAILURE:
                failed.add(id_)
            for kind, results in ((ProbeKind.STARTUP, startup), (ProbeKind.READINESS, readiness)):
                result = probes.result(kind, id_)
                if result is not None and result is not ProbeResult.UNKNOWN:
                    results[id_] = result is ProbeResult.SUCCESS
        return ProbeResults(failed, startup, readiness)

    def wait(self, name: str, waiting: Waiting, until_ns: int = 0) -> None:
        """Show a container as waiting and try it again at `until_ns`, else after a while."""
        self.waiting[name] = waiting
        if not until_ns:
            pause = self._pauses.get(name, _RETRY_S[0])
            self._pauses[name] = min(pause * 2, _RETRY_S[1])
            until_ns = self.services.clock.now_ns() + round(pause * _NS)
        self.not_before[name] = until_ns
        self.wake_at(until_ns)
        self.report()

    def started(self, name: str) -> None:
        """Forget why a container was waiting."""
        self.waiting.pop(name, None)
        self.not_before.pop(name, None)
        self._pauses.pop(name, None)

    def holds_back_resize(self) -> bool:
        """Say whether a resize that failed must wait for its next try; the worker is woken then."""
        until = self.resizing.retry_at_ns
        if until <= self.services.clock.now_ns():
            return False
        self.wake_at(until)
        return True

    def hurry(self) -> None:
        """Try again now what waits for something else than a crash loop's end."""
        for name, waiting in self.waiting.items():
            if waiting.reason in {"CreateContainerConfigError", "CreateContainerError"}:
                self.not_before.pop(name, None)

    def past_run(self, name: str) -> Mapping[str, Any] | None:
        """Return what the status tells of a container, where that is more than waiting."""
        for key in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
            for status in self.status.get(key) or ():
                if status["name"] == name:
                    known = status.get("lastState") or "waiting" not in status["state"]
                    return status if known else None
        return None

    def _tell_probes(self) -> None:
        probes = self.services.probes
        declared = {str(c["name"]) for c in all_containers(self.pod)}
        running = {run.name: run for run in self.state.running() if run.name in declared}
        for name in declared - running.keys():
            probes.container_stopped(self.uid, name)
        for name, run in running.items():
            shown = self.past_run(name) or {}
            same = parse_status_container_id(shown.get("containerID", "")) == run.container_id
            probes.container_running(
                self.uid,
                name,
                run.container_id,
                run.started_at_ns,
                self.pod_ip,
                was_started=same and bool(shown.get("started")),
                was_ready=same and bool(shown.get("ready")),
            )
