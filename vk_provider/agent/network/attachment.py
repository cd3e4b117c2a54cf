"""What a sandbox is attached by, and the record of it that outlives the agent."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from vk_provider._pb.guest_pb2 import NetworkAddress, NetworkInterface, NetworkRoute
from vk_provider.agent.network.conflist import Conflist, parse
from vk_provider.common.errors import FailedPrecondition, Invalid

_SANDBOX_ID = re.compile(r"[0-9a-f]{32}")
_NETNS_PREFIX = "vk-"


@dataclass(frozen=True)
class Tap:
    """netns: the namespace's name under /run/netns. fd: QEMU's end, owned by the receiver."""

    netns: str
    fd: int


@dataclass(frozen=True)
class Attachment:
    """interface: what the guest sets up.

    ips: the pod's addresses without prefix length, the preferred one first.
    """

    interface: NetworkInterface
    ips: list[str]


def netns_name(sandbox_id: str) -> str:
    """Return the name of a sandbox's network namespace. Raises Invalid."""
    if not _SANDBOX_ID.fullmatch(sandbox_id):
        raise Invalid(f"{sandbox_id!r} is no sandbox id: 32 hex digits")
    return _NETNS_PREFIX + sandbox_id


@dataclass(frozen=True)
class Interface:
    """The interface in the namespace as the plugins left it."""

    mac: str
    mtu: int
    addresses: list[str]  # with prefix length
    routes: list[tuple[str, str]]  # destination, gateway (empty: on-link)

    def to_proto(self, name: str) -> NetworkInterface:
        return NetworkInterface(
            name=name,
            mac=self.mac,
            mtu=self.mtu,
            addresses=[NetworkAddress(cidr=cidr) for cidr in self.addresses],
            routes=[
                NetworkRoute(destination=destination, gateway=gateway)
                for destination, gateway in self.routes
            ],
        )

    @property
    def ips(self) -> list[str]:
        return [cidr.partition("/")[0] for cidr in self.addresses]


@dataclass(frozen=True)
class Record:
    """Written before the namespace is made, before ADD and after it; removed after DEL.

    conflist: None before a configuration was chosen. interface: None before ADD is done.
    """

    conflist: Conflist | None = None
    runtime: dict[str, Any] = field(default_factory=dict)
    args: str = ""
    result: dict[str, Any] | None = None
    interface: Interface | None = None


class Records:
    """One small JSON file for each attachment."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def open(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def machine_ids(self) -> set[str]:
        stems = (path.stem for path in self._directory.glob("*.json"))
        return {stem for stem in stems if _SANDBOX_ID.fullmatch(stem)}

    def save(self, sandbox_id: str, record: Record) -> None:
        """Write the record so that a crash leaves the old one or the new one."""
        value = {
            "conflist": record.conflist.to_json() if record.conflist else None,
            "source": record.conflist.source if record.conflist else "",
            "runtime": record.runtime,
            "args": record.args,
            "result": record.result,
            "interface": asdict(record.interface) if record.interface else None,
        }
        path = self._path(sandbox_id)
        unfinished = path.with_suffix(".tmp")
        unfinished.write_bytes(orjson.dumps(value))
        unfinished.rename(path)

    def load(self, sandbox_id: str) -> Record | None:
        """Return the record; None where there is none. Raises FailedPrecondition if damaged."""
        path = self._path(sandbox_id)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            value = orjson.loads(data)
            conflist = None
            if value["conflist"] is not None:
                conflist = parse(orjson.dumps(value["conflist"]), value["source"])
            seen = value["interface"]
            interface = None
            if seen is not None:
                routes = [(destination, gateway) for destination, gateway in seen["routes"]]
                interface = Interface(seen["mac"], seen["mtu"], seen["addresses"], routes)
            return Record(conflist, value["runtime"], value["args"], value["result"], interface)
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as exc:
            raise FailedPrecondition(
                f"the network record {path} is damaged ({exc!r}); remove it, and the pod's "
                "addresses with it, if the pod is gone"
            ) from exc

    def remove(self, sandbox_id: str) -> None:
        path = self._path(sandbox_id)
        path.unlink(missing_ok=True)
        path.with_suffix(".tmp").unlink(missing_ok=True)

    def _path(self, sandbox_id: str) -> Path:
        netns_name(sandbox_id)  # refuses what is no id
        return self._directory / f"{sandbox_id}.json"
