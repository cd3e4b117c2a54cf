from __future__ import annotations

from typing import Any, cast

from vk_provider.cli.node_process import _find_dns
from vk_provider.common.errors import Unavailable
from vk_provider.kube.objects import ObjectSource
from vk_provider.node.controller import NodeController

_DNS = {"metadata": {"name": "kube-dns"}, "spec": {"clusterIPs": ["192.0.2.10", "None"]}}


class Cluster:
    """Services that can be read only once the Node is registered."""

    def __init__(self, services: list[dict[str, Any]], *, away: bool = False) -> None:
        self._services = services
        self.away = away
        self.waited = False

    async def services(self, namespace: str) -> list[dict[str, Any]]:
        assert namespace == "kube-system"
        if self.away:
            raise Unavailable("Services have not yet been read")
        return self._services

    async def wait_registered(self) -> None:
        self.waited = True
        self.away = False


async def _found(cluster: Cluster) -> tuple[str, ...]:
    return await _find_dns(cast("ObjectSource", cluster), cast("NodeController", cluster))


async def test_the_clusters_dns_is_found_without_waiting() -> None:
    cluster = Cluster([_DNS])
    assert await _found(cluster) == ("192.0.2.10",)
    assert not cluster.waited


async def test_while_the_api_server_is_away_nobody_concludes_that_there_is_no_dns() -> None:
    cluster = Cluster([_DNS], away=True)
    assert await _found(cluster) == ("192.0.2.10",)
    assert cluster.waited


async def test_a_cluster_without_dns_leaves_pods_the_hosts() -> None:
    assert await _found(Cluster([])) == ()
