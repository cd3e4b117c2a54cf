"""One pod's life (kubelet pod_workers): look, report, decide, act.

Inputs come as calls that return at once; the worker's one loop takes the newest of each. At most
one action is under way at a time. It is not awaited by the loop, so that what happens meanwhile
is seen and reported. The latest desired state wins, the end outranks everything, and grace only
shrinks. Nothing here is remembered that the API and the runtime could not tell a new process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from vk_provider.common.errors import Unavailable, VkError
from vk_provider.common.logging import get_logger
from vk_provider.pods.admission import Rejection
from vk_provider.pods.alarm import Alarm
from vk_provider.pods.context import PodContext
from vk_provider.pods.deadlines import active_until_ns, grace_s, remaining_grace_s
from vk_provider.pods.executor import carry_out, may_wait
from vk_provider.pods.killing import Grace
from vk_provider.pods.planner import plan
from vk_provider.pods.pod_state import PodState
from vk_provider.pods.podspec import Pod, describe
from vk_provider.pods.resizing import Fit, Resizing
from vk_provider.pods.restart import is_deleted
from vk_provider.pods.services import PodServices
from vk_provider.pods.status.generate import Verdict
from vk_provider.pods.status.phase import is_terminal
from vk_provider.pods.status.report import Reporter
from vk_provider.pods.status.writer import StatusWriter
from vk_provider.pods.termination import clean_up, end_pod, read_messages, remove_superseded

_NS = 1_000_000_000
_DEFERRED_S = 180.0  # kubelet allocation: retryDelay; other pods that leave wake it before
_RETRY_S = (0.2, 5.0)  # the longest bounds how late a server's return is noticed

log = get_logger("pods.worker")

Admit = Callable[[Pod], Rejection | None]


class PodWorker:
    """See the module. `run` ends when the pod is gone from the API and from the runtime.

    `admit` is asked once, for a pod of which nothing has been started yet. `fit` is asked whether
    the node has room for a pod that asks for other resources than it has. `freed` is called when
    there is more room than before.
    """

    def __init__(
        self,
        pod: Pod,
        services: PodServices,
        admit: Admit,
        fit: Fit,
        freed: Callable[[], None],
    ) -> None:
        self._services = services
        self._admit = admit
        self._fit = fit
        self._freed = freed
        self._news = asyncio.Event()
        self._alarm = Alarm(services.clock, self.wake)
        self._writer = StatusWriter(services.api, pod, services.clock)
        self.admitted = _was_admitted(pod)
        resizing = Resizing(pod, services.recorder, services.clock, fit, was_admitted=self.admitted)
        self._wanted = pod
        self.ctx = PodContext(
            services,
            resizing.apply(pod),
            resizing,
            report=self._report,
            wake_at=self._alarm.set,
        )
        self.ctx.status = self._writer.held
        self._reporter = Reporter(self.ctx, self._writer)
        self._seen = False  # the runtime's records were read at least once
        self._stale = True  # and must be read again
        self._gone = False  # the API object is
        self._delete_sent = False
        self._ending = False
        self._settled = False  # nothing of it runs, nor will again
        self._verdict: Verdict | None = None
        self._grace: Grace | None = None
        self._action: asyncio.Task[None] | None = None
        self._action_is_sync = False
        self._retry_at_ns = 0
        self._pause_s = _RETRY_S[0]
        self._born_deleted = is_deleted(pod)
        self._news.set()

    # ---- inputs ----

    def update(self, pod: Pod) -> None:
        """Take the API object's newest state."""
        self._take(pod)
        self._writer.seen(pod)
        if not self._settled:
            self._services.probes.add_pod(pod)
            self._services.volumes.update_pod(self.ctx.pod)
        if not self._ending:
            self._services.objects.register_pod(pod)
        self._shorten()
        self.wake()

    def leave(self, pod: Pod) -> None:
        """Take note that the API object is gone: what is left is ended and removed."""
        self._take(pod)
        self._gone = True
        self._writer.leave()
        self._shorten()
        self.wake()

    def wake(self) -> None:
        """Look at the pod again: a time has come, or a probe has decided."""
        self._news.set()

    def runtime_changed(self) -> None:
        """Read the runtime's records again."""
        self._stale = True
        self._news.set()

    def objects_changed(self) -> None:
        """Try again now what waited for a ConfigMap or a Secret."""
        self.ctx.hurry()
        self._retry_at_ns = 0
        self._news.set()

    @property
    def pod(self) -> Pod:
        """The pod with its newest status, written or not."""
        return {**self.ctx.pod, "status": dict(self.ctx.status)}

    @property
    def phase(self) -> str:
        """The phase that the API shows."""
        return str(self._writer.held.get("phase") or "Pending")

    @property
    def holds_resources(self) -> bool:
        """It was admitted and has not ended: it counts when others are admitted."""
        return self.admitted and not self._settled and not self._reporter.is_rejected

    def successor(self) -> PodWorker:
        """Return a worker that begins anew with the newest object, as after a restart."""
        newest = {**self._wanted, "status": dict(self.ctx.status)}
        worker = PodWorker(newest, self._services, self._admit, self._fit, self._freed)
        worker.admitted = self.admitted
        if self._gone:
            worker.leave(self._wanted)
        return worker

    # ---- the loop ----

    async def run(self) -> None:
        """Live the pod's life; cancelling it leaves the pod as it is."""
        name = describe(self.ctx.pod)
        self._services.probes.add_pod(self.ctx.pod)
        self._services.objects.register_pod(self.ctx.pod)
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(self._writer.run(), name=f"status/{name}"),
                group.create_task(self._alarm.run(), name=f"alarm/{name}"),
            ]
            while not await self._turn(group):
                await self._news.wait()
            for helper in helpers:
                helper.cancel()

    async def _turn(self, group: asyncio.TaskGroup) -> bool:
        """Look once and act; True when the pod's life is over."""
        self._news.clear()
        if self._stale and not await self._observe():
            return False
        if not self._judge():
            return False
        self._resize()
        self._report()
        if self._action is not None and not self._action.done():
            if self._ending and self._action_is_sync:
                self._action.cancel()
            return False
        now = self._services.clock.now_ns()
        if self._retry_at_ns > now:
            self._alarm.set(self._retry_at_ns)
            return False
        self._start_next(group)
        over = self._action is None and self._gone and self._settled
        return over and not self.ctx.sandbox_ids

    async def _observe(self) -> bool:
        """Read the runtime's records; False where it is away, and the truth unknown."""
        self._stale = False
        changes = self.ctx.changes
        try:
            listed = await self._services.runtime.list_sandboxes(pod_uid=self.ctx.uid)
        except VkError as exc:
            self._stale = True
            self._try_later(exc)
            return False
        if self.ctx.changes != changes:
            self._stale = True  # an action answered meanwhile, and knows more
            self._news.set()
            return self._seen
        self.ctx.observe(PodState.of(listed.sandboxes))
        sandbox = self.ctx.state.ready_sandbox
        if not self._seen:
            self.ctx.resizing.recover(self._wanted, self.ctx.state)
            self._take(self._wanted)
            if sandbox is not None:
                # Adopted: what its files held when they were last sent is not known any more.
                self._services.volumes.add_pod(self.ctx.pod, sandbox.sandbox_id)
        self._seen = True
        await read_messages(self.ctx)
        return True

    def _judge(self) -> bool:
        """Decide whether the pod is to end; False where that can't be told yet."""
        if not self.admitted and not self._wants_end():
            try:
                rejection = self._admit(self.ctx.pod)
            except VkError as exc:
                self._try_later(exc)
                return False
            self.admitted = True
            if rejection is not None:
                self._reject(rejection)
        self._watch_deadline()
        if self._wants_end() and not self._ending:
            self._end()
        return True

    def _wants_end(self) -> bool:
        deleted = self._gone or is_deleted(self.ctx.pod)
        return deleted or is_terminal(self.phase) or self._verdict is not None

    def _reject(self, rejection: Rejection) -> None:
        self._services.recorder.event(self.ctx.pod, "Warning", rejection.reason, rejection.message)
        self._reporter.rejected(Verdict(rejection.reason, rejection.message))
        self._verdict = Verdict(rejection.reason, rejection.message)

    def _watch_deadline(self) -> None:
        until = active_until_ns(self.ctx.pod, self.ctx.status)
        if not until or self._ending:
            return
        if until > self._services.clock.now_ns():
            self._alarm.set(until)
            return
        message = "Pod was active on the node longer than the specified deadline"
        self._services.recorder.event(self.ctx.pod, "Normal", "DeadlineExceeded", message)
        self._verdict = Verdict("DeadlineExceeded", message)

    def _end(self) -> None:
        self._ending = True
        self._retry_at_ns = 0
        now = self._services.clock.now_ns()
        seconds = remaining_grace_s(self.ctx.pod, now) if self._born_deleted else None
        self._grace = Grace(self._services.clock, seconds or grace_s(self.ctx.pod))
        self._services.probes.stop_liveness_and_startup(self.ctx.uid)

    def _take(self, pod: Pod) -> None:
        self._wanted = pod
        self.ctx.pod = self.ctx.resizing.apply(pod)

    def _resize(self) -> None:
        """Give the pod the resources that it asks for, where they are to be had now."""
        resizing, state = self.ctx.resizing, self.ctx.state
        busy = self._action is not None and not self._action.done()
        if self._ending or (busy and state.ready_sandbox is None):
            return
        try:
            given = resizing.decide(self._wanted, state)
        except VkError as exc:  # the Node object is away
            log.info("a resize is judged later", pod=describe(self.ctx.pod), why=str(exc))
            self._look_again_in(_RETRY_S[1])
            return
        if given:
            self._take(self._wanted)
            self._services.volumes.update_pod(self.ctx.pod)
            self._freed()
            self.wake()
        elif resizing.deferred:
            self._look_again_in(_DEFERRED_S)
        if not busy:
            resizing.observe(self.ctx.pod, state)

    def _look_again_in(self, seconds: float) -> None:
        self._alarm.set(self._services.clock.now_ns() + round(seconds * _NS))

    def _shorten(self) -> None:
        if self._grace is not None and is_deleted(self.ctx.pod):
            self._grace.shorten(grace_s(self.ctx.pod))

    def _report(self) -> None:
        ended_before = not self.ctx.state.sandboxes and is_terminal(self.phase)
        if self._seen and not self._gone and not ended_before:
            self._reporter.report(self._verdict, ending=self._ending, settled=self._settled)

    # ---- actions ----

    def _start_next(self, group: asyncio.TaskGroup) -> None:
        self._action = None
        if not self._ending:
            actions = plan(self.ctx.pod, self.ctx.state, self.ctx.probe_results())
            if actions.kill_pod and not actions.create_sandbox:
                self._end()  # its work is done, or can't be
            elif may_wait(self.ctx, actions):
                return
            else:
                self._begin(group, carry_out(self.ctx, actions), "sync")
                return
        if self.ctx.state.live_sandboxes():
            assert self._grace is not None
            self._begin(group, end_pod(self.ctx, self._grace), "end")
        elif not self._settled:
            self._settle()
        if self._settled and self._action is None:
            if self._gone:
                if self.ctx.sandbox_ids:
                    self._begin(group, clean_up(self.ctx), "clean up")
            elif is_deleted(self.ctx.pod) and not self._delete_sent:
                self._begin(group, self._finish(), "finish")

    def _settle(self) -> None:
        """Nothing of it runs any more: say how it ended."""
        self._settled = True
        self._freed()
        uid = self.ctx.uid
        self._services.probes.remove_pod(uid)
        self._services.volumes.remove_pod(uid)
        self._services.objects.unregister_pod(uid)
        self._services.images.forget(uid)
        self._services.restarts.forget(f"{uid}/")
        self._report()

    async def _finish(self) -> None:
        """Let the API show the end, then take the object away."""
        await self._writer.flush()
        await self._writer.delete()
        self._delete_sent = True
        if self._writer.gone:
            self._gone = True

    def _begin(
        self, group: asyncio.TaskGroup, action: Coroutine[Any, Any, None], kind: str
    ) -> None:
        self._action_is_sync = kind == "sync"
        self._action = group.create_task(
            self._guarded(action, kind), name=f"{kind}/{describe(self.ctx.pod)}"
        )

    async def _guarded(self, action: Coroutine[Any, Any, None], kind: str) -> None:
        """Run an action to its end; what goes wrong is tried again, never fatal to the pod."""
        try:
            await action
            if kind == "sync":
                await remove_superseded(self.ctx)
            self._pause_s = _RETRY_S[0]
        except* VkError as group:
            for exc in _leaves(group):
                self._try_later(exc)
        finally:
            self._stale = True
            self._news.set()

    def _try_later(self, error: VkError) -> None:
        """Have another go after a pause that grows."""
        pod = describe(self.ctx.pod)
        level = log.info if isinstance(error, Unavailable) else log.warning
        level("pod not in sync", pod=pod, error=str(error), retry_s=self._pause_s)
        self._retry_at_ns = self._services.clock.now_ns() + round(self._pause_s * _NS)
        self._pause_s = min(self._pause_s * 2, _RETRY_S[1])
        self._alarm.set(self._retry_at_ns)


def _leaves(group: BaseExceptionGroup[VkError]) -> list[VkError]:
    found: list[VkError] = []
    for exc in group.exceptions:
        found += _leaves(exc) if isinstance(exc, BaseExceptionGroup) else [exc]
    return found


def _was_admitted(pod: Pod) -> bool:
    """Say whether a kubelet took the pod on before (this one, before a restart)."""
    return bool((pod.get("status") or {}).get("startTime"))
