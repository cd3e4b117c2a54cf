"""Attaches sandboxes to the network and detaches them: the order of things, and the records."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from vk_provider._pb.sandbox_pb2 import PodMetadata, PortMapping
from vk_provider.agent.network import conflist as conflists
from vk_provider.agent.network import firewall, host, namespace, tap
from vk_provider.agent.network.attachment import (
    Attachment,
    Interface,
    Record,
    Records,
    Tap,
    netns_name,
)
from vk_provider.agent.network.cni import INTERFACE, CniCall, CniPlugins
from vk_provider.agent.network.conflist import Conflist
from vk_provider.agent.network.result import addresses_of
from vk_provider.agent.network.settings import NetworkSettings
from vk_provider.common.errors import FailedPrecondition, Invalid, Unavailable, VkError
from vk_provider.common.logging import get_logger

_log = get_logger("agent.network")


class PodNetwork:
    """The network of all sandboxes of this host.

    Use: `open`, then `set_pod_cidrs` when the node has been given some; remembered for the
    next start. A sandbox is attached by `open_tap`, which is quick and enough to start QEMU, and
    `attach`, whose plugins take their time beside that start. Calls for one sandbox run one after
    the other, those for several side by side.
    """

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self._plugins = CniPlugins(settings.cni_bin_dirs, settings.plugin_timeout_s)
        self._records = Records(settings.state_dir / "attachments")
        self._cidrs_file = settings.state_dir / "pod-cidrs.json"
        self._ipam_dir = settings.state_dir / "ipam"
        self._cidrs: list[str] = []
        self._built_in: Conflist | None = None
        self._problem = ""
        self._locks = _Locks()

    async def open(self) -> None:
        """Make the directories, take up the last run's pod CIDRs. Raises FailedPrecondition."""
        try:
            await asyncio.to_thread(self._open)
        except OSError as exc:
            raise FailedPrecondition(f"the network's directories cannot be made: {exc}") from exc
        cidrs = await asyncio.to_thread(self._remembered_cidrs)
        if cidrs:
            try:
                await self.set_pod_cidrs(cidrs)
            except VkError as exc:  # told by `ready`; the node may bring better ones
                _log.warning(
                    "the pod CIDRs of the last run do not work", cidrs=cidrs, error=str(exc)
                )

    async def set_pod_cidrs(self, cidrs: Sequence[str]) -> None:
        """Take the node's pod CIDRs (at most one of each family) for the built-in network.

        Idempotent and quick when nothing changed. Raises Invalid, FailedPrecondition.
        """
        wanted = host.check_cidrs(cidrs)
        if not wanted or (wanted == self._cidrs and self._built_in is not None):
            return
        self._cidrs, self._built_in = wanted, None
        if self._configured() is None:
            await self._prepare_built_in()
        try:
            await asyncio.to_thread(self._cidrs_file.write_bytes, orjson.dumps(wanted))
        except OSError as exc:  # the node says them again to the next agent, only later
            _log.warning("pod CIDRs are not remembered", file=str(self._cidrs_file), why=str(exc))

    def ready(self) -> tuple[bool, str]:
        """Whether pods can be attached, and a sentence that says how or why not."""
        try:
            chosen = self._configured()
        except FailedPrecondition as exc:
            return False, str(exc)
        if chosen is None:
            if self._problem:
                return False, self._problem
            if not self._cidrs:
                return False, (
                    f"there is no CNI configuration in {self._settings.cni_conf_dir}, and the "
                    "built-in network waits for the node's pod CIDR"
                )
            chosen = self._built_in
        missing = self._plugins.missing(chosen) if chosen else []
        if chosen and missing:
            places = ", ".join(map(str, self._settings.cni_bin_dirs))
            return False, (
                f"the network {chosen.name} ({chosen.source}) needs the CNI plugins "
                f"{', '.join(missing)}, which are in none of {places}"
            )
        if chosen is None or chosen is self._built_in:
            return True, f"built-in network on {', '.join(self._cidrs)}"
        return True, f"CNI network {chosen.name} from {chosen.source}"

    async def open_tap(self, machine_id: str) -> Tap:
        """Make a sandbox's namespace and open the tap in it. Idempotent: opens the tap anew.

        Raises Invalid, FailedPrecondition (also while a QEMU holds the tap), Unavailable; after a
        failure or a cancellation `tear_down` removes what was done.
        """
        name = netns_name(machine_id)
        async with self._locks.of(machine_id):
            record = await asyncio.to_thread(self._records.load, machine_id)
            try:
                if record is not None:
                    if record.interface is not None and namespace.is_mounted(name):
                        fd = await namespace.in_own_thread(partial(_enter_and_open, name), os.close)
                        return Tap(name, fd)
                    await self._detach(machine_id, record)  # half done, or the host was restarted
                await asyncio.to_thread(self._records.save, machine_id, Record())
                fd = await namespace.in_own_thread(partial(_create, name), os.close)
            except OSError as exc:
                raise Unavailable(f"sandbox {machine_id} got no network namespace: {exc}") from exc
            return Tap(name, fd)

    async def attach(
        self, machine_id: str, pod: PodMetadata, port_mappings: Sequence[PortMapping]
    ) -> Attachment:
        """Run the plugins in a namespace that `open_tap` has made, and join the tap. Idempotent.

        Raises Invalid, FailedPrecondition, Exhausted, Unavailable, DeadlineExceeded; after a
        failure or a cancellation `tear_down` removes what was done.
        """
        name = netns_name(machine_id)
        async with self._locks.of(machine_id):
            record = await asyncio.to_thread(self._records.load, machine_id)
            if record is None:
                raise FailedPrecondition(f"the tap of sandbox {machine_id} was not opened yet")
            if record.interface is not None:
                return _attachment(record.interface)
            chosen = await self._choose()
            runtime = conflists.runtime_config(chosen, port_mappings)
            record = Record(chosen, runtime, _cni_args(machine_id, pod))
            await asyncio.to_thread(self._records.save, machine_id, record)
            result = await self._plugins.add(chosen, runtime, _call(machine_id, record))
            record = replace(record, result=result)
            addresses = addresses_of(result, chosen.name)
            await asyncio.to_thread(self._records.save, machine_id, record)
            await firewall.apply(firewall.add_ports(*_host_ports(record)))
            try:
                interface = await namespace.in_own_thread(partial(_join, name, addresses))
            except OSError as exc:
                raise Unavailable(f"sandbox {machine_id} cannot be attached: {exc}") from exc
            record = replace(record, interface=interface)
            await asyncio.to_thread(self._records.save, machine_id, record)
            return _attachment(interface)

    async def tear_down(self, machine_id: str) -> None:
        """Detach a sandbox, by its record: as it was attached. Idempotent.

        A sandbox without a record has only its namespace removed; one whose record is damaged is
        detached from the network as it is now. Raises as `attach`; then what is left is
        remembered, and the call may be repeated.
        """
        name = netns_name(machine_id)
        async with self._locks.of(machine_id):
            try:
                record = await asyncio.to_thread(self._records.load, machine_id)
            except FailedPrecondition as exc:
                _log.warning("a sandbox is detached without its record", error=str(exc))
                await self._detach_blindly(machine_id)
                return
            if record is not None:
                await self._detach(machine_id, record)
            else:
                await asyncio.to_thread(namespace.remove, name)

    def list_machine_ids(self) -> set[str]:
        """Return the sandboxes that were attached here and not detached in full.

        By their records, which are written before a namespace is made and removed after it: the
        namespaces of another agent on this host are not ours to name.
        """
        return self._records.machine_ids()

    async def remove_host_setup(self) -> None:
        """Remove the built-in network's bridge and table: nothing on this host needs them."""
        await host.undo(self._settings.bridge)

    async def _detach(self, machine_id: str, record: Record) -> None:
        if record.conflist is not None:
            try:
                await firewall.apply(firewall.remove_ports(*_host_ports(record)))
            except FailedPrecondition as exc:  # another pod's by now, or the table is gone
                _log.warning("host ports were not there to be removed", error=str(exc))
            call = _call(machine_id, record)
            await self._plugins.delete(record.conflist, record.runtime, call, record.result)
        await asyncio.to_thread(namespace.remove, netns_name(machine_id))
        await asyncio.to_thread(self._records.remove, machine_id)

    async def _detach_blindly(self, machine_id: str) -> None:
        """Detach as far as that goes without a record, which nothing will bring back.

        Plugins find what they gave by the sandbox's id. What they can't do is told of, and must
        not keep the pod from going.
        """
        try:
            chosen = self._configured() or self._built_in
            if chosen is not None:
                await self._plugins.delete(chosen, {}, _call(machine_id, Record()), None)
            if self._built_in is not None:
                # Which were its host ports? Those that lead to no pod any more.
                ports = await firewall.list_ports()
                leased = await asyncio.to_thread(self._leased, self._built_in.name)
                await firewall.apply("".join(p.removal for p in ports if p.ip not in leased))
        except VkError as exc:
            _log.warning("something of a sandbox is left", sandbox=machine_id, error=str(exc))
        await asyncio.to_thread(namespace.remove, netns_name(machine_id))
        await asyncio.to_thread(self._records.remove, machine_id)

    def _leased(self, network: str) -> set[str]:
        """Return the addresses that the built-in network has given: host-local's files."""
        return {path.name for path in (self._ipam_dir / network).glob("*")}

    async def _choose(self) -> Conflist:
        chosen = self._configured()
        if chosen is not None:
            return chosen
        if self._built_in is None and self._cidrs:
            await self._prepare_built_in()  # the host's configuration was taken away
        if self._built_in is None:
            raise Unavailable(self.ready()[1])
        return self._built_in

    def _configured(self) -> Conflist | None:
        return conflists.load(self._settings.cni_conf_dir)

    async def _prepare_built_in(self) -> None:
        settings = self._settings
        try:
            mtu = await host.prepare(
                self._cidrs, settings.direct_cidrs, settings.bridge, settings.mtu
            )
        except VkError as exc:
            self._problem = f"the built-in network cannot be set up: {exc}"
            raise
        self._problem = ""
        # Somebody may have flushed the rules: what attached pods have is put back.
        for machine_id in self._records.machine_ids():
            try:
                record = await asyncio.to_thread(self._records.load, machine_id)
            except FailedPrecondition as exc:  # one pod's, which must not keep off all others
                _log.warning("a sandbox's host ports are not known", error=str(exc))
                continue
            if record is not None:
                await firewall.apply(firewall.add_ports(*_host_ports(record)))
        self._built_in = conflists.built_in(self._cidrs, settings.bridge, mtu, self._ipam_dir)

    def _open(self) -> None:
        self._settings.state_dir.mkdir(parents=True, exist_ok=True)
        self._records.open()
        namespace.prepare_directory()

    def _remembered_cidrs(self) -> list[str]:
        try:
            value = orjson.loads(self._cidrs_file.read_bytes())
        except FileNotFoundError:
            return []
        except orjson.JSONDecodeError:
            _log.warning("damaged, left aside: the node says it anew", file=str(self._cidrs_file))
            return []
        return [str(cidr) for cidr in value] if isinstance(value, list) else []


class _Locks:
    """A lock for each sandbox that somebody is busy with."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def of(self, machine_id: str) -> AsyncIterator[None]:
        self._users[machine_id] += 1
        try:
            async with self._locks.setdefault(machine_id, asyncio.Lock()):
                yield
        finally:
            self._users[machine_id] -= 1
            if self._users[machine_id] == 0:
                del self._users[machine_id], self._locks[machine_id]


def _host_ports(record: Record) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a pod's host ports and addresses, where they are the built-in table's business."""
    mappings = record.runtime.get("portMappings", [])
    if not mappings or record.result is None or record.conflist is None:
        return [], []
    if not record.conflist.is_built_in:
        return [], []
    addresses = addresses_of(record.result, record.conflist.name)
    return mappings, [address.partition("/")[0] for address in addresses]


def _call(machine_id: str, record: Record) -> CniCall:
    return CniCall(machine_id, str(namespace.DIRECTORY / netns_name(machine_id)), record.args)


def _attachment(interface: Interface) -> Attachment:
    return Attachment(interface.to_proto(INTERFACE), interface.ips)


def _cni_args(machine_id: str, pod: PodMetadata) -> str:
    """Return CNI_ARGS as container runtimes on Kubernetes write it. Raises Invalid."""
    values: dict[str, Any] = {
        "K8S_POD_NAMESPACE": pod.namespace,
        "K8S_POD_NAME": pod.name,
        "K8S_POD_INFRA_CONTAINER_ID": machine_id,
        "K8S_POD_UID": pod.uid,
    }
    for name, value in values.items():
        if any(sign in value for sign in ";=\n\0"):
            raise Invalid(f"the pod's {name} is {value!r}, which no CNI plugin could take")
    return ";".join(["IgnoreUnknown=1", *(f"{name}={value}" for name, value in values.items())])


def _create(name: str) -> int:
    namespace.remove(name)  # one that was half made
    namespace.create(name)
    tap.prepare_namespace()
    return tap.open_tap()


def _enter_and_open(name: str) -> int:
    namespace.enter(name)
    return tap.open_tap()


def _join(name: str, addresses: list[str]) -> Interface:
    namespace.enter(name)
    return tap.join(INTERFACE, addresses)
