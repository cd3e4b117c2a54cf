"""What a guest may send."""

from __future__ import annotations

from vk_provider.agent.network.attachment import Interface
from vk_provider.agent.network.tap import own_packets


def test_only_packets_with_the_pods_own_addresses_pass() -> None:
    pod = Interface("0a:58:0a:01:00:02", 1500, ["10.1.0.2/24"], [])
    assert own_packets(pod) == [
        (0x0800, ["0x0a010002/0xffffffff+12"]),
        (
            0x0806,
            ["0x0a580a01/0xffffffff+8", "0x0002/0xffff+12", "0x0a010002/0xffffffff+14"],
        ),
    ]


def test_neighbour_discovery_passes_where_there_is_ipv6() -> None:
    pod = Interface("0a:58:0a:01:00:02", 1500, ["fd00::2/64"], [])
    own, link_local, unspecified = own_packets(pod)
    assert own[1][0] == "0xfd000000/0xffffffff+8"
    assert own[1][3] == "0x00000002/0xffffffff+20"
    assert link_local == (0x86DD, ["0xfe800000/0xffffffff+8", "0x00000000/0xffffffff+12"])
    assert len(unspecified[1]) == 4
