"""What keeps an agent from running is told in one sentence, with exit code 1, and nothing is done.

Runs in the network and mount namespaces that hack/test makes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vk_provider.agent.store import Store
from vk_provider.cli.processes import only_one

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[3]


@pytest.fixture
def run_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vkb", dir="/run") as name:
        yield Path(name)


def vk_provider(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "vk_provider.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )


def agent(state_dir: Path, run_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return vk_provider(
        "agent",
        f"--agent-state-dir={state_dir}",
        f"--agent-run-dir={run_dir}",
        f"--log-dir={state_dir.parent / 'pods'}",
        f"--guest-image={os.environ['VK_GUEST_IMAGE']}",
        *arguments,
    )


def failed(done: subprocess.CompletedProcess[str], words: str) -> None:
    """Check for one sentence on stderr, and code 1."""
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("vk-provider: ")
    assert words in last
    assert "Traceback" not in done.stderr


@contextmanager
def hidden(program: Path) -> Iterator[None]:
    """Make a program unusable in this run's mount namespace."""
    subprocess.run(["mount", "--bind", "/dev/null", str(program)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(program)], check=True)


@contextmanager
def small_disk(directory: Path, kib: int) -> Iterator[Path]:
    directory.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kib}k", "tmpfs"]
    subprocess.run(["mount", *options, str(directory)], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def test_without_qemu(tmp_path: Path, run_dir: Path) -> None:
    with hidden(Path("/usr/bin/qemu-system-x86_64")):
        failed(agent(tmp_path / "state", run_dir), "apt-get install qemu-system-x86")


@pytest.mark.parametrize("keep", [7, 5000])
def test_with_records_cut_short(tmp_path: Path, run_dir: Path, keep: int) -> None:
    """Not taken for an empty file: then every VM here would be an orphan, and removed."""
    database = tmp_path / "state" / "agent.db"
    Store.open(database).close()
    cut = database.read_bytes()[:keep]
    database.write_bytes(cut)
    failed(agent(tmp_path / "state", run_dir), f"{database} are damaged")
    assert database.read_bytes() == cut


def test_with_a_guest_image_cut_short(tmp_path: Path, run_dir: Path) -> None:
    image = tmp_path / "image"
    image.mkdir()
    (image / "manifest.json").write_text('{"kernel": ')
    done = agent(tmp_path / "state", run_dir, f"--guest-image={image}")
    assert done.returncode in {1, 2}
    assert str(image) in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_with_no_room_for_records(tmp_path: Path, run_dir: Path) -> None:
    with small_disk(tmp_path / "state", 64) as disk:
        (disk / "ballast").write_bytes(b"x" * 60 * 1024)
        done = agent(disk, run_dir)
        assert done.returncode == 1, done.stderr
        assert "no space left" in done.stderr.splitlines()[-1].lower()
        assert "Traceback" not in done.stderr


def test_doctor_names_what_is_missing(tmp_path: Path, run_dir: Path) -> None:
    options = [f"--agent-state-dir={tmp_path}", f"--agent-run-dir={run_dir}", "--json"]
    options += [f"--log-dir={tmp_path}", f"--guest-image={os.environ['VK_GUEST_IMAGE']}"]
    with hidden(Path("/usr/bin/umoci")):
        done = vk_provider("doctor", *options)
    findings = {f["what"]: f for f in json.loads(done.stdout)}
    assert done.returncode == 1
    assert findings["umoci"]["verdict"] == "failed"
    assert findings["umoci"]["mend"] == "apt-get install umoci"
    failures = [f for f in findings.values() if f["verdict"] == "failed"]
    assert failures == [findings["umoci"]]
    assert vk_provider("doctor", *options).returncode == 0


def test_doctor_tells_of_the_host_whatever_a_kubeconfig_is_like(
    tmp_path: Path, run_dir: Path
) -> None:
    cut, none = tmp_path / "cut", tmp_path / "none"
    cut.write_text("apiVersion: v1\nclusters:\n- cluster: {server: htt")
    options = [f"--agent-state-dir={tmp_path}", f"--agent-run-dir={run_dir}", "--json"]
    options += [f"--log-dir={tmp_path}", f"--guest-image={os.environ['VK_GUEST_IMAGE']}"]
    options += [f"--kubeconfig={cut}", f"--bootstrap-kubeconfig={none}"]
    done = vk_provider("doctor", *options)
    assert done.returncode == 1, done.stderr
    failures = {f["what"]: f for f in json.loads(done.stdout) if f["verdict"] == "failed"}
    assert failures.keys() == {"kubeconfig", "bootstrap-kubeconfig"}
    assert f"{cut} is not YAML" in failures["kubeconfig"]["found"]
    assert "--kubeconfig" in failures["kubeconfig"]["mend"]
    assert f"{none} can't be read (No such file" in failures["bootstrap-kubeconfig"]["found"]
    assert "--bootstrap-kubeconfig" in failures["bootstrap-kubeconfig"]["mend"]


def test_a_node_folder_in_use(tmp_path: Path) -> None:
    with only_one(tmp_path / "pki", "vk-provider node"):
        done = vk_provider("node", f"--state-dir={tmp_path}", "--kubeconfig=/nowhere")
    failed(done, "Another vk-provider node works in")
