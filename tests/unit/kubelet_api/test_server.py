import orjson
import pytest

from tests.support.kubelet_api_bed import Bed, kubelet_api
from vk_provider.common.errors import Unavailable

LOGS = "/containerLogs/default/web/app"


class TestGate:
    @pytest.mark.parametrize("path", ["/pods", "/healthz", "/metrics", "/nothing"])
    @pytest.mark.parametrize(("token", "status"), [("", 401), ("forged", 401), ("nobody", 403)])
    async def test_strangers_and_those_who_may_not(
        self, path: str, token: str, status: int
    ) -> None:
        async with kubelet_api(token=token) as bed:
            response = await bed.client.get(path)
            assert response.status == status
            text = await response.text()
            assert ("Forbidden (user=nobody, verb=get" in text) is (status == 403)

    async def test_another_spelling_of_a_path_is_judged_alike(self) -> None:
        async with kubelet_api(token="nobody") as bed:
            response = await bed.client.get("/%70ods")
            assert response.status == 403
            assert "[pods proxy]" in await response.text()

    async def test_what_does_not_exist_is_not_found(self) -> None:
        async with kubelet_api() as bed:
            assert (await bed.client.get("/nothing")).status == 404


class TestLogs:
    async def log(self, bed: Bed, query: str = "", path: str = LOGS) -> tuple[int, str]:
        response = await bed.client.get(f"{path}{query}")
        return response.status, await response.text()

    async def test_the_whole_and_its_end(self) -> None:
        async with kubelet_api() as bed:
            assert await self.log(bed) == (200, "one\ntwo\nthree\n")
            assert await self.log(bed, "?tailLines=1") == (200, "three\n")
            assert await self.log(bed, "?limitBytes=5") == (200, "one\nt")

    async def test_following_ends_with_the_container(self) -> None:
        async with kubelet_api() as bed:
            response = await bed.client.get(f"{LOGS}?follow=true")
            assert await response.content.readline() == b"one\n"
            bed.runtime.exit("app", 0)
            assert await response.content.read() == b"two\nthree\n"

    async def test_mistakes_have_the_kubelets_codes(self) -> None:
        async with kubelet_api() as bed:
            for query, status in (
                ("?tailLines=x", 400),
                ("?tailLines=-1", 422),
                ("?previous=true", 400),
            ):
                assert (await self.log(bed, query))[0] == status
            assert await self.log(bed, path="/containerLogs/default/nope/app") == (
                404,
                'pod "nope" does not exist',
            )
            assert await self.log(bed, path="/containerLogs/default/web/nope") == (
                404,
                'container "nope" not found in pod "web"',
            )
            assert (await bed.client.post(LOGS)).status == 405

    async def test_what_can_not_be_read_says_why(self) -> None:
        async with kubelet_api() as bed:
            bed.runtime.fail("read_logs", Unavailable("the agent is away; try again"))
            assert await self.log(bed) == (400, "the agent is away; try again")

    async def test_a_log_that_breaks_off_is_not_taken_for_whole(self) -> None:
        async with kubelet_api() as bed:
            response = await bed.client.get(f"{LOGS}?follow=true")
            await response.content.readline()
            bed.runtime.go_away()
            with pytest.raises(Exception, match=r"not completed|closed|disconnected"):
                await response.content.read()


class TestPods:
    async def test_pods_are_a_list(self) -> None:
        async with kubelet_api() as bed:
            body = await (await bed.client.get("/pods")).json()
            assert (body["kind"], body["items"]) == ("PodList", [bed.pod])

    async def test_running_pods_are_the_runtimes(self) -> None:
        async with kubelet_api() as bed:
            body = await (await bed.client.get("/runningpods/")).json()
            (pod,) = body["items"]
            assert pod["metadata"]["uid"] == "u1"
            assert [c["name"] for c in pod["spec"]["containers"]] == ["app", "term"]
            await bed.runtime.stop_sandbox("sandbox")
            assert (await (await bed.client.get("/runningpods/")).json())["items"] == []


class TestPages:
    async def test_health(self) -> None:
        async with kubelet_api() as bed:
            for path in ("/healthz", "/healthz/ping", "/healthz/log", "/healthz/syncloop"):
                assert await (await bed.client.get(path)).text() == "ok"
            verbose = await (await bed.client.get("/healthz?verbose")).text()
            assert verbose.splitlines()[-2:] == ["[+]syncloop ok", "healthz check passed"]
            assert (await bed.client.get("/healthz/unknown")).status == 404

    async def test_pages_about_the_process(self) -> None:
        async with kubelet_api() as bed:
            config = orjson.loads(await (await bed.client.get("/configz")).read())
            assert config["kubeletconfig"]["authentication"]["anonymous"] == {"enabled": False}
            assert "node-name=n1" in await (await bed.client.get("/flagz")).text()
            assert "v1.37.2+test" in await (await bed.client.get("/statusz")).text()
            assert (await bed.client.get("/logs/syslog")).status == 405

    async def test_metrics_count_requests_by_their_first_part(self) -> None:
        async with kubelet_api() as bed:
            await bed.client.get(LOGS)
            text = await (await bed.client.get("/metrics")).text()
            labels = 'long_running="true",method="GET",path="containerLogs",server_type="readwrite"'
            assert f"kubelet_http_requests_total{{{labels}}} 1.0" in text
            assert 'kubelet_running_containers{container_state="running"} 2.0' in text
            assert "kubelet_running_pods 1.0" in text
            for path in ("/metrics/probes", "/metrics/slis", "/metrics/cadvisor"):
                assert (await bed.client.get(path)).status == 200

    async def test_without_usage_the_summary_is_an_error_and_scrapes_say_so(self) -> None:
        async with kubelet_api() as bed:
            assert (await bed.client.get("/stats/summary")).status == 500
            text = await (await bed.client.get("/metrics/resource")).text()
            assert "resource_scrape_error 1.0" in text
