"""Plugins as programs: what they are told, and what becomes of their complaints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vk_provider.agent.network.cni import CniCall, CniPlugins
from vk_provider.agent.network.conflist import Conflist
from vk_provider.common.errors import (
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    Internal,
    Unavailable,
)

CALL = CniCall("id", "/run/netns/vk-id", "IgnoreUnknown=1;K8S_POD_NAME=a")

# Appends what it was told to a file, then answers with `answer`.
RECORDER = """#!/bin/sh
echo "$CNI_COMMAND $CNI_CONTAINERID $CNI_NETNS $CNI_IFNAME $CNI_ARGS $0" >>{log}
cat >>{log}; echo >>{log}
{answer}
"""


def plugins(directory: Path, **answers: str) -> tuple[CniPlugins, Conflist, Path]:
    log = directory / "log"
    for name, answer in answers.items():
        path = directory / name
        path.write_text(RECORDER.format(log=log, answer=answer))
        path.chmod(0o755)
    kinds = tuple({"type": name} for name in answers)
    return CniPlugins([directory], 5.0), Conflist("net", "1.0.0", kinds, "test"), log


async def test_add_goes_forward_and_delete_backward(tmp_path: Path) -> None:
    run, network, log = plugins(tmp_path, first="echo '{\"a\":1}'", second="echo '{\"b\":2}'")
    result = await run.add(network, {}, CALL)
    assert result == {"b": 2}
    await run.delete(network, {}, CALL, result)
    rows = log.read_text().splitlines()
    assert [row.split()[0] + row[-6:].replace("/", "") for row in rows[::2]] == [
        "ADDfirst",
        "ADDsecond",
        "DELsecond",
        "DELfirst",
    ]
    assert rows[0].startswith("ADD id /run/netns/vk-id eth0 IgnoreUnknown=1;K8S_POD_NAME=a")
    assert json.loads(rows[3])["prevResult"] == {"a": 1}
    assert json.loads(rows[5])["prevResult"] == {"b": 2}


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        ('echo \'{"code":7,"msg":"no","details":"bridge"}\'; exit 1', Unavailable, "no: bridge"),
        ("echo broken >&2; exit 3", Unavailable, "exit code 3.*broken"),
        ("exit 1", Unavailable, "said nothing"),
        (
            'echo \'{"msg":"no IP addresses available in range set"}\'; exit 1',
            Exhausted,
            "no IP addresses",
        ),
        ("echo no json", Internal, "no JSON"),
        ("echo '[]'", Internal, "no JSON object"),
    ],
)
async def test_a_failure_becomes_a_sentence_with_the_plugins_words(
    tmp_path: Path, answer: str, kind: type[Exception], words: str
) -> None:
    run, network, _ = plugins(tmp_path, bad=answer)
    with pytest.raises(kind, match=words):
        await run.add(network, {}, CALL)


async def test_a_plugin_that_hangs_is_ended(tmp_path: Path) -> None:
    run, network, _ = plugins(tmp_path, slow="exec sleep 1000")
    run = CniPlugins([tmp_path], 0.01)
    with pytest.raises(DeadlineExceeded, match="slow did not finish ADD"):
        await run.add(network, {}, CALL)


async def test_a_missing_plugin_is_named(tmp_path: Path) -> None:
    run = CniPlugins([tmp_path], 1.0)
    network = Conflist("net", "1.0.0", ({"type": "calico", "ipam": {"type": "calico-ipam"}},), "t")
    assert run.missing(network) == ["calico", "calico-ipam"]
    with pytest.raises(FailedPrecondition, match="calico is in none of"):
        await run.add(network, {}, CALL)
