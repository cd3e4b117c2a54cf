"""/healthz: named checks, each "ok" or not (k8s.io/apiserver/pkg/server/healthz)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from aiohttp import web

from vk_provider.common.logging import get_logger

Check = Callable[[], str]  # returns why it is unwell, "" for well

log = get_logger("kubelet_api.health")


def always_well() -> str:
    """A check that answering at all fulfils."""
    return ""


class Health:
    """Serves the node's health; reasons are logged, never told to the network."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = {"ping": always_well, "log": always_well, "syncloop": always_well, **checks}

    async def all(self, request: web.Request) -> web.Response:
        """Answer /healthz, with `?verbose` or after a failure one line a check."""
        failed = {name for name, check in self._checks.items() if _unwell(name, check)}
        lines = [
            f"[-]{name} failed: reason withheld" if name in failed else f"[+]{name} ok"
            for name in self._checks
        ]
        if failed:
            text = "\n".join([*lines, "healthz check failed", ""])
            return web.Response(status=500, text=text)
        if "verbose" in request.query:
            return web.Response(text="\n".join([*lines, "healthz check passed", ""]))
        return web.Response(text="ok")

    async def one(self, request: web.Request) -> web.Response:
        """Answer /healthz/{check}."""
        name = request.match_info["check"]
        check = self._checks.get(name)
        if check is None:
            raise web.HTTPNotFound(text="404 page not found\n")
        if _unwell(name, check):
            return web.Response(status=500, text="internal server error: reason withheld\n")
        return web.Response(text="ok")


def _unwell(name: str, check: Check) -> bool:
    reason = check()
    if reason:
        log.warning("health check failed", check=name, reason=reason)
    return bool(reason)
