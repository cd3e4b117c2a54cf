"""The structure that ARCHITECTURE.md promises: imports point down, files stay readable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 500


def _hand_written() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    code = [ROOT / f for f in listed if f.endswith((".py", ".rs", ".proto")) or "hack/" in f]
    # Not proto/vk_provider/_pb, from which the modules are generated.
    modules = ROOT / "vk_provider" / "_pb"
    generated = ("Cargo.lock", "go.sum", "go.mod", "requirements.txt", ".json")
    return [
        f
        for f in code
        if f.is_file()
        and not f.is_relative_to(modules)
        and not any(g in str(f.relative_to(ROOT)) for g in generated)
    ]


def test_no_hand_written_file_is_too_long() -> None:
    counts = {f: len(f.read_text().splitlines()) for f in _hand_written()}
    long = {str(f.relative_to(ROOT)): n for f, n in counts.items() if n > LONGEST}
    assert not long


ROOMS = ["common", "kube", "runtime", "streaming", "pods", "node", "kubelet_api", "agent"]


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_says_what_it_is(room: str) -> None:
    text = (ROOT / "vk_provider" / room / "__init__.py").read_text()
    assert text.startswith('"""')


def test_imports_point_down() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
