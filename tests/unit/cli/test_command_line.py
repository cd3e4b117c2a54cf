from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from vk_provider.cli import main


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    said = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), said.out, said.err


def test_help_lists_every_command_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = outcome(capsys, "--help")
    assert code == 0
    for command in ("run", "node", "agent", "doctor", "top", "usage", "images", "version"):
        assert f"\n  {command} " in out


@pytest.mark.parametrize(
    "command", ["run", "node", "agent", "doctor", "top", "usage", "images", "version"]
)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = outcome(capsys, command, "--help")
    assert code == 0
    assert len(out) > 100


def test_leaving_explains_itself_and_takes_the_nodes_options(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, _ = outcome(capsys, "node", "leave", "--help")
    assert code == 0
    for words in ("--admin-kubeconfig", "--timeout", "--node-name", "--state-dir", "cordon"):
        assert words in out
    code, _, err = outcome(capsys, "node", "--node-name=n", "leave")
    assert code == 2
    assert "Write the options after leave" in err


def test_leaving_needs_the_agent_that_ends_the_pods(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "pki").mkdir()
    (tmp_path / "pki" / "kubeconfig").write_text("{}")  # what it was joined with
    folders = [f"--state-dir={tmp_path}", f"--agent-socket={tmp_path}/none"]
    code, _, err = outcome(capsys, "node", "leave", "--node-name=n", *folders)
    assert code == 1
    assert "No agent listens at" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["node", "--nonsense"], "No such option"),
        (["node", "--port=0"], "0 is not in the range"),
        (["usage", "--since=yesterday"], "is no time"),
        (["usage", "--since=2030-01-01T00:00:00"], "names no time zone"),
    ],
)
def test_wrong_usage_is_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    code, _, err = outcome(capsys, *arguments)
    assert code == 2
    assert words in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "No way to the cluster was given"),
        (["--kubeconfig=/a", "--bootstrap-kubeconfig=/b"], "Give one way to the cluster"),
        (["--server=https://x"], "are needed together"),
        (
            ["--server=http://x", "--ca=/a", "--bootstrap-token-file=/b"],
            "--server must be an https URL",
        ),
        (["--kubeconfig=/nowhere/config"], "The kubeconfig /nowhere/config can't be read"),
        (["--kubeconfig=/a", "--taint=bad"], "'bad' is no taint"),
        (["--kubeconfig=/a", "--node-label=kubernetes.io/x=y"], "may not give itself"),
        (["--kubeconfig=/a", "--node-ip=127.0.0.1"], "could not reach the node there"),
        (["--kubeconfig=/a", "--cluster-dns=dns"], "'dns' is no IP address"),
        (["--kubeconfig=/a", "--node-name=Upper"], "can't be a node's name"),
    ],
)
def test_a_node_that_can_not_start_says_why(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    code, out, err = outcome(capsys, "node", f"--state-dir={tmp_path}", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("vk-provider: ")
    assert words in err
    assert "Traceback" not in err


def test_two_nodes_do_not_share_a_state_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from vk_provider.cli.processes import only_one

    with only_one(tmp_path / "pki", "node"):
        code, _, err = outcome(
            capsys, "node", "--node-name=n", f"--state-dir={tmp_path}", "--kubeconfig=/a"
        )
    assert code == 1
    assert "Another vk-provider node works in" in err


@pytest.mark.parametrize(
    "arguments", [["images", "list"], ["images", "pull", "x"], ["top"], ["usage"]]
)
def test_without_an_agent_commands_say_how_to_start_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str]
) -> None:
    socket = f"--agent-socket={tmp_path}/none"
    code, _, err = outcome(capsys, *arguments, socket)
    assert code == 1
    assert "No agent listens at" in err


def test_run_hands_each_part_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    from vk_provider.cli import supervisor

    started: list[Any] = []

    async def supervise(parts: list[supervisor.Part]) -> None:
        started.extend(parts)

    monkeypatch.setattr(supervisor, "supervise", supervise)
    monkeypatch.setenv("VK_CLUSTER_DOMAIN", "from.environment")
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "run",
                "--node-name=n",
                "--taint=a:NoSchedule",
                "--taint=b:NoExecute",
                "--no-taint",
                "--log-dir=/l",
                "--agent-socket=/s",
            ]
        )
    assert ended.value.code == 0
    agent, node = started
    python = [sys.executable, "-m", "vk_provider.cli"]
    assert node.command[:4] == [*python, "node"]
    assert set(node.command[4:]) == {
        "--node-name=n",
        "--agent-socket=/s",
        "--taint=a:NoSchedule",
        "--taint=b:NoExecute",
        "--no-taint",
    }
    assert agent.command[:4] == [*python, "agent"]
    assert set(agent.command[4:]) == {"--agent-socket=/s", "--log-dir=/l"}


@pytest.mark.parametrize(
    ("arguments", "socket"),
    [
        ([], "/run/vk-provider/agent/agent.sock"),
        (["--agent-run-dir=/r"], "/r/agent.sock"),
        (["--agent-run-dir=/r", "--agent-socket=/s"], "/s"),
    ],
)
def test_both_parts_mean_the_same_socket(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], socket: str
) -> None:
    from vk_provider.cli import supervisor

    started: list[Any] = []

    async def supervise(parts: list[supervisor.Part]) -> None:
        started.extend(parts)

    monkeypatch.setattr(supervisor, "supervise", supervise)
    with pytest.raises(SystemExit):
        main(["run", *arguments])
    for part in started:
        assert [a for a in part.command if "socket" in a] == [f"--agent-socket={socket}"]
