"""QEMU: starts microVMs, hands them disks, ends them, and finds them again after a restart.

Holds the device contract (ARCHITECTURE.md), the choice of the accelerator, each VM's control
group, and the templates. Refuses to know what runs in a VM: images, networks and containers are
the agent's, and what the guest agent is asked is its callers'.
"""

from vk_provider.agent.hypervisor.guest_image import GuestImage
from vk_provider.agent.hypervisor.hypervisor import Hypervisor, instance_name
from vk_provider.agent.hypervisor.spec import (
    CONTRACT_VERSION,
    OVERHEAD_MIB,
    AcceleratorInfo,
    HypervisorSettings,
    VmExit,
    VmRecord,
    VmSpec,
    VmUsage,
)
from vk_provider.agent.hypervisor.vm import Vm

__all__ = [
    "CONTRACT_VERSION",
    "OVERHEAD_MIB",
    "AcceleratorInfo",
    "GuestImage",
    "Hypervisor",
    "HypervisorSettings",
    "Vm",
    "VmExit",
    "VmRecord",
    "VmSpec",
    "VmUsage",
    "instance_name",
]
