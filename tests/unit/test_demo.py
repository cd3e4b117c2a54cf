"""hack/up shows what pods say, or fails: with a kubectl that is a script."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from hack.devcluster import demo
from hack.devcluster.settings import default_settings

_POD = {"items": [{"metadata": {"name": "hello-1"}}]}


def _show(folder: Path, logs: str) -> list[str]:
    kubectl = folder / "kubectl"
    kubectl.write_text(
        f"#!/bin/sh\ncase $2 in\nlogs) {logs} ;;\nget) echo '{json.dumps(_POD)}' ;;\nesac\n"
    )
    kubectl.chmod(0o755)
    return demo.run(demo.Kubectl(kubectl, folder / "kubeconfig"), default_settings(), "image")


def test_shows_each_pods_line(tmp_path: Path) -> None:
    line = "Hello from hello-1, a microVM with kernel 6.1.0-guest"
    assert _show(tmp_path, f"echo '{line}'; sleep 60") == [f"hello-1: {line}"]


def test_a_log_that_fails_is_told_with_kubectls_words(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="pod hello-1: error: no route to host"):
        _show(tmp_path, "echo error: no route to host >&2; exit 1")


def test_a_log_that_ends_empty_is_told(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="pod hello-1: it ended without a word"):
        _show(tmp_path, "exit 0")


def test_this_hosts_kernel_is_no_microvms(tmp_path: Path) -> None:
    line = f"Hello from hello-1, a microVM with kernel {os.uname().release}"
    with pytest.raises(SystemExit, match="does not show that it runs in a microVM"):
        _show(tmp_path, f"echo '{line}'")
