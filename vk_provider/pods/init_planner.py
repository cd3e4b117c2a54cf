"""The part of the plan that is about init containers (kubelet computeInitContainerActions).

The list is read from its end, since records of the first ones may be gone: the last one that has
a record says how far the pod has come.
"""

from __future__ import annotations

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.actions import Kill, PodActions, ProbeResults, is_changed, kill_unknown
from vk_provider.pods.pod_state import PodState
from vk_provider.pods.podspec import Container, Pod, app_containers, init_containers, is_sidecar
from vk_provider.pods.resize import change
from vk_provider.pods.restart import restarts_after_kill, should_start


def plan_init_containers(
    pod: Pod, state: PodState, probes: ProbeResults, actions: PodActions
) -> bool:
    """Add what init containers and sidecars need; True where app containers may be started."""
    inits = init_containers(pod)
    if not inits:
        return True
    return _InitPlan(pod, inits, state, probes, actions).run()


class _InitPlan:
    def __init__(
        self,
        pod: Pod,
        inits: list[Container],
        state: PodState,
        probes: ProbeResults,
        actions: PodActions,
    ) -> None:
        self._pod = pod
        self._inits = inits
        self._state = state
        self._probes = probes
        self._actions = actions
        self._start: list[int] = []
        names = {str(c["name"]) for c in app_containers(pod)}
        # Only the present sandbox counts: in a new one everything begins again.
        self._initialized = any(status.name in names for status in state.active)
        self._later_one_began = self._initialized
        self._failed = False

    def run(self) -> bool:
        for i in range(len(self._inits) - 1, -1, -1):
            self._visit(i)
            if self._failed:
                self._actions.kill_pod = True
                self._actions.start_init = []
                return False
        if not self._later_one_began:
            self._start.append(0)
        ordered = dict.fromkeys(reversed(self._start))
        self._actions.start_init = [str(self._inits[i]["name"]) for i in ordered]
        return self._initialized

    def _visit(self, i: int) -> None:
        container = self._inits[i]
        status = self._state.latest_active(str(container["name"]))
        if status is None:
            if self._later_one_began and is_sidecar(container):
                self._start.append(i)  # it began once, and its record is gone
            return
        if self._later_one_began and not is_sidecar(container):
            return
        if status.state == pb.CONTAINER_CREATED:
            self._start.append(i)  # created and never started: take it up again
        elif status.state == pb.CONTAINER_RUNNING:
            if is_sidecar(container):
                self._running_sidecar(i, container, status)
        elif status.state == pb.CONTAINER_EXITED:
            self._exited(i, container, status)
        else:
            self._unknown(i, container, status)
        self._later_one_began = True

    def _running_sidecar(self, i: int, container: Container, status: pb.ContainerStatus) -> None:
        name, id_ = str(container["name"]), status.container_id
        if container.get("startupProbe"):
            passed = self._probes.startup.get(id_)
            if passed is None:
                return
            if not passed:
                text = f"Init container {name} failed startup probe"
                self._restart(i, Kill(id_, name, text, "StartupProbe"))
                return
        self._done(i)
        if is_changed(container, status):
            self._restart(i, Kill(id_, name, f"Init container {name} definition changed"))
        elif container.get("livenessProbe") and id_ in self._probes.failed_liveness:
            text = f"Init container {name} failed liveness probe"
            self._restart(i, Kill(id_, name, text, "LivenessProbe"))
        elif (needed := change(container, status)) == "restart":
            self._restart(i, Kill(id_, name, f"Container {name} resize requires restart"))
        elif needed == "update":
            self._actions.resize.append(name)

    def _exited(self, i: int, container: Container, status: pb.ContainerStatus) -> None:
        if is_sidecar(container):
            self._start.append(i)
        elif status.exit_code == 0:
            self._done(i)
        elif should_start(container, self._pod, self._state):
            self._start.append(i)
        else:
            self._failed = True

    def _unknown(self, i: int, container: Container, status: pb.ContainerStatus) -> None:
        if not is_sidecar(container) and not restarts_after_kill(container, self._pod):
            self._failed = True
            return
        kill_unknown(status, "Init container", self._actions)
        self._start.append(i)

    def _done(self, i: int) -> None:
        """Container `i` has done its part: the next one's turn, or the app containers'."""
        if i == len(self._inits) - 1:
            self._initialized = True
        elif not self._later_one_began:
            self._start.append(i + 1)

    def _restart(self, i: int, kill: Kill) -> None:
        self._actions.kills[kill.container_id] = kill
        self._start.append(i)
