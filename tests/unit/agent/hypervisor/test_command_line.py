"""The rendering of the device contract."""

from vk_provider.agent.hypervisor.command_line import (
    Accelerator,
    QemuInvocation,
    kernel_command_line,
)
from vk_provider.agent.hypervisor.devices import (
    MemoryBackend,
    MemoryBackendFile,
    MemoryBackendRam,
    Monitor,
    VirtioNet,
    VirtioSerial,
    block_node,
    options,
    scsi_disk,
)

TCG = Accelerator("tcg", 32, 2_596_130)


def invocation(
    memory: MemoryBackend | None = None, tap_fd: int | None = None, incoming: bool = False
) -> QemuInvocation:
    return QemuInvocation(
        qemu="qemu-system-x86_64",
        name="/run/vms/a,b",
        accelerator=TCG,
        vcpus=2,
        ram_mib=576,
        memory=memory or MemoryBackendRam(576),
        kernel_fd=10,
        initramfs_fd=11,
        monitor=Monitor(12),
        serial=VirtioSerial(13, 14),
        network=VirtioNet(tap_fd),
        incoming=incoming,
    )


def after(arguments: list[str], option: str) -> list[str]:
    return [arguments[i + 1] for i, word in enumerate(arguments) if word == option]


def test_options_are_escaped_and_switches_said_in_qemus_words() -> None:
    assert options("a", some_key="x,y", on=True, off=False, none=None) == (
        "a,some-key=x,,y,on=on,off=off"
    )


def test_the_device_contract_is_version_1() -> None:
    # A change of this list is a new CONTRACT_VERSION: adopted VMs and templates have the old one.
    assert after(invocation().render(), "-device") == [
        "virtio-serial-device,max_ports=3,id=serial0",
        "virtserialport,nr=1,chardev=control,id=control,name=vk.control",
        "virtserialport,nr=2,chardev=bulk,id=bulk,name=vk.bulk",
        "virtio-scsi-device,id=scsi0",
        "virtio-net-device,netdev=net0,status=off",
        "virtio-balloon-device,id=balloon0,free-page-reporting=on",
    ]
    assert after(invocation().render(), "-machine") == [
        "microvm,memory-backend=mem,pit=off,pic=off,rtc=on,isa-serial=on"
    ]


def test_qemu_is_confined_and_starts_stopped() -> None:
    arguments = invocation().render()
    assert after(arguments, "-sandbox") == [
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
    ]
    assert {"-S", "-no-reboot", "-nodefaults", "-no-user-config"} <= set(arguments)
    assert after(arguments, "-action") == ["shutdown=pause,panic=pause"]


def test_what_qemu_opens_is_handed_to_it() -> None:
    arguments = invocation().render()
    assert after(arguments, "-kernel") == ["/proc/self/fd/10"]
    assert after(arguments, "-initrd") == ["/proc/self/fd/11"]
    assert "socket,id=qmp,fd=12,server=on,wait=off" in arguments
    assert "socket,id=bulk,fd=14,server=on,wait=off" in arguments
    assert after(arguments, "-name") == ["guest=/run/vms/a,,b"]


def test_a_restored_vm_maps_the_template_privately() -> None:
    arguments = invocation(MemoryBackendFile(576, 9, share=False), incoming=True).render()
    (memory,) = after(arguments, "-object")
    assert "mem-path=/proc/self/fd/9" in memory
    assert "share=off" in memory
    assert after(arguments, "-incoming") == ["defer"]


def test_guest_memory_is_in_no_core_dump_and_never_merged() -> None:
    for memory in (MemoryBackendRam(64), MemoryBackendFile(64, 3, share=True)):
        (rendered,) = after(invocation(memory).render(), "-object")
        assert "dump=off,merge=off" in rendered


def test_the_network_is_a_tap_or_leads_nowhere() -> None:
    assert after(invocation().render(), "-netdev") == ["hubport,id=net0,hubid=0"]
    assert after(invocation(tap_fd=7).render(), "-netdev") == ["tap,id=net0,fd=7"]


def test_only_tcg_is_told_the_clock() -> None:
    assert "tsc_early_khz=2596130 tsc=reliable" in kernel_command_line(TCG)
    assert "tsc" not in kernel_command_line(Accelerator("kvm", 32, 2_596_130))
    assert Accelerator("kvm", 32, 0).render() == ["-accel", "kvm"]
    assert TCG.render() == ["-accel", "tcg,tb-size=32"]


def test_disks_are_found_by_their_lun() -> None:
    assert scsi_disk(3)["lun"] == 3
    assert scsi_disk(3)["drive"] == block_node(3, 103, read_only=True)["node-name"] == "lun3"


def test_an_image_is_never_written() -> None:
    assert block_node(1, 101, read_only=True)["read-only"] is True
    assert block_node(0, 100, read_only=False)["discard"] == "unmap"
