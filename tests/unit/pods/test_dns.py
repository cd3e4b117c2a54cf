"""resolv.conf: policies, merging, limits."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.podspecs import make_pod
from vk_provider.pods.dns import parse_resolv_conf, pod_dns
from vk_provider.pods.settings import PodSettings

HOST = "# by hand\nsearch lan.test. other.test\nnameserver 192.0.2.53\noptions edns0 timeout:1\n"
SETTINGS = PodSettings(cluster_dns=("10.96.0.10",), cluster_domain="cluster.test")


def dns(settings: Any = SETTINGS, **spec: Any) -> Any:
    return pod_dns(make_pod(**spec), host_resolv_conf=HOST, settings=settings)


def test_cluster_first_asks_the_cluster_and_searches_it_before_the_host() -> None:
    assert dns(dnsPolicy="ClusterFirst").render() == (
        "search shop.svc.cluster.test svc.cluster.test cluster.test lan.test other.test\n"
        "nameserver 10.96.0.10\n"
        "options ndots:5\n"
    )


def test_default_is_the_hosts_own() -> None:
    assert dns(dnsPolicy="Default").render() == (
        "search lan.test other.test\nnameserver 192.0.2.53\noptions edns0 timeout:1\n"
    )


def test_none_is_what_the_pod_says_alone() -> None:
    config = {
        "nameservers": ["192.0.2.1"],
        "searches": ["a.test"],
        "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
    }
    assert dns(dnsPolicy="None", dnsConfig=config).render() == (
        "search a.test\nnameserver 192.0.2.1\noptions ndots:2 edns0\n"
    )


def test_dns_config_is_added_without_doubles_and_its_options_win() -> None:
    config = {
        "nameservers": ["10.96.0.10", "192.0.2.2"],
        "searches": ["lan.test", "mine.test"],
        "options": [{"name": "ndots", "value": "3"}],
    }
    found = dns(dnsConfig=config)
    assert found.servers == ("10.96.0.10", "192.0.2.2")
    assert found.searches[-3:] == ("lan.test", "other.test", "mine.test")
    assert found.options == ("ndots:3",)
    assert found.warnings == ()


def test_cluster_first_without_a_cluster_dns_falls_back_and_warns() -> None:
    found = dns(PodSettings())
    assert found.servers == ("192.0.2.53",)
    (reason, message) = found.warnings[0]
    assert reason == "MissingClusterDNS"
    assert message.startswith('pod: "web_shop(u-1)". kubelet does not have ClusterDNS IP')


def test_more_servers_than_resolvers_read_are_left_out_with_a_warning() -> None:
    config = {"nameservers": [f"192.0.2.{i}" for i in range(1, 5)]}
    found = dns(dnsPolicy="None", dnsConfig=config)
    assert found.servers == ("192.0.2.1", "192.0.2.2", "192.0.2.3")
    message = (
        "Nameserver limits were exceeded, some nameservers have been omitted, the applied "
        "nameserver line is: 192.0.2.1 192.0.2.2 192.0.2.3"
    )
    assert found.warnings == (("DNSConfigForming", message),)


@pytest.mark.parametrize(
    ("searches", "kept"),
    [
        ([f"s{i}.test" for i in range(33)], 32),
        (["a." * 127 + "test", "ok.test"], 1),
        (["a" * 60 + "." + "b" * 60 + f".x{i}" for i in range(18)], 16),
    ],
    ids=["too many", "one too long", "the line too long"],
)
def test_searches_beyond_the_limits_are_left_out_with_a_warning(searches: Any, kept: Any) -> None:
    found = dns(dnsPolicy="None", dnsConfig={"searches": searches, "nameservers": ["192.0.2.1"]})
    assert len(found.searches) == kept
    assert len(" ".join(found.searches)) <= 2048
    assert [reason for reason, _ in found.warnings] == ["DNSConfigForming"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ([], [], [])),
        ("nameserver 1.2.3.4\nnameserver  5.6.7.8 ", (["1.2.3.4", "5.6.7.8"], [], [])),
        ("nameserver\nbogus line", ([], [], [])),
        ("#nameserver 1.2.3.4\n  # x", ([], [], [])),
        ("search a b\nsearch c. .", ([], ["c"], [])),
        ("options ndots:1 edns0\noptions ndots:2", ([], [], ["ndots:2", "edns0"])),
    ],
)
def test_resolv_conf_is_read_as_resolvers_read_it(text: Any, expected: Any) -> None:
    assert parse_resolv_conf(text) == expected
