"""The connection to a VM's guest agent: two gRPC channels over virtio-serial ports.

Opens, bounds and closes the channels and checks that both sides speak the same contract.
Refuses to know what the calls are for, and to trust the size of what comes back.
"""

from vk_provider.agent.guest.connection import PROTOCOL_VERSION, GuestConnection, check_hello

__all__ = ["PROTOCOL_VERSION", "GuestConnection", "check_hello"]
