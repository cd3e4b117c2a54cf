"""/pods: what should run here; /runningpods/: what the runtime has."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import VkError
from vk_provider.kubelet_api.sources import PodSource
from vk_provider.runtime.api import Runtime


class PodLists:
    """Serves v1 PodLists."""

    def __init__(self, pods: PodSource, runtime: Runtime) -> None:
        self._pods = pods
        self._runtime = runtime

    async def pods(self, _: web.Request) -> web.Response:
        """Return the pods bound to this node with their newest statuses."""
        return _pod_list(self._pods.pods())

    async def running_pods(self, _: web.Request) -> web.Response:
        """Return the pods that have a sandbox with running containers."""
        try:
            listed = await self._runtime.list_sandboxes()
        except VkError as exc:
            return web.Response(status=500, text=str(exc))
        return _pod_list([found for each in listed.sandboxes if (found := _running(each))])


def _running(sandbox: pb.SandboxStatus) -> dict[str, Any] | None:
    containers = [c for c in sandbox.containers if c.state == pb.CONTAINER_RUNNING]
    if sandbox.state != pb.SANDBOX_READY or not containers:
        return None
    return {
        "metadata": {
            "name": sandbox.pod.name,
            "namespace": sandbox.pod.namespace,
            "uid": sandbox.pod.uid,
            "creationTimestamp": None,
        },
        "spec": {
            "containers": [
                {"name": c.name, "image": c.image_digest or c.image, "resources": {}}
                for c in containers
            ]
        },
        "status": {},
    }


def _pod_list(pods: list[dict[str, Any]]) -> web.Response:
    body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}
    return web.Response(body=orjson.dumps(body), content_type="application/json")
