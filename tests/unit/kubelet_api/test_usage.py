import asyncio

from tests.support.fake_clock import FakeClock
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.kubelet_api.cadvisor_metrics import cadvisor_metrics
from vk_provider.kubelet_api.resource_metrics import resource_metrics
from vk_provider.kubelet_api.stats_handlers import exposition
from vk_provider.kubelet_api.stats_summary import rfc3339, summary
from vk_provider.kubelet_api.usage_cache import CpuRates, UsageCache
from vk_provider.runtime.fake import FakeRuntime

S = 1_000_000_000
START = 1_700_000_000 * S


def snapshot(second: int, cpu_s: float) -> pb.UsageSnapshot:
    """A node with one pod of one container that has used `cpu_s` of processor time."""
    at = START + second * S
    counters = pb.UsageCounters(
        cpu_ns=round(cpu_s * S),
        memory_working_set_bytes=10 << 20,
        memory_usage_bytes=12 << 20,
        memory_limit_bytes=64 << 20,
        rootfs_used_bytes=4096,
        logs_used_bytes=100,
    )
    container = pb.ContainerUsage(
        container_id="cid", name="app", started_at_ns=START, counters=counters
    )
    sandbox = pb.SandboxUsage(
        sandbox_id="sid",
        pod=pb.PodMetadata(namespace="ns", name="web", uid="u1"),
        time_ns=at,
        started_at_ns=START,
        pod_counters=counters,
        containers=[container],
        network=pb.NetworkUsage(interface="eth0", rx_bytes=5, tx_bytes=6),
        volumes=[pb.VolumeUsage(name="data", used_bytes=1, capacity_bytes=2)],
        vm_cpu_ns=round((cpu_s + 1.5) * S),
        vm_memory_bytes=64 << 20,
    )
    return pb.UsageSnapshot(time_ns=at, sandboxes=[sandbox], host_cpu_ns=second * S)


class TestRates:
    def test_two_readings_make_a_rate(self) -> None:
        rates = CpuRates()
        rates.add("k", START, 0)
        assert rates.nano_cores("k") is None
        rates.add("k", START + 2 * S, S)
        assert rates.nano_cores("k") == S // 2

    def test_the_window_is_ten_seconds(self) -> None:
        rates = CpuRates()
        for second in range(60):
            rates.add("k", START + second * S, 0 if second < 30 else (second - 30) * S)
        assert rates.nano_cores("k") == S

    def test_a_counter_that_goes_back_starts_anew(self) -> None:
        rates = CpuRates()
        rates.add("k", START, 5 * S)
        rates.add("k", START + S, S)
        assert rates.nano_cores("k") is None
        rates.add("k", START + 2 * S, 2 * S)
        assert rates.nano_cores("k") == S

    def test_the_same_reading_twice_is_one(self) -> None:
        rates = CpuRates()
        for _ in range(2):
            rates.add("k", START, 0)
        assert rates.nano_cores("k") is None


class TestCache:
    async def test_follows_forgets_and_comes_back(self) -> None:
        clock = FakeClock()
        async with FakeRuntime(clock) as runtime, asyncio.TaskGroup() as tasks:
            cache = UsageCache(runtime, clock)
            task = tasks.create_task(cache.run())
            await runtime.usage.put(snapshot(0, 0))
            await runtime.usage.put(snapshot(1, 0.5))
            await clock.settle()
            assert cache.snapshot == snapshot(1, 0.5)
            assert cache.rates.nano_cores("cid") == S // 2
            await runtime.usage.put(pb.UsageSnapshot(time_ns=START + 2 * S))
            await clock.settle()
            assert cache.rates.nano_cores("cid") is None
            task.cancel()

    async def test_a_runtime_that_is_away_has_no_figures(self) -> None:
        clock = FakeClock()
        async with FakeRuntime(clock) as runtime, asyncio.TaskGroup() as tasks:
            cache = UsageCache(runtime, clock)
            runtime.go_away()
            task = tasks.create_task(cache.run())
            await clock.wait_for_sleeper()
            before = cache.snapshot
            runtime.come_back()
            await runtime.usage.put(snapshot(1, 1))
            await clock.advance(1)
            assert (before, cache.snapshot) == (None, snapshot(1, 1))
            task.cancel()


class TestSummary:
    def rates(self) -> CpuRates:
        rates = CpuRates()
        rates.add("cid", START, 0)
        rates.add("cid", START + 20 * S, 10 * S)
        return rates

    def test_a_pod_that_burns_half_a_processor(self) -> None:
        body = summary("n", snapshot(20, 10), self.rates(), pb.HostInfo(), START)
        (pod,) = body["pods"]
        assert pod["podRef"] == {"name": "web", "namespace": "ns", "uid": "u1"}
        (container,) = pod["containers"]
        assert container["cpu"] == {
            "time": "2023-11-14T22:13:40Z",
            "usageCoreNanoSeconds": 10 * S,
            "usageNanoCores": S // 2,
        }
        assert container["memory"]["workingSetBytes"] == 10 << 20
        assert container["memory"]["availableBytes"] == 54 << 20
        assert container["startTime"] == "2023-11-14T22:13:20Z"
        assert container["rootfs"]["usedBytes"] == 4096
        assert pod["network"]["rxBytes"] == 5
        assert pod["volume"][0]["name"] == "data"
        assert pod["ephemeral-storage"]["usedBytes"] == 4196
        assert body["node"]["nodeName"] == "n"
        assert body["node"]["fs"] == body["node"]["runtime"]["imageFs"]

    def test_only_processor_and_memory(self) -> None:
        body = summary("n", snapshot(20, 10), self.rates(), None, START)
        assert body["pods"][0].keys() == {"podRef", "startTime", "containers", "cpu", "memory"}
        assert body["pods"][0]["containers"][0].keys() == {"name", "startTime", "cpu", "memory"}
        assert not body["node"].keys() & {"fs", "runtime", "network"}

    def test_not_yet_is_null(self) -> None:
        assert rfc3339(0) is None


class TestExposition:
    def lines(self, *families: object) -> list[str]:
        body = exposition(families).body  # type: ignore[arg-type]
        assert isinstance(body, bytes)
        return body.decode().splitlines()

    def test_resource_metrics(self) -> None:
        at = (START + 20 * S) // 1_000_000
        lines = self.lines(*resource_metrics(snapshot(20, 10)))
        labels = '{container="app",namespace="ns",pod="web"}'
        assert f"container_cpu_usage_seconds_total{labels} 10.0 {at}" in lines
        assert f"container_memory_working_set_bytes{labels} 1.048576e+07 {at}" in lines
        assert f"container_start_time_seconds{labels} 1.7e+09" in lines
        assert f'pod_cpu_usage_seconds_total{{namespace="ns",pod="web"}} 10.0 {at}' in lines
        pod = '{namespace="ns",pod="web"}'
        assert f"vk_provider_vm_cpu_usage_seconds_total{pod} 11.5 {at}" in lines
        assert f"vk_provider_vm_memory_private_bytes{pod} 6.7108864e+07 {at}" in lines
        assert f"node_cpu_usage_seconds_total 20.0 {at}" in lines
        assert "resource_scrape_error 0.0" in lines
        assert "# TYPE container_cpu_usage_seconds_total counter" in lines

    def test_without_figures_the_error_alone_is_told(self) -> None:
        lines = [li for li in self.lines(*resource_metrics(None)) if not li.startswith("#")]
        assert lines == ["resource_scrape_error 1.0", "scrape_error 1.0"]

    def test_cadvisor_metrics(self) -> None:
        spec = {"name": "app", "image": "img", "resources": {"limits": {"cpu": "500m"}}}
        pods = {"u1": {"spec": {"containers": [spec]}}}
        host = pb.HostInfo(cpu_milli=2000, memory_bytes=1 << 30, machine_id="m")
        lines = self.lines(*cadvisor_metrics(snapshot(20, 10), host, pods))
        at = (START + 20 * S) // 1_000_000
        labels = 'image="img",name="cid",namespace="ns",pod="web"'
        wanted = f'container="app",cpu="total",id="/kubepods/podu1/cid",{labels}'
        assert f"container_cpu_usage_seconds_total{{{wanted}}} 10.0 {at}" in lines
        wanted = f'container="app",id="/kubepods/podu1/cid",{labels}'
        assert f"container_spec_cpu_quota{{{wanted}}} 50000.0" in lines
        assert any(
            line.startswith("container_network_receive_bytes_total") and 'pod="web"' in line
            for line in lines
        )
        assert 'machine_cpu_cores{boot_id="",machine_id="m",system_uuid=""} 2.0' in lines
        names = [line.split("{")[0] for line in lines if line and not line.startswith("#")]
        assert len(set(lines)) == len(lines), "a series appears twice"
        assert {"container_memory_rss", "container_last_seen"} <= set(names)
