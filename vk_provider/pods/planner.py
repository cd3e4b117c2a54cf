"""What to do for a pod, given what it should be and what it is (kubelet computePodActions).

Pure: no clock, no I/O. Back-off is left to the executor, since it delays an action and does not
change which one it is.
"""

from __future__ import annotations

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.actions import Kill, PodActions, ProbeResults, is_changed, kill_unknown
from vk_provider.pods.init_planner import plan_init_containers
from vk_provider.pods.pod_state import PodState
from vk_provider.pods.podspec import Container, Pod, app_containers, init_containers
from vk_provider.pods.resize import change
from vk_provider.pods.restart import restart_policy, restarts_after_kill, should_start


def plan(pod: Pod, state: PodState, probes: ProbeResults) -> PodActions:
    """Return what follows for a pod that is meant to run."""
    actions = _plan_sandbox(state)
    if actions.create_sandbox:
        return _plan_from_scratch(pod, state, actions)
    for container in pod["spec"].get("ephemeralContainers") or ():
        # Ephemeral containers are never started twice.
        if state.latest(str(container["name"])) is None:
            actions.start_ephemeral.append(str(container["name"]))
    initialized = plan_init_containers(pod, state, probes, actions)
    if actions.kill_pod or not initialized:
        return actions
    kept = sum(_plan_app(pod, c, state, probes, actions) for c in app_containers(pod))
    if kept == 0 and not actions.start:
        actions.kill_pod = True
        actions.start_init.clear()  # sidecars alone do not keep a pod
    return actions


def _plan_sandbox(state: PodState) -> PodActions:
    """Decide on the sandbox (kubelet PodSandboxChanged)."""
    newest = state.sandbox
    if newest is None:
        return PodActions(kill_pod=True, create_sandbox=True)
    if newest.state == pb.SANDBOX_STARTING:
        # Ours, from before a restart or a lost answer: the call is idempotent, so join it.
        return PodActions(create_sandbox=True, attempt=newest.attempt)
    others = [s for s in state.sandboxes[1:] if s.state == pb.SANDBOX_READY]
    if newest.state == pb.SANDBOX_READY and not others:
        return PodActions(attempt=newest.attempt)
    return PodActions(
        kill_pod=True, create_sandbox=True, attempt=newest.attempt + 1, replaces_sandbox=True
    )


def _plan_from_scratch(pod: Pod, state: PodState, actions: PodActions) -> PodActions:
    """A new sandbox: start from the beginning, unless the pod's work is done."""
    runs_once = restart_policy(pod) == "Never"
    if runs_once and actions.attempt != 0 and state.containers:
        actions.create_sandbox = False
        return actions
    wanted = [
        str(c["name"])
        for c in app_containers(pod)
        if not (
            (c.get("restartPolicy") or restart_policy(pod)) == "OnFailure" and _succeeded(c, state)
        )
    ]
    if not wanted and any_app_container_created(pod, state):
        actions.create_sandbox = False
        return actions
    inits = init_containers(pod)
    if inits:
        actions.start_init = [str(inits[0]["name"])]
    else:
        actions.start = wanted
    return actions


def _plan_app(
    pod: Pod, container: Container, state: PodState, probes: ProbeResults, actions: PodActions
) -> bool:
    """Decide on one app container; True where it runs and is kept."""
    name = str(container["name"])
    status = state.latest(name)
    if status is None or status.state != pb.CONTAINER_RUNNING:
        if should_start(container, pod, state):
            actions.start.append(name)
            if status is not None and status.state == pb.CONTAINER_UNKNOWN:
                kill_unknown(status, "Container", actions)
        return False
    restart = restarts_after_kill(container, pod)
    if is_changed(container, status):
        kill = Kill(status.container_id, name, f"Container {name} definition changed")
        restart = True
    elif status.container_id in probes.failed_liveness:
        text = f"Container {name} failed liveness probe"
        kill = Kill(status.container_id, name, text, "LivenessProbe")
    elif probes.startup.get(status.container_id) is False:
        text = f"Container {name} failed startup probe"
        kill = Kill(status.container_id, name, text, "StartupProbe")
    else:
        return _plan_resize(container, status, actions)
    if restart:
        text = f"{kill.message}, will be restarted"
        kill = Kill(kill.container_id, name, text, kill.reason)
        actions.start.append(name)
    actions.kills[kill.container_id] = kill
    return False


def _plan_resize(container: Container, status: pb.ContainerStatus, actions: PodActions) -> bool:
    """Have a running container get the resources that it was given; True where it is kept."""
    name, needed = str(container["name"]), change(container, status)
    if needed == "restart":
        text = f"Container {name} resize requires restart"
        actions.kills[status.container_id] = Kill(status.container_id, name, text)
        actions.start.append(name)
        return False
    if needed == "update":
        actions.resize.append(name)
    return True


def any_app_container_created(pod: Pod, state: PodState) -> bool:
    """Say whether any app container was ever created: then the init containers were done."""
    known = {pb.CONTAINER_CREATED, pb.CONTAINER_RUNNING, pb.CONTAINER_EXITED}
    latest = (state.latest(str(c["name"])) for c in app_containers(pod))
    return any(status is not None and status.state in known for status in latest)


def _succeeded(container: Container, state: PodState) -> bool:
    status = state.latest(str(container["name"]))
    return status is not None and status.state == pb.CONTAINER_EXITED and status.exit_code == 0
