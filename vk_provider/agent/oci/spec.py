"""A container's whole OCI runtime spec, and what the guest needs beside it.

It holds the environment, and so secrets: it goes to the guest and is kept nowhere on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.oci.mounts import SANDBOX, make_mounts
from vk_provider.agent.oci.process import ImageConfig, make_process
from vk_provider.agent.oci.resources import linux_resources
from vk_provider.agent.oci.users import User
from vk_provider.common.errors import Invalid

OCI_VERSION = "1.0.2"
# What containerd hides by default: state of the kernel that tells too much or can be changed.
_MASKED = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
    "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
]  # fmt: skip
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
_CHARACTER_DEVICES = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)]


@dataclass(frozen=True)
class Sources:
    """What a spec is made from beside the container's own configuration."""

    image: ImageConfig
    image_key: str
    user: User
    hostname: str
    share_process_namespace: bool = False
    target_pid: int = 0
    """In the guest: whose PID namespace to join; 0: none."""


def make_container_spec(
    config: pb.ContainerConfig, sources: Sources
) -> guest_pb2.CreateContainerRequest:
    """Return how the guest is to make a container.

    Raises Invalid for what can't be: no command, unknown capability, paths that climb, a seccomp
    profile of the host.
    """
    security = config.security
    if security.seccomp.type == pb.SeccompProfile.LOCALHOST:
        raise Invalid(
            f"container {config.name!r} wants the seccomp profile "
            f"{security.seccomp.localhost_ref!r} of the host, and a microVM has none; "
            "use RuntimeDefault or Unconfined"
        )
    process = make_process(config, sources.image, sources.user, sources.hostname)
    made = make_mounts(config)
    linux: dict[str, Any] = {
        "cgroupsPath": f"/pod/{config.container_id}",
        "namespaces": _namespaces(sources),
        "resources": linux_resources(config.resources) | {"devices": _devices(security.privileged)},
    }
    if not security.privileged and not security.unmasked_proc:
        linux |= {"maskedPaths": _MASKED, "readonlyPaths": _READ_ONLY}
    spec = {
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": {
            "path": f"/run/vk/containers/{config.container_id}/rootfs",
            "readonly": security.readonly_rootfs,
        },
        "mounts": made.mounts,
        "linux": linux,
    }
    return guest_pb2.CreateContainerRequest(
        container_id=config.container_id,
        oci_spec_json=orjson.dumps(spec).decode(),
        image_key=sources.image_key,
        sub_paths=made.sub_paths,
        files=made.files,
        stdin=config.stdin,
        stdin_once=config.stdin_once,
        tty=config.tty,
        termination_message_path=config.termination_message_path,
        make_directories=[process["cwd"]],
    )


def _namespaces(sources: Sources) -> list[dict[str, str]]:
    pid = {"type": "pid"}
    if sources.target_pid:
        pid["path"] = f"/proc/{sources.target_pid}/ns/pid"
    elif sources.share_process_namespace:
        pid["path"] = f"{SANDBOX}/ns/pid"
    return [
        pid,
        {"type": "mount"},
        {"type": "ipc", "path": f"{SANDBOX}/ns/ipc"},
        {"type": "uts", "path": f"{SANDBOX}/ns/uts"},
        {"type": "cgroup"},
    ]


def _devices(privileged: bool) -> list[dict[str, Any]]:
    """Return the device rules: all for a privileged container, else the harmless few."""
    if privileged:
        return [{"allow": True, "access": "rwm"}]
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    rules += [
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in _CHARACTER_DEVICES
    ]
    # Terminals, and making (not opening) nodes of any kind.
    rules.append({"allow": True, "type": "c", "major": 136, "access": "rwm"})
    rules += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
    return rules
