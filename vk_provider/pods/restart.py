"""Whether a container that ended is started again (podutil.ContainerShouldRestart)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.pod_state import PodState
from vk_provider.pods.podspec import Container, Pod


def restart_policy(pod: Pod) -> str:
    """Return the pod's policy: Always, OnFailure or Never."""
    return str(pod["spec"].get("restartPolicy") or "Always")


def is_deleted(pod: Pod) -> bool:
    """Say whether somebody asked for the pod's deletion."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def restarts_after_exit(container: Container, pod: Pod, exit_code: int) -> bool:
    """Say whether the policies start `container` again after it ended with `exit_code`.

    The container's first rule that matches decides, then its own policy, then the pod's. The
    action RestartAllContainers counts as no rule: this node does not declare that feature.
    """
    own = container.get("restartPolicy")
    if own is not None:
        rule = _matching_rule(container, exit_code)
        if rule is not None and rule.get("action") == "Restart":
            return True
        return _by_policy(str(own), exit_code)
    return _by_policy(restart_policy(pod), exit_code)


def restarts_after_kill(container: Container, pod: Pod) -> bool:
    """Say whether a container killed for a failed probe is meant to run again."""
    return (container.get("restartPolicy") or restart_policy(pod)) != "Never"


def should_start(container: Container, pod: Pod, state: PodState) -> bool:
    """Say whether `container` is to be started now (kubelet ShouldContainerBeRestarted)."""
    if is_deleted(pod):
        return False
    latest = state.latest(str(container["name"]))
    if latest is None:
        return True
    if latest.state == pb.CONTAINER_RUNNING:
        return False
    if latest.state != pb.CONTAINER_EXITED:
        return True
    return restarts_after_exit(container, pod, latest.exit_code)


def _by_policy(policy: str, exit_code: int) -> bool:
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def _matching_rule(container: Container, exit_code: int) -> Mapping[str, Any] | None:
    for rule in container.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes")
        if not codes:
            continue
        listed = exit_code in (codes.get("values") or ())
        if listed == (codes.get("operator") == "In"):
            found: Mapping[str, Any] = rule
            return found
    return None
