"""What the hypervisor is asked for and what it tells: values only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from vk_provider.common.errors import Internal, Invalid

CONTRACT_VERSION = 1
"""Of the VM's device contract in ARCHITECTURE.md; part of a template's key."""

OVERHEAD_MIB = 144
"""What a VM has beyond its shape, for the guest's kernel and agent. Not billed."""

_OVERHEAD_DIVISOR = 50
"""And a 50th of the shape: the kernel keeps 64 bytes for each page, and hash tables by size."""


@dataclass(frozen=True)
class HypervisorSettings:
    """Places and limits. `state_dir` keeps what was probed and the templates."""

    state_dir: Path
    run_dir: Path
    """On a tmpfs, for the hypervisor's own VMs (probes, templates in the making)."""
    qemu: str = "qemu-system-x86_64"
    cgroup: str = "vk-provider"
    """Under the root of each hierarchy; every VM has a group of its own in it."""
    templates: bool = True
    service_uid: int = 1_999_999
    """Whom QEMU runs as for probes and templates in the making."""
    cold_deadline_s: float = 30.0
    """From the start of QEMU to the guest's answer; a boot that takes longer is tried again."""
    restore_deadline_s: float = 10.0
    attempts: int = 3
    """How often a cold boot is tried."""
    tb_size_mib: int = 64
    """TCG's translation cache for each VM."""
    template_space_bytes: int = 4 * 1024**3
    """What all templates together may take; the least recently used go first."""
    template_min_free_bytes: int = 1024**3
    """No template is made, and old ones go, when the file system has less than that."""


@dataclass(frozen=True)
class VmSpec:
    """One VM to start.

    memory_mib: the shape's; the VM gets what `ram_mib` says. cpu_milli: what QEMU's cgroup allows
    once the guest has answered (its start is bounded by its vCPUs alone). netns: a name under
    /run/netns, None for the host's. tap_fd: a tap with vnet_hdr, or None for a network device
    that leads nowhere; QEMU gets a duplicate and the caller closes its own. run_dir exists.
    """

    sandbox_id: str
    vcpus: int
    memory_mib: int
    cpu_milli: int
    uid: int
    netns: str | None
    tap_fd: int | None
    run_dir: Path
    allow_template: bool = True

    def __post_init__(self) -> None:
        if self.vcpus < 1 or self.memory_mib < 64 or self.cpu_milli < 1:
            raise Invalid(
                f"a VM of {self.vcpus} vCPU, {self.memory_mib} MiB and {self.cpu_milli} mCPU "
                "cannot be started; it needs 1 vCPU and 64 MiB at least"
            )
        if self.uid <= 0:
            raise Invalid(f"QEMU cannot run as user {self.uid}; give each VM a user of its own")

    @property
    def ram_mib(self) -> int:
        return ram_mib(self.memory_mib)


def ram_mib(memory_mib: int) -> int:
    """Return the RAM of a VM of that shape: so much that the shape's memory is free for the pod.

    Measured: of 576 MiB the guest had 531 in total and 433 available before the first container.
    """
    return memory_mib + OVERHEAD_MIB + -(-memory_mib // _OVERHEAD_DIVISOR)


@dataclass(frozen=True)
class VmRecord:
    """What finds a VM again after a restart of the agent. Holds no secret."""

    sandbox_id: str
    pid: int
    start_ticks: int
    """The process's start time from /proc/PID/stat: a pid alone may be another's by now."""
    run_dir: str
    uid: int
    cgroup: str
    start_mode: str
    """"cold" or "template"."""
    start_reason: str
    contract_version: int
    memory_mib: int
    cpu_milli: int

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises Internal for what is no such record. Fields of newer agents are left alone."""
        known = {f.name for f in fields(cls)}
        try:
            values: dict[str, Any] = json.loads(text)
            return cls(**{name: value for name, value in values.items() if name in known})
        except (ValueError, TypeError, AttributeError) as exc:
            raise Internal(f"the record of a VM cannot be read: {exc}") from exc


@dataclass(frozen=True)
class VmExit:
    """How a VM ended. code: QEMU's exit status (negative: a signal), None where nobody could see.

    message: "" when the guest powered itself off, else what is known of the reason, with the end
    of the guest's console.
    """

    code: int | None
    message: str


@dataclass(frozen=True)
class VmUsage:
    """What QEMU uses. private_memory_bytes: pages that no other VM shares."""

    cpu_ns: int
    private_memory_bytes: int


@dataclass(frozen=True)
class AcceleratorInfo:
    """What runs the guest's instructions, and why it was chosen, in words."""

    name: str
    """"kvm" or "tcg"."""
    reason: str
    qemu_version: str
