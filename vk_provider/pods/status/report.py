"""Keeps one pod's status made from the newest facts, and hands it to the writer."""

from __future__ import annotations

from typing import Any

from vk_provider.pods.annotations import pod_notes
from vk_provider.pods.context import PodContext
from vk_provider.pods.services import host_ips_for
from vk_provider.pods.status.conditions import OWN
from vk_provider.pods.status.containers import Facts
from vk_provider.pods.status.generate import (
    FOREIGN,
    StatusInput,
    Verdict,
    make_rejected_status,
    make_status,
    make_terminated_status,
)
from vk_provider.pods.status.writer import StatusWriter


class Reporter:
    """Makes the statuses of one pod. A rejection is told once, and nothing after it."""

    def __init__(self, ctx: PodContext, writer: StatusWriter) -> None:
        self._ctx = ctx
        self._writer = writer
        self.is_rejected = False
        """The node refused the pod, and that was told."""

    def report(self, verdict: Verdict | None, *, ending: bool, settled: bool) -> None:
        """Show the facts as they are now."""
        if self.is_rejected:
            return
        ctx = self._ctx
        facts = Facts(ctx.pod, ctx.state, ctx.probe_results(), ctx.waiting, ctx.messages)
        given = StatusInput(
            facts=facts,
            old=self._before(),
            host_ips=host_ips_for(ctx.pod, ctx.services),
            now_ns=ctx.services.clock.now_ns(),
            ending=ending,
            settled=settled,
            verdict=verdict,
            resize=list(ctx.resizing.conditions.values()),
        )
        self._show(make_terminated_status(given) if settled else make_status(given))

    def rejected(self, verdict: Verdict) -> None:
        """Show that the node refuses the pod."""
        self.is_rejected = True
        now_ns = self._ctx.services.clock.now_ns()
        self._show(make_rejected_status(self._writer.held, verdict, now_ns))

    def _show(self, status: dict[str, Any]) -> None:
        self._ctx.status = status
        self._writer.put(status, pod_notes(self._ctx.state.sandbox))

    def _before(self) -> dict[str, Any]:
        """Return the newest status with what others have written since."""
        held = self._writer.held
        before = {k: v for k, v in self._ctx.status.items() if k not in FOREIGN}
        before.update({k: held[k] for k in FOREIGN if k in held})
        own = [c for c in self._ctx.status.get("conditions") or () if c["type"] in OWN]
        others = [c for c in held.get("conditions") or () if c["type"] not in OWN]
        before["conditions"] = [*others, *own]
        return before
