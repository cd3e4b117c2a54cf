"""hack/bench."""

from __future__ import annotations

import click

from hack.benchmarks.figures import show

_n = click.option("-n", "runs", type=click.IntRange(1), help="How many.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


@click.group()
def main() -> None:
    """Measure what users wait for, beside a floor or a peer of the same run."""


@main.command()
@_n
@click.option("--cold", default=10, show_default=True, help="Runs with templates off, too.")
@click.option(
    "--pause",
    default=3.0,
    show_default=True,
    help="Seconds between a pod's end and the next; with 0 they come faster than VMs can be made "
    "ready, and all but the first wait for one.",
)
@_json
def start(runs: int | None, cold: int, pause: float, as_json: bool) -> None:
    """bound → Ready of pods one after the other; floor_s: a bare VM until its guest answers."""
    from hack.benchmarks import start as benchmark

    show(benchmark.start(runs or 10, cold, pause), as_json=as_json)


@main.command()
@_n
@_json
def burst(runs: int | None, as_json: bool) -> None:
    """Pods that are created at once, until all are Ready."""
    from hack.benchmarks import start as benchmark

    show(benchmark.burst(runs or 20), as_json=as_json)


@main.command()
@_n
@_json
def density(runs: int | None, as_json: bool) -> None:
    """Idle pods together: CPU and memory of each, beside a bare idle guest; what is left after."""
    from hack.benchmarks import density as benchmark

    show(benchmark.density(runs or 60), as_json=as_json)


@main.command("exec")
@_n
@_json
def exec_(runs: int | None, as_json: bool) -> None:
    """kubectl exec, beside the same client's GET of /healthz."""
    from hack.benchmarks import streams

    show(streams.exec_latency(runs or 20), as_json=as_json)


@main.command()
@click.option("--mib", default=100, show_default=True, help="How much the pod writes.")
@_json
def logs(mib: int, as_json: bool) -> None:
    """A pod's output, written and read back."""
    from hack.benchmarks import streams

    show(streams.log_throughput(mib), as_json=as_json)


main(prog_name="hack/bench")
