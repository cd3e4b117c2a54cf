"""Events when a pod waits for the host's disk, and when it goes on: nothing else would show it."""

from __future__ import annotations

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.pod_state import PodState
from vk_provider.pods.podspec import Pod
from vk_provider.pods.recorder import Recorder, field_path


def tell_holds(recorder: Recorder, pod: Pod, before: PodState, after: PodState) -> None:
    """Record what has begun or ceased to wait between two states of a pod."""
    vms = {sandbox.sandbox_id: sandbox.held for sandbox in before.sandboxes}
    for sandbox in after.sandboxes:
        was_held = vms.get(sandbox.sandbox_id, "")
        if sandbox.held and sandbox.held != was_held:
            message = f"The pod's VM stands still: {sandbox.held}. It goes on when there is room"
            recorder.event(pod, "Warning", "VMPaused", message)
        elif was_held and not sandbox.held and sandbox.state == pb.SANDBOX_READY:
            recorder.event(pod, "Normal", "VMResumed", "The pod's VM goes on")
    logs = {container.container_id: container.log_held for container in before.containers}
    for container in after.containers:
        was_held, path = logs.get(container.container_id, ""), field_path(pod, container.name)
        if container.log_held and container.log_held != was_held:
            message = (
                f"The output of container {container.name} waits in its VM, where nothing of it is "
                f"lost: its log cannot be written: {container.log_held}"
            )
            recorder.event(pod, "Warning", "LogWriteFailed", message, field_path=path)
        elif was_held and not container.log_held:
            message = f"The log of container {container.name} is written again"
            recorder.event(pod, "Normal", "LogWriteResumed", message, field_path=path)
