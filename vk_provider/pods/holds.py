"""Events when a pod waits for the host's disk, and when it goes on: nothing else would show it."""

from __future__ import annotations

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.pod_state import PodState
from vk_provider.pods.podspec import Pod
from vk_provider.pods.recorder import Recorder, field_path


def tell_holds(recorder: Recorder, pod: Pod, before: PodState, after: PodState) -> None:
    """Record what has begun or ceased to wait between two states of a pod."""
    vms = {sandbox.sandbox_id: sandbox.held for sandbox in before.sandboxes}
    logs = {container.container_id: container.log_held for container in before.containers}
    for sandbox in after.sandboxes:
        if sandbox.state != pb.SANDBOX_READY:
            continue  # what waited has ended with its VM, and goes on no more
        was_held = vms.get(sandbox.sandbox_id, "")
        if sandbox.held and sandbox.held != was_held:
            message = f"The pod's VM stands still: {sandbox.held}. It goes on when there is room"
            recorder.event(pod, "Warning", "VMPaused", message)
        elif was_held and not sandbox.held:
            recorder.event(pod, "Normal", "VMResumed", "The pod's VM goes on")
        for container in sandbox.containers:
            _tell_log(recorder, pod, container, logs.get(container.container_id, ""))


def _tell_log(recorder: Recorder, pod: Pod, container: pb.ContainerStatus, was_held: str) -> None:
    path = field_path(pod, container.name)
    if container.log_held and container.log_held != was_held:
        message = (
            f"The output of container {container.name} waits in its VM: its log cannot be written: "
            f"{container.log_held}. It goes on when there is room"
        )
        recorder.event(pod, "Warning", "LogWriteFailed", message, field_path=path)
    elif was_held and not container.log_held:
        message = f"The log of container {container.name} is written again"
        recorder.event(pod, "Normal", "LogWriteResumed", message, field_path=path)
