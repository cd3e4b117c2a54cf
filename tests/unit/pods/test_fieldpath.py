"""Fields of the downward API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.podspecs import make_pod
from vk_provider.common.errors import Invalid
from vk_provider.pods.fieldpath import environment_field, metadata_field, split_subscript

POD = make_pod(
    labels={"b": "2", "a": "one\n", "example.com/x": "y"},
    annotations={"Note": "said", "example.com/note": 'a "word"'},
    nodeName="vk-1",
)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels", 'a="one\\n"\nb="2"\nexample.com/x="y"'),
        ("metadata.annotations", 'Note="said"\nexample.com/note="a \\"word\\""'),
        ("metadata.labels['a']", "one\n"),
        ("metadata.labels['example.com/x']", "y"),
        ("metadata.labels['missing']", ""),
        ("metadata.annotations['example.com/note']", 'a "word"'),
        ("metadata.annotations['Note']", "said"),
    ],
)
def test_metadata_is_shown(path: Any, expected: Any) -> None:
    assert metadata_field(POD, path) == expected


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("metadata.generation", "unsupported fieldPath: metadata.generation"),
        ("spec.restartPolicy", "unsupported fieldPath"),
        ("metadata.name['x']", "does not support subscript"),
        ("metadata.labels['']", "invalid key subscript"),
        ("metadata.labels['a b']", "invalid key subscript"),
        ("metadata.labels['UPPER.com/x']", "invalid key subscript"),
        ("metadata.labels['" + "x" * 64 + "']", "invalid key subscript"),
    ],
)
def test_other_fields_are_refused(path: Any, complaint: Any) -> None:
    with pytest.raises(Invalid, match=complaint):
        metadata_field(POD, path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.annotations['k']", ("metadata.annotations", "k")),
        ("metadata.annotations['a[b]c']", ("metadata.annotations", "a[b]c")),
        ("metadata.labels['']", ("metadata.labels", "")),
        ("metadata.labels", None),
        ("metadata.labels[k]", None),
        ("['k']", None),
    ],
)
def test_subscripts_are_split_off(path: Any, expected: Any) -> None:
    assert split_subscript(path) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("spec.nodeName", "vk-1"),
        ("spec.serviceAccountName", "default"),
        ("status.hostIP", "192.0.2.1"),
        ("status.hostIPs", "192.0.2.1,fd00::1"),
        ("status.podIP", "10.0.0.5"),
        ("status.podIPs", "10.0.0.5,fd00::5"),
        ("metadata.name", "web"),
    ],
)
def test_environment_fields(path: Any, expected: Any) -> None:
    found = environment_field(
        POD,
        path,
        node_name="other",
        host_ips=["192.0.2.1", "fd00::1"],
        pod_ips=["10.0.0.5", "fd00::5"],
    )
    assert found == expected


def test_another_api_version_is_refused() -> None:
    with pytest.raises(Invalid, match="unsupported pod version: v2"):
        environment_field(
            POD, "metadata.name", node_name="", host_ips=[], pod_ips=[], api_version="v2"
        )
