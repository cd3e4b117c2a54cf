"""kubectl exec and kubectl logs through the API server."""

from __future__ import annotations

import hashlib
import subprocess
import time

from hack.benchmarks.bed import NAMESPACE, say, test_bed
from hack.benchmarks.figures import quantile

Figures = dict[str, float | int | str | None]

_LINE_BYTES = 100
_READS = 5
_LOG_PATH = f"/api/v1/namespaces/{NAMESPACE}/pods/writer/log"


def exec_latency(runs: int) -> Figures:
    """Measure `kubectl exec POD -- true` beside the same client's `get --raw /healthz`."""
    with test_bed() as bed:
        bed.create("shell")
        bed.wait_all_ready(["shell"])
        command = bed.kubectl.command
        seconds: list[float] = []
        peer: list[float] = []
        say(f"Running kubectl exec and kubectl get --raw /healthz {runs} times in turn")
        for _ in range(runs):
            seconds.append(_timed([*command, "exec", "shell", "--", "true"]))
            peer.append(_timed([*command, "get", "--raw", "/healthz"]))
        bed.delete(["shell"])
        own = quantile(seconds, 0.5) - quantile(peer, 0.5)
        return {
            "n": runs,
            "p50_s": quantile(seconds, 0.5),
            "max_s": max(seconds),
            "peer_p50_s": quantile(peer, 0.5),
            "above_peer_s": own,
        }


def log_throughput(mebibytes: int) -> Figures:
    """Let a pod write that much to its output; read it back; count what is missing.

    kubectl writes line by line, and a reader at the other end of a pipe wakes for each: the reading
    that is timed is thrown away, that through a pipe (timed too) is compared with what was written.
    The peer is the same client's `get --raw` of the same log, which is not taken apart into lines.
    """
    lines = mebibytes * 1024 * 1024 // _LINE_BYTES
    # Numbered: of lines that are all alike, one lost and one doubled look well. All that makes the
    # line long is what seq writes between the numbers, so it costs the guest no more than `yes`.
    digits = len(str(lines))
    between = "x" * (_LINE_BYTES - 1 - digits) + "\n"
    with test_bed(f"--container-log-max-size={4 * mebibytes}Mi") as bed:
        bed.wait_spares()
        say(f"A pod writes {lines} numbered lines of {_LINE_BYTES} bytes")
        began = time.monotonic()
        bed.create("writer", f"seq -w -s '{between}' 1 {lines}; echo finished; exec sleep 99999")
        bed.wait_all_ready(["writer"])
        _until_finished(bed.kubectl.command)
        wrote = time.monotonic() - began
        bed.wait_spares()
        read_command = [*bed.kubectl.command, "logs", "writer"]
        raw_command = [*bed.kubectl.command, "get", "--raw", _LOG_PATH]
        say(f"Reading it back {_READS} times, with kubectl logs and get --raw in turn")
        reads: list[float] = []
        raws: list[float] = []
        for _ in range(_READS):
            reads.append(_timed(read_command, subprocess.DEVNULL))
            raws.append(_timed(raw_command, subprocess.DEVNULL))
        read, raw = quantile(reads, 0.5), quantile(raws, 0.5)
        say("Reading it through a pipe, and comparing")
        began = time.monotonic()
        digest, size = _read(read_command)
        piped = time.monotonic() - began
        expected = hashlib.sha256()
        for number in range(1, lines):
            expected.update(f"{number:0{digits}}{between}".encode())
        expected.update(f"{lines}\n".encode())
        expected.update(b"finished\n")
        bed.delete(["writer"])
        return {
            "bytes": size,
            "complete": "yes" if digest == expected.hexdigest() else "NO",
            "write_s": wrote,
            "write_mb_per_s": size / 1e6 / wrote,
            "reads": _READS,
            "read_p50_s": read,
            "read_mb_per_s": size / 1e6 / read,
            "peer_mb_per_s": size / 1e6 / raw,
            "piped_mb_per_s": size / 1e6 / piped,
        }


def _timed(command: list[str], stdout: int = subprocess.PIPE) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=stdout, stderr=subprocess.PIPE)
    return time.monotonic() - began


def _until_finished(command: list[str]) -> None:
    follow = [*command, "logs", "--follow", "--tail=1", "writer"]
    with subprocess.Popen(follow, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == b"finished\n":
                process.terminate()
                return
    raise SystemExit("the writing pod's log ended before its last line")


def _read(command: list[str]) -> tuple[str, int]:
    digest = hashlib.sha256()
    size = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while block := process.stdout.read(1 << 20):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size
