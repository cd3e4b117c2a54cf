"""Errors of this room that have a meaning of their own in a pod's status or events.

Their text is shown to the pod's owner as it is, so it is worded as the kubelet words it.
"""

from __future__ import annotations

from vk_provider.common.errors import VkError


class ConfigError(VkError):
    """A container can't be configured yet: waiting reason CreateContainerConfigError."""


class SandboxConfigError(VkError):
    """The sandbox can't be configured: event FailedCreatePodSandBox."""


class VolumeError(VkError):
    """A volume can't be filled yet: event FailedMount, and another try.

    Holds one message for each volume that failed.
    """

    def __init__(self, *messages: str) -> None:
        super().__init__("; ".join(messages))
        self.messages = messages


class HookError(VkError):
    """A lifecycle hook failed: event FailedPostStartHook or FailedPreStopHook."""
