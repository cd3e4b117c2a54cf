from __future__ import annotations

import pytest

from vk_provider.common.errors import Invalid
from vk_provider.node.settings import DEFAULT_TAINT, NodeSettings, Taint, parse_labels, parse_taint


def test_taints_are_read_with_and_without_a_value() -> None:
    assert parse_taint("a.b/k=v:NoExecute") == Taint("a.b/k", "v", "NoExecute")
    assert parse_taint("k:NoSchedule").as_object() == {"key": "k", "effect": "NoSchedule"}
    assert parse_taint(DEFAULT_TAINT).key == "vk-provider.dev/virtual-node"


@pytest.mark.parametrize("text", ["", "k", "k=v", "k=v:Never", "=v:NoSchedule", "k=a b:NoSchedule"])
def test_what_is_no_taint_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="is no taint"):
        parse_taint(text)


def test_labels_that_a_node_may_give_itself() -> None:
    texts = ["zone=a", "x.example/y=", "node.kubernetes.io/a=b", "topology.kubernetes.io/zone=z"]
    assert parse_labels(texts) == dict(t.split("=") for t in texts)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("zone", "write KEY=VALUE"),
        ("a b=c", "no valid label"),
        ("a=b c", "no valid label"),
        ("node-role.kubernetes.io/worker=", "may not give itself"),
        ("kubernetes.io/role=x", "may not give itself"),
        ("some.k8s.io/x=y", "may not give itself"),
    ],
)
def test_labels_that_it_may_not(text: str, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        parse_labels([text])


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "-a", "a" * 254])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(Invalid, match="can't be a node's name"):
        NodeSettings(name)


@pytest.mark.parametrize("address", ["x", "127.0.0.1", "169.254.1.1", "0.0.0.0", "::1", "ff02::1"])
def test_addresses_that_a_cluster_could_not_reach(address: str) -> None:
    with pytest.raises(Invalid, match="address"):
        NodeSettings("a", (address,))
