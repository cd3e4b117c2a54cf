"""The built-in network's addresses and rules, as text."""

from __future__ import annotations

from typing import Any

import pytest

from vk_provider.agent.network import firewall, host
from vk_provider.agent.network.attachment import netns_name
from vk_provider.agent.network.result import addresses_of
from vk_provider.common.errors import Internal, Invalid


def test_pod_cidrs_are_checked() -> None:
    assert host.check_cidrs(["10.1.0.0/24", "fd00::/64"]) == ["10.1.0.0/24", "fd00::/64"]
    for bad in (["10.1.0.0"], ["10.1.0.1/24"], ["10.1.0.0/31"], ["10.1.0.0/24", "10.2.0.0/24"]):
        with pytest.raises(Invalid):
            host.check_cidrs(bad)


def test_the_gateway_is_the_first_address_and_gives_the_mac() -> None:
    assert host.gateways(["10.1.0.0/24", "fd00::/64"]) == ["10.1.0.1/24", "fd00::1/64"]
    assert host.bridge_mac("10.1.0.0/24") == "0a:58:0a:01:00:01"


def test_only_traffic_that_leaves_for_strangers_is_masqueraded() -> None:
    script = firewall.rules(["10.1.0.0/24"], ["10.1.0.0/16"], "vkbr0")
    assert (
        "ip saddr { 10.1.0.0/24 } ip daddr != { 10.1.0.0/16, 224.0.0.0/4 } "
        'oifname != { "vkbr0", "lo" } masquerade' in script
    )
    assert "ip6 saddr" not in script


def test_host_ports_are_kept_by_address_where_one_is_asked_for() -> None:
    mappings = [
        {"hostPort": 80, "containerPort": 8080, "protocol": "tcp"},
        {"hostPort": 53, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1"},
        {"hostPort": 54, "containerPort": 54, "protocol": "udp", "hostIP": "0.0.0.0"},
        {"hostPort": 55, "containerPort": 55, "protocol": "udp", "hostIP": "::1"},
    ]
    assert firewall.add_ports(mappings, ["10.1.0.2"]).splitlines() == [
        "add element inet vk_provider ports4 { tcp . 80 : 10.1.0.2 . 8080 }",
        "add element inet vk_provider ports4_at { 192.0.2.1 . udp . 53 : 10.1.0.2 . 53 }",
        "add element inet vk_provider ports4 { udp . 54 : 10.1.0.2 . 54 }",
    ]
    assert "delete element inet vk_provider ports4 { tcp . 80 }" in firewall.remove_ports(
        mappings, ["10.1.0.2"]
    )
    assert firewall.add_ports([], ["10.1.0.2"]) == ""


def test_only_sandbox_ids_name_namespaces() -> None:
    sandbox = "0123456789abcdef" * 2
    assert netns_name(sandbox) == f"vk-{sandbox}"
    for bad in ("../../etc", "", sandbox.upper()):
        with pytest.raises(Invalid):
            netns_name(bad)


def test_addresses_are_those_of_the_pods_side() -> None:
    result = {
        "interfaces": [{"name": "vkbr0"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
        "ips": [
            {"address": "10.9.9.9/24", "interface": 0},
            {"address": "10.1.0.2/24", "interface": 1},
            {"address": "fd00::2/64"},
        ],
    }
    assert addresses_of(result, "net") == ["10.1.0.2/24", "fd00::2/64"]
    damaged: list[dict[str, Any]] = [
        {},
        {"ips": []},
        {"ips": [{}]},
        {"ips": [{"address": "x"}]},
        {"ips": ["x"]},
    ]
    for bad in damaged:
        with pytest.raises(Internal):
            addresses_of(bad, "net")
