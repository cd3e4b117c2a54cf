from __future__ import annotations

import io

import orjson
from rich.console import Console

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.cli.text import duration, moment, size, table
from vk_provider.cli.top_view import LiveTable, Rates, json_line

S = 1_000_000_000


def snapshot(second: int, cpu_ns: int) -> pb.UsageSnapshot:
    usage = pb.SandboxUsage(
        sandbox_id="s",
        pod=pb.PodMetadata(namespace="ns", name="p", uid="u"),
        time_ns=second * S,
        pod_counters=pb.UsageCounters(cpu_ns=cpu_ns, memory_working_set_bytes=5 << 20),
        containers=[
            pb.ContainerUsage(
                container_id="c", name="main", counters=pb.UsageCounters(cpu_ns=cpu_ns)
            )
        ],
        vm_cpu_ns=2 * cpu_ns,
        vm_memory_bytes=80 << 20,
    )
    return pb.UsageSnapshot(time_ns=second * S, sandboxes=[usage])


def test_a_line_of_json_is_a_whole_snapshot() -> None:
    line = json_line(snapshot(7, 500))
    assert "\n" not in line
    (pod,) = orjson.loads(line)["pods"]
    assert (pod["namespace"], pod["name"], pod["uid"]) == ("ns", "p", "u")
    assert (pod["time_ns"], pod["cpu_ns"], pod["vm_cpu_ns"]) == (7 * S, 500, 1000)
    assert pod["containers"][0]["name"] == "main"


def test_rates_need_two_samples_and_survive_a_reset() -> None:
    rates = Rates()
    assert rates.cores("a", 0, 0) is None
    rates.next_sample()
    assert rates.cores("a", 2 * S, S) == 0.5
    rates.next_sample()
    assert rates.cores("a", 3 * S, 0) is None
    rates.next_sample()
    assert rates.cores("a", 4 * S, S) == 1.0
    rates.next_sample()
    rates.next_sample()
    assert rates.cores("a", 9 * S, 2 * S) is None


def test_the_table_shows_pods_and_containers() -> None:
    out = io.StringIO()
    view = LiveTable(Console(file=out, width=160, force_terminal=False))
    view.show(snapshot(1, 0))
    view.show(snapshot(2, S // 2))
    view.close()
    assert "ns/p" in out.getvalue()
    assert "500m" in out.getvalue()
    assert "1000m" in out.getvalue()
    assert "80.0 MiB" in out.getvalue()


def test_figures_for_people() -> None:
    assert [size(n) for n in (0, 1023, 1024, 1536 << 10, 300 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 MiB",
        "300 GiB",
    ]
    assert [duration(s) for s in (5, 119, 120, 7300, 200_000)] == ["5s", "119s", "2m", "2h1m", "2d"]
    assert (moment(0), moment(S)) == ("-", "1970-01-01T00:00:01Z")


def test_a_table_is_as_wide_as_it_need_be(capsys: object) -> None:
    import click.testing

    runner = click.testing.CliRunner()
    with runner.isolation() as (out, *_):
        table(("A", "LONG"), [("xxx", "y")])
        assert out.getvalue() == b"A     LONG\nxxx   y\n"
