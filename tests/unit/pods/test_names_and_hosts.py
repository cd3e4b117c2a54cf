"""Host names, /etc/hosts and the text of names."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.podspecs import make_pod
from vk_provider.pods.errors import SandboxConfigError
from vk_provider.pods.hostname import PodHostname, pod_hostname
from vk_provider.pods.hosts_file import make_hosts_file
from vk_provider.pods.podspec import describe, go_quote
from vk_provider.pods.settings import PodSettings

SETTINGS = PodSettings(cluster_domain="cluster.test")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, PodHostname("web", "")),
        ({"hostname": "db-0"}, PodHostname("db-0", "")),
        (
            {"hostname": "db-0", "subdomain": "db"},
            PodHostname("db-0", "db.shop.svc.cluster.test"),
        ),
        ({"subdomain": "db"}, PodHostname("web", "db.shop.svc.cluster.test")),
        (
            {"hostnameOverride": "a.b", "hostname": "x", "subdomain": "y"},
            PodHostname("a.b", ""),
        ),
        ({"hostnameOverride": "a" * 62 + "-b"}, PodHostname("a" * 62, "")),
    ],
)
def test_the_hostname_follows_the_spec(spec: Any, expected: Any) -> None:
    assert pod_hostname(make_pod(**spec), SETTINGS) == expected


def test_a_long_pod_name_is_cut_and_does_not_end_in_a_separator() -> None:
    pod = make_pod(name="a" * 61 + ".-" + "b" * 30)
    assert pod_hostname(pod, SETTINGS).name == "a" * 61


@pytest.mark.parametrize(
    "spec",
    [{"hostname": "Not_A_Label"}, {"subdomain": "a.b"}, {"hostnameOverride": "a..b"}],
)
def test_names_that_are_none_are_refused(spec: Any) -> None:
    with pytest.raises(SandboxConfigError, match="is not a valid DNS"):
        pod_hostname(make_pod(**spec), SETTINGS)


def test_the_kernel_shows_the_fqdn_only_when_asked_and_where_it_fits() -> None:
    host = PodHostname("web", "db.shop.svc.cluster.test")
    assert host.for_kernel(make_pod()) == "web"
    assert host.for_kernel(make_pod(setHostnameAsFQDN=True)) == "web.db.shop.svc.cluster.test"
    with pytest.raises(SandboxConfigError, match="64 characters is the max, 75 characters"):
        PodHostname("w" * 50, "db.shop.svc.cluster.test").for_kernel(
            make_pod(setHostnameAsFQDN=True)
        )


def test_the_hosts_file_names_the_pod_at_each_address_and_its_aliases() -> None:
    pod = make_pod(
        hostname="db-0",
        subdomain="db",
        hostAliases=[{"ip": "192.0.2.7", "hostnames": ["one", "two"]}],
    )
    text = make_hosts_file(pod, ["10.0.0.1", "fd00::1"], settings=SETTINGS).decode()
    assert text.startswith("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\t")
    assert text.endswith(
        "10.0.0.1\tdb-0.db.shop.svc.cluster.test\tdb-0\n"
        "fd00::1\tdb-0.db.shop.svc.cluster.test\tdb-0\n"
        "\n# Entries added by HostAliases.\n192.0.2.7\tone\ttwo\n"
    )


def test_without_a_subdomain_the_hosts_file_has_the_short_name_alone() -> None:
    assert make_hosts_file(make_pod(), ["10.0.0.1"], settings=SETTINGS).endswith(
        b"fe00::2\tip6-allrouters\n10.0.0.1\tweb\n"
    )


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("plain", '"plain"'),
        ('say "hi"\n', r'"say \"hi\"\n"'),
        ("tab\tbell\a\x01\x7f", r'"tab\tbell\a\x01\x7f"'),
        ("é ☃ \U0001f600", '"é ☃ \U0001f600"'),
        ("\u200b\U000e0001", r'"\u200b\U000e0001"'),
    ],
)
def test_text_is_quoted_as_go_quotes_it(text: Any, quoted: Any) -> None:
    assert go_quote(text) == quoted


def test_a_pod_is_described_by_name_namespace_and_uid() -> None:
    assert describe(make_pod()) == "web_shop(u-1)"
