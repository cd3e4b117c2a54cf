"""Pods that count upward each 10 ms, and what of it is in their logs on the host."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Namespace

_SCRIPT = "import time\nn=0\nwhile True:\n print(n, flush=True)\n n+=1\n time.sleep(0.01)"


def start_counter(namespace: Namespace, name: str, **spec: Any) -> None:
    """Make the pod; it is not waited for."""
    container: dict[str, Any] = {"command": ["python3", "-c", _SCRIPT]}
    tools = namespace.cluster.tools
    namespace.pod(name, "", image=tools, container=container, wait="", **spec)


def counted(namespace: Namespace, pod: str) -> int:
    """Check that no number is missing or doubled in the log; return how many there are."""
    numbers = _whole_log(namespace, pod)
    assert numbers[:1] == [0]
    wrong = [(a, b) for a, b in itertools.pairwise(numbers) if b != a + 1]
    assert not wrong, f"{pod} has breaks at {wrong[:5]}"
    return len(numbers)


def _whole_log(namespace: Namespace, pod: str) -> list[int]:
    """Return the numbers of every log file of the container, rotated ones included."""
    uid = namespace.json("get", "pod", pod)["metadata"]["uid"]
    directory = namespace.cluster.settings.log_directory / f"{namespace.name}_{pod}_{uid}"
    return [int(line.split(" ", 3)[3]) for line in _lines(directory / "main")]


def _lines(directory: Path) -> list[str]:
    rotated = sorted(f for f in directory.iterdir() if f.name.startswith("0.log."))
    lines: list[str] = []
    for file in [*rotated, directory / "0.log"]:
        command = ["zcat", str(file)] if file.suffix == ".gz" else ["cat", str(file)]
        lines += subprocess.run(
            command, check=True, capture_output=True, text=True
        ).stdout.splitlines()
    return lines
