"""Configurations as operators bring them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vk_provider._pb.sandbox_pb2 import PortMapping
from vk_provider.agent.network import conflist
from vk_provider.common.errors import FailedPrecondition, Invalid

LIST = {
    "cniVersion": "0.4.0",
    "name": "kindnet",
    "plugins": [
        {"type": "ptp", "ipam": {"type": "host-local"}},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def parsed() -> conflist.Conflist:
    return conflist.parse(json.dumps(LIST).encode(), "10-kindnet.conflist")


def test_the_first_by_name_is_used(tmp_path: Path) -> None:
    assert conflist.load(tmp_path) is None
    assert conflist.load(tmp_path / "missing") is None
    (tmp_path / "20-b.conf").write_text('{"cniVersion":"1.0.0","name":"b","type":"bridge"}')
    (tmp_path / "10-a.conflist").write_text(json.dumps(LIST))
    (tmp_path / "00-readme.txt").write_text("no")
    found = conflist.load(tmp_path)
    assert found is not None
    assert found.name == "kindnet"
    (tmp_path / "10-a.conflist").unlink()
    found = conflist.load(tmp_path)
    assert found is not None
    assert [plugin["type"] for plugin in found.plugins] == ["bridge"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "has no name"),
        ('{"name":"a","type":"bridge"}', "version '0.2.0'"),
        ('{"name":"a","cniVersion":"1.0.0","plugins":[]}', "lists no plugins"),
        ('{"name":"a","cniVersion":"1.0.0","plugins":[{}]}', "no type"),
        ('{"name":"a","cniVersion":"1.0.0","plugins":[{"type":"../x"}]}', "no type"),
    ],
)
def test_a_bad_configuration_is_named_with_what_is_wrong(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "10-bad.conflist").write_text(text)
    with pytest.raises(FailedPrecondition, match=words):
        conflist.load(tmp_path)


def test_plugins_get_name_version_previous_result_and_their_capabilities() -> None:
    network = parsed()
    runtime = conflist.runtime_config(
        network, [PortMapping(host_port=80, container_port=8080, protocol="UDP")]
    )
    config = json.loads(conflist.plugin_config(network, network.plugins[1], runtime, {"ips": []}))
    assert config == {
        "type": "portmap",
        "name": "kindnet",
        "cniVersion": "0.4.0",
        "prevResult": {"ips": []},
        "runtimeConfig": {
            "portMappings": [{"hostPort": 80, "containerPort": 8080, "protocol": "udp"}]
        },
    }
    first = json.loads(conflist.plugin_config(network, network.plugins[0], runtime, None))
    assert "runtimeConfig" not in first
    assert "prevResult" not in first


def test_a_host_port_that_no_plugin_can_give_is_refused() -> None:
    value = {**LIST, "plugins": LIST["plugins"][:1]}
    network = conflist.parse(json.dumps(value).encode(), "x")
    assert conflist.runtime_config(network, []) == {}
    with pytest.raises(FailedPrecondition, match="portMappings"):
        conflist.runtime_config(network, [PortMapping(host_port=80, container_port=80)])


@pytest.mark.parametrize(
    "mapping",
    [
        PortMapping(host_port=80, container_port=80, protocol="ICMP"),
        PortMapping(host_port=0, container_port=80),
        PortMapping(host_port=70000, container_port=80),
        PortMapping(host_port=80, container_port=80, host_ip="localhost"),
    ],
)
def test_an_impossible_mapping_is_refused(mapping: PortMapping) -> None:
    with pytest.raises(Invalid):
        conflist.runtime_config(parsed(), [mapping])


def test_the_built_in_configuration_has_a_range_and_a_route_for_each_family() -> None:
    network = conflist.built_in(["10.1.0.0/24", "fd00::/64"], "vkbr0", 1400, Path("/x"))
    ipam = network.plugins[0]["ipam"]
    assert ipam["ranges"] == [
        [{"subnet": "10.1.0.0/24", "gateway": "10.1.0.1"}],
        [{"subnet": "fd00::/64", "gateway": "fd00::1"}],
    ]
    assert [(route["dst"], route["gw"]) for route in ipam["routes"]] == [
        ("0.0.0.0/0", "10.1.0.1"),
        ("::/0", "fd00::1"),
    ]
    assert network.is_built_in
    runtime = conflist.runtime_config(network, [PortMapping(host_port=1, container_port=2)])
    assert runtime["portMappings"][0]["protocol"] == "tcp"
