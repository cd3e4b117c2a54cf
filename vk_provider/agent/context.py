"""What the verbs of the agent share: neighbours, records, and the owner of its tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from vk_provider.agent.events import EventHub
from vk_provider.agent.images import ImageStore
from vk_provider.agent.network import PodNetwork
from vk_provider.agent.ports import Machines
from vk_provider.agent.records import Phase
from vk_provider.agent.sandbox import Container, Sandbox
from vk_provider.agent.settings import AgentSettings
from vk_provider.agent.shapes import Size
from vk_provider.agent.store import Store
from vk_provider.common.clock import Clock
from vk_provider.common.errors import Exhausted, NotFound
from vk_provider.common.logging import get_logger

if TYPE_CHECKING:
    from vk_provider.agent.spares import Spares

_log = get_logger("agent")


class Context:
    """One agent's parts. `sandboxes` and `containers` mirror the records, by id."""

    def __init__(
        self,
        settings: AgentSettings,
        store: Store,
        machines: Machines,
        images: ImageStore,
        network: PodNetwork,
        events: EventHub,
        clock: Clock,
        sizes: Sequence[Size],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self.settings = settings
        self.store = store
        self.machines = machines
        self.images = images
        self.network = network
        self.events = events
        self.clock = clock
        self.sizes = sizes
        self.sandboxes: dict[str, Sandbox] = {}
        self.containers: dict[str, Container] = {}
        self.spares: Spares | None = None
        """VMs that are kept ready; None where none are."""
        self.reserved_uids: set[int] = set()
        """Users of VMs that are no sandbox's yet."""
        self._tasks = tasks
        self._running: set[asyncio.Task[None]] = set()
        self._unwritten_sandboxes: dict[str, Sandbox] = {}
        self._unwritten_containers: dict[str, Container] = {}

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something that outlives the call that asked for it; it ends with the agent at last.

        A defect in it is logged and harms nothing else.
        """
        task = self._tasks.create_task(_guarded(work, name), name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def cancel_tasks(self) -> None:
        """End every task, as the agent ends."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def sandbox(self, sandbox_id: str) -> Sandbox:
        """Return a sandbox; raises NotFound."""
        try:
            return self.sandboxes[sandbox_id]
        except KeyError:
            raise NotFound(f"there is no sandbox {sandbox_id}") from None

    def container(self, container_id: str) -> Container:
        """Return a container; raises NotFound."""
        try:
            return self.containers[container_id]
        except KeyError:
            raise NotFound(f"there is no container {container_id}") from None

    def free_uid(self) -> int:
        """Return a user that no VM runs as, the one after the newest first."""
        ended = Phase.ENDED  # before that its VM may still be there
        used = {s.record.uid for s in self.sandboxes.values() if s.record.phase is not ended}
        used |= self.reserved_uids
        base, count = self.settings.uid_base, self.settings.uid_count
        newest: int = max(used, default=base - 1)
        candidates: list[int] = [*range(newest + 1, base + count), *range(base, newest + 1)]
        for uid in candidates:
            if uid not in used:
                return uid
        raise Exhausted(
            f"all {count} users for microVMs from {base} on are taken; allow more of them"
        )

    def save(self, sandbox: Sandbox) -> None:
        """Write an intent down, before it is acted on. Raises Exhausted: then do not act."""
        self.store.put_sandbox(sandbox.record)

    def save_container(self, container: Container) -> None:
        """Write an intent down, before it is acted on. Raises Exhausted: then do not act."""
        self.store.put_container(container.record)

    def note(self, sandbox: Sandbox) -> None:
        """Write down what has happened; on a full disk, as soon as there is room."""
        self._unwritten_sandboxes[sandbox.id] = sandbox
        self.write_notes()

    def note_container(self, container: Container) -> None:
        """Write down what has happened; on a full disk, as soon as there is room."""
        self._unwritten_containers[container.id] = container
        self.write_notes()

    def write_notes(self) -> None:
        """Try to write down what a full disk has kept waiting."""
        try:
            for sandbox_id, sandbox in list(self._unwritten_sandboxes.items()):
                if sandbox_id in self.sandboxes:
                    self.store.put_sandbox(sandbox.record)
                del self._unwritten_sandboxes[sandbox_id]
            for container_id, container in list(self._unwritten_containers.items()):
                if container_id in self.containers:
                    self.store.put_container(container.record)
                del self._unwritten_containers[container_id]
        except Exhausted as exc:
            _log.warning("records wait for room on the disk", why=str(exc))

    def sandbox_changed(self, sandbox: Sandbox) -> None:
        """Tell the watchers; the record has been written before."""
        self.events.sandbox_changed(sandbox.id, sandbox.record.status.pod.uid)

    def container_changed(self, container: Container) -> None:
        """Tell the watchers; the record has been written before."""
        self.events.container_changed(
            container.sandbox.id, container.id, container.sandbox.record.status.pod.uid
        )


async def _guarded(work: Coroutine[Any, Any, None], name: str) -> None:
    try:
        await work
    except Exception:  # noqa: BLE001 - the border between one sandbox's defect and all others
        _log.exception("a task of the agent failed", task=name)
