"""From an empty cluster to pods that run, are logged, entered, and go."""

from __future__ import annotations

import datetime
import functools
import json
import os
import platform
import pty
import select
import signal
import subprocess
import termios
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Cluster, Namespace
from tests.support.waiting import until

pytestmark = pytest.mark.e2e


def test_node_says_what_it_is(cluster: Cluster) -> None:
    node = cluster.kubectl.json("get", "node", cluster.settings.node_name)
    status = node["status"]
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert conditions["Ready"] == "True"
    assert (
        conditions["MemoryPressure"]
        == conditions["DiskPressure"]
        == conditions["PIDPressure"]
        == "False"
    )
    assert {"type": "Hostname", "address": cluster.settings.node_name} in status["addresses"]
    assert "ExtendWebSocketsToKubelet" in status["declaredFeatures"]
    assert node["metadata"]["labels"]["kubernetes.io/os"] == "linux"
    lease = cluster.kubectl.json(
        "-n", "kube-node-lease", "get", "lease", cluster.settings.node_name
    )
    assert lease["spec"]["leaseDurationSeconds"] == 40


def test_two_pods_run_in_two_vms_under_two_users(namespace: Namespace) -> None:
    for name in ("one", "two"):
        namespace.pod(name, "uname -r; exec sleep 100000", wait="")
    for name in ("one", "two"):
        namespace.wait(f"pod/{name}", "condition=Ready")
        until(functools.partial(namespace.logs, name))
        assert namespace.logs(name).strip() != platform.release()
    # One that is just starting, for a template, takes its filter only after its options are read.
    until(lambda: all(m["seccomp"] == "2" for m in _machines()), lambda: str(_machines()), 30)
    machines = _machines()
    assert len(machines) >= 2
    assert len({m["uid"] for m in machines}) == len(machines)
    assert all(m["uid"] != "0" and m["no_new_privs"] == "1" for m in machines)


def _machines() -> list[dict[str, str]]:
    """Return what /proc says of every QEMU of this run (they share our process namespace)."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = (directory / "cmdline").read_bytes().split(b"\0")
            lines = (directory / "status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"qemu-system" not in words[0]:
            continue
        status = dict(line.split(":", 1) for line in lines)
        found.append(
            {
                "uid": status["Uid"].split()[1],
                "seccomp": status["Seccomp"].strip(),
                "no_new_privs": status["NoNewPrivs"].strip(),
            }
        )
    return found


def test_status_and_events_are_a_kubelets(namespace: Namespace) -> None:
    namespace.pod("story", "exec sleep 100000")
    pod = namespace.json("get", "pod", "story")
    status = pod["status"]
    assert status["phase"] == "Running"
    assert status["qosClass"] == "BestEffort"
    assert status["podIP"] == status["podIPs"][0]["ip"]
    assert status["hostIP"] == namespace.cluster.settings.api_address
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    for kind in (
        "PodScheduled",
        "PodReadyToStartContainers",
        "Initialized",
        "ContainersReady",
        "Ready",
    ):
        assert conditions[kind] == "True"
    container = status["containerStatuses"][0]
    assert container["ready"] and container["started"] and container["restartCount"] == 0
    assert container["containerID"].startswith("vk://")
    assert "@sha256:" in container["imageID"]
    reasons = {e["reason"] for e in namespace.json("get", "events")["items"]}
    assert {"Scheduled", "Pulled", "Created", "Started"} <= reasons


class TestLogs:
    """kubectl logs with the options that people use."""

    SCRIPT = (
        "for i in 1 2 3; do echo line $i; done; sleep 3; echo late; echo oops >&2; "
        "exec sleep 100000"
    )

    def test_tail_timestamps_since_and_limit(self, namespace: Namespace) -> None:
        namespace.pod("talker", self.SCRIPT)
        until(lambda: "oops" in namespace.logs("talker"))
        assert namespace.logs("talker") == "line 1\nline 2\nline 3\nlate\noops\n"
        assert namespace.logs("talker", "--tail=2") == "late\noops\n"
        assert namespace.logs("talker", "--limit-bytes=6") == "line 1"
        stamped = namespace.logs("talker", "--timestamps").splitlines()
        assert [line.split(" ", 1)[1] for line in stamped][:3] == ["line 1", "line 2", "line 3"]
        assert [line.split(" ", 1)[0] for line in stamped] == sorted(
            line.split(" ", 1)[0] for line in stamped
        )
        late = next(line.split(" ", 1)[0] for line in stamped if line.endswith("late"))
        assert namespace.logs("talker", f"--since-time={late}") == "late\noops\n"
        assert namespace.logs("talker", "--since=1h") == "line 1\nline 2\nline 3\nlate\noops\n"
        time.sleep(3)  # the last line is now older than what is asked for
        assert namespace.logs("talker", "--since=1s") == ""

    def test_follow_ends_with_the_container(self, namespace: Namespace) -> None:
        namespace.pod(
            "counter", "for i in 1 2 3 4; do echo $i; sleep 1; done", wait="", restartPolicy="Never"
        )
        namespace.wait("pod/counter", "condition=PodReadyToStartContainers")
        until(lambda: namespace.raw("logs", "counter").returncode == 0)
        assert namespace.logs("-f", "counter") == "1\n2\n3\n4\n"

    def test_previous_shows_the_run_before(self, namespace: Namespace) -> None:
        script = "echo run; [ -e /data/seen ] && exec sleep 100000; touch /data/seen; exit 3"
        namespace.pod(
            "twice",
            script,
            volumes=[{"name": "data", "emptyDir": {}}],
            container={"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
            wait="",
        )
        until(
            lambda: (
                _container(namespace, "twice").get("restartCount") == 1
                and _container(namespace, "twice")["ready"]
            )
        )
        assert namespace.logs("twice", "--previous") == "run\n"
        last = _container(namespace, "twice")["lastState"]["terminated"]
        assert (last["exitCode"], last["reason"]) == (3, "Error")


class TestExec:
    """kubectl exec over the API server's WebSocket."""

    def test_exit_codes_streams_and_a_missing_command(self, namespace: Namespace) -> None:
        namespace.pod("shell", "exec sleep 100000")
        done = namespace.raw("exec", "shell", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
        assert (done.returncode, done.stdout) == (7, b"out\n")
        assert b"err\n" in done.stderr
        missing = namespace.raw("exec", "shell", "--", "no-such-command")
        assert (missing.returncode, missing.stdout) == (1, b"")
        words = missing.stderr.decode()
        assert words.startswith("error: Internal error occurred: ")
        assert words.endswith('exec: "no-such-command": executable file not found in $PATH\n')

    def test_ten_mebibytes_go_in_and_come_back(self, namespace: Namespace) -> None:
        namespace.pod("echo", "exec sleep 100000")
        payload = os.urandom(10 << 20)
        done = namespace.raw("exec", "-i", "echo", "--", "cat", input=payload)
        assert done.returncode == 0, done.stderr
        assert done.stdout == payload

    def test_a_terminal(self, namespace: Namespace) -> None:
        namespace.pod("tty", "exec sleep 100000")
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(ours, (33, 101))
        command = [
            *namespace.cluster.kubectl.command,
            "-n",
            namespace.name,
            "exec",
            "-it",
            "tty",
            "--",
            "sh",
        ]
        with subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
        ) as process:
            os.close(theirs)
            # Sizes go on a channel of their own, and may come after what is typed.
            sized = 'until [ "$(stty size)" = "%s" ]; do sleep 0.1; done; echo sum=$((%s))\n'
            os.write(ours, b"tty; " + (sized % ("33 101", "20+22")).encode())
            seen = _read_terminal(ours, b"sum=42")
            termios.tcsetwinsize(ours, (44, 132))
            process.send_signal(signal.SIGWINCH)  # it is in no session of that terminal's
            os.write(ours, (sized % ("44 132", "20+24")).encode())
            _read_terminal(ours, b"sum=44")
            os.write(ours, b"exit 5\n")
            assert process.wait(60) == 5
        os.close(ours)
        assert b"/dev/pts/" in seen or b"/dev/console" in seen


def _read_terminal(descriptor: int, until: bytes, within_s: float = 60) -> bytes:
    seen = b""
    deadline = time.monotonic() + within_s
    while until not in seen:
        ready, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"the terminal shows only {seen!r}"
        seen += os.read(descriptor, 4096)
    return seen


def test_service_account_token_speaks_to_the_api_server(namespace: Namespace) -> None:
    script = (
        "import json,ssl,urllib.request as u;d='/var/run/secrets/kubernetes.io/serviceaccount/';"
        "import os;h=os.environ['KUBERNETES_SERVICE_HOST'];p=os.environ['KUBERNETES_SERVICE_PORT'];"
        "r=u.Request(f'https://{h}:{p}/apis/authentication.k8s.io/v1/selfsubjectreviews',"
        "data=json.dumps({'apiVersion':'authentication.k8s.io/v1',"
        "'kind':'SelfSubjectReview'}).encode(),"
        "headers={'Authorization':'Bearer '+open(d+'token').read(),"
        "'Content-Type':'application/json'});"
        "print(json.load(u.urlopen(r,context=ssl.create_default_context(cafile=d+'ca.crt'),timeout=60))"
        "['status']['userInfo']['username'],open(d+'namespace').read())"
    )
    namespace.pod(
        "asker",
        "",
        image=namespace.cluster.tools,
        container={"command": ["python3", "-c", script]},
        restartPolicy="Never",
        wait="",
    )
    namespace.wait("pod/asker", "jsonpath={.status.phase}=Succeeded")
    account = f"system:serviceaccount:{namespace.name}:default"
    assert namespace.logs("asker").strip() == f"{account} {namespace.name}"


def test_traffic_between_pods_and_host(namespace: Namespace, tmp_path: Path) -> None:
    serve = "mkdir -p /tmp/w; echo served > /tmp/w/index.html; exec httpd -f -p 8080 -h /tmp/w"
    namespace.pod("server", serve)
    namespace.pod("client", "exec sleep 100000")
    address = namespace.json("get", "pod", "server")["status"]["podIP"]
    until(
        lambda: (
            namespace.raw(
                "exec", "server", "--", "wget", "-qO-", "http://127.0.0.1:8080/"
            ).returncode
            == 0
        )
    )
    between = namespace.kubectl("exec", "client", "--", "wget", "-qO-", f"http://{address}:8080/")
    assert between == "served\n"
    assert _fetch(f"http://{address}:8080/") == "served\n"
    host = f"http://{namespace.cluster.settings.api_address}:18080/"
    (tmp_path / "index.html").write_text("from the host\n")
    server = [
        "python3",
        "-m",
        "http.server",
        "18080",
        "--bind",
        namespace.cluster.settings.api_address,
    ]
    with subprocess.Popen(
        [*server, "--directory", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            until(lambda: _fetch(host) == "from the host\n")
            to_host = namespace.kubectl("exec", "client", "--", "wget", "-qO-", host)
        finally:
            process.terminate()
    assert to_host == "from the host\n"


def test_configuration_reaches_the_container(namespace: Namespace) -> None:
    namespace.kubectl(
        "create", "configmap", "settings", "--from-literal=colour=green", "--from-literal=size=7"
    )
    namespace.kubectl("create", "secret", "generic", "hidden", "--from-literal=word=xyzzy")
    namespace.pod(
        "reader",
        "echo $COLOUR $(POD_NAME) $NAME; cat /etc/settings/size; echo; cat /etc/hidden/word; echo; "
        "hostname; grep -c managed /etc/hosts; touch /scratch/x && echo writable; exec sleep 9999",
        volumes=[
            {"name": "settings", "configMap": {"name": "settings"}},
            {"name": "hidden", "secret": {"secretName": "hidden", "defaultMode": 0o400}},
            {"name": "scratch", "emptyDir": {}},
        ],
        container={
            "env": [
                {
                    "name": "COLOUR",
                    "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}},
                },
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "NAME", "value": "pod-$(POD_NAME)"},
            ],
            "volumeMounts": [
                {"name": "settings", "mountPath": "/etc/settings"},
                {"name": "hidden", "mountPath": "/etc/hidden"},
                {"name": "scratch", "mountPath": "/scratch"},
            ],
        },
    )
    until(lambda: "writable" in namespace.logs("reader"))
    assert namespace.logs("reader") == "green reader pod-reader\n7\nxyzzy\nreader\n1\nwritable\n"
    namespace.kubectl("patch", "configmap", "settings", "--patch", '{"data":{"size":"8"}}')
    until(lambda: namespace.kubectl("exec", "reader", "--", "cat", "/etc/settings/size") == "8")


def test_a_job_completes(namespace: Namespace) -> None:
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "once"},
        "spec": {
            "completions": 2,
            "parallelism": 2,
            "template": {
                "spec": {
                    "restartPolicy": "Never",
                    "initContainers": [
                        {"name": "first", "image": namespace.cluster.busybox, "command": ["true"]}
                    ],
                    "containers": [
                        {
                            "name": "main",
                            "image": namespace.cluster.busybox,
                            "command": ["echo", "done"],
                        }
                    ],
                }
            },
        },
    }
    namespace.kubectl("create", "-f", "-", stdin=json.dumps(job))
    namespace.wait("job/once", "condition=Complete")
    for pod in namespace.json("get", "pods")["items"]:
        assert pod["status"]["phase"] == "Succeeded"
        assert namespace.logs(pod["metadata"]["name"]) == "done\n"


def test_a_crash_loop_backs_off(namespace: Namespace) -> None:
    namespace.pod("crasher", "echo boom; exit 1", wait="")
    until(lambda: _backs_off(namespace, "crasher"))
    first = _container(namespace, "crasher")
    assert first["restartCount"] == 1  # there is one without a wait
    assert first["state"]["waiting"]["message"].startswith("back-off 10s restarting failed")
    ended = first["lastState"]["terminated"]
    assert ended["exitCode"] == 1

    def next_run() -> dict[str, Any]:
        last: dict[str, Any] = _container(namespace, "crasher")["lastState"]["terminated"]
        return last if last["containerID"] != ended["containerID"] else {}

    until(next_run)
    assert _seconds(next_run()["startedAt"]) - _seconds(ended["finishedAt"]) >= 10
    until(lambda: "BackOff" in {e["reason"] for e in namespace.json("get", "events")["items"]})


def _backs_off(namespace: Namespace, pod: str) -> bool:
    state = _container(namespace, pod).get("state", {})
    return bool(state.get("waiting", {}).get("reason") == "CrashLoopBackOff")


def _seconds(stamp: str) -> float:
    return datetime.datetime.fromisoformat(stamp).timestamp()


def test_deletion_gives_the_grace_that_was_promised(namespace: Namespace) -> None:
    script = (
        "trap 'echo asked; sleep 2; echo finished; exit 0' TERM; echo up; "
        "while :; do sleep 0.1; done"
    )
    namespace.pod("polite", script, terminationGracePeriodSeconds=20)
    until(lambda: "up" in namespace.logs("polite"))
    command = [*namespace.cluster.kubectl.command, "-n", namespace.name, "logs", "-f", "polite"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        namespace.kubectl("delete", "pod", "polite", "--timeout=60s")
        assert follower.communicate(timeout=60)[0] == "up\nasked\nfinished\n"
    assert namespace.raw("get", "pod", "polite").returncode != 0


def test_deletion_kills_who_does_not_listen(namespace: Namespace) -> None:
    namespace.pod(
        "deaf", "trap '' TERM; while :; do sleep 1; done", terminationGracePeriodSeconds=2
    )
    namespace.kubectl("delete", "pod", "deaf", "--timeout=60s")
    assert namespace.raw("get", "pod", "deaf").returncode != 0


def _container(namespace: Namespace, pod: str) -> dict[str, Any]:
    statuses = namespace.json("get", "pod", pod)["status"].get("containerStatuses", [])
    return dict(statuses[0]) if statuses else {}


def _fetch(url: str) -> str:
    """Return what is served there, "" where nothing is yet."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""
