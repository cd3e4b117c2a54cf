"""The agent's records in SQLite: written before they are acted on, read once at start.

Write-ahead logging with `synchronous=NORMAL`: what was committed outlives a kill of the agent. A
host that loses its power may lose the last records, and loses its VMs with them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import orjson
from google.protobuf.message import DecodeError

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.records import ContainerRecord, Disk, Phase, SandboxRecord
from vk_provider.common.errors import Exhausted, Internal

_VERSION = 1
_SCHEMA = """
CREATE TABLE sandboxes (sandbox_id TEXT PRIMARY KEY, status BLOB NOT NULL, more TEXT NOT NULL);
CREATE TABLE containers (container_id TEXT PRIMARY KEY, sandbox_id TEXT NOT NULL,
                         status BLOB NOT NULL, more TEXT NOT NULL);
CREATE TABLE usage (sandbox_id TEXT PRIMARY KEY, pod_uid TEXT NOT NULL,
                    started_at_ns INTEGER NOT NULL, ended_at_ns INTEGER NOT NULL,
                    record BLOB NOT NULL);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
_Record = TypeVar("_Record")


class Store:
    """One database, one connection, one thread. Each method is one short transaction.

    Every method raises Exhausted for a full disk, Internal for any other failure of the file.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open or make the database. Raises Internal where the file is damaged or too new."""
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(path, isolation_level=None)
        store = cls(path, connection)
        try:
            store._prepare()
        except BaseException:
            connection.close()
            raise
        path.chmod(0o600)
        return store

    def close(self) -> None:
        self._connection.close()

    # -- sandboxes and containers --

    def put_sandbox(self, record: SandboxRecord) -> None:
        more = {
            "phase": record.phase.value,
            "uid": record.uid,
            "vm": record.vm,
            "started_at_ns": record.started_at_ns,
            "hostname": record.hostname,
            "share_process_namespace": record.share_process_namespace,
            "disks": [[d.lun, d.image_ref, d.key] for d in record.disks],
            "machine_id": record.machine_id,
            "vm_cpu_before_ns": record.vm_cpu_before_ns,
        }
        self._write(
            "INSERT OR REPLACE INTO sandboxes VALUES (?, ?, ?)",
            (record.id, record.status.SerializeToString(), orjson.dumps(more).decode()),
        )

    def delete_sandbox(self, sandbox_id: str) -> None:
        """Forget a sandbox and its containers; what it used stays."""
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("DELETE FROM containers WHERE sandbox_id = ?", (sandbox_id,))
            self._connection.execute("DELETE FROM sandboxes WHERE sandbox_id = ?", (sandbox_id,))
            self._connection.execute("COMMIT")

    def sandboxes(self) -> list[SandboxRecord]:
        return self._read("SELECT status, more FROM sandboxes", _sandbox)

    def put_container(self, record: ContainerRecord) -> None:
        more = {
            "log_path": record.log_path,
            "image_key": record.image_key,
            "stop_signal": record.stop_signal,
            "tty": record.tty,
            "stdin": record.stdin,
            "made": record.made,
        }
        self._write(
            "INSERT OR REPLACE INTO containers VALUES (?, ?, ?, ?)",
            (
                record.id,
                record.sandbox_id,
                record.status.SerializeToString(),
                orjson.dumps(more).decode(),
            ),
        )

    def delete_container(self, container_id: str) -> None:
        self._write("DELETE FROM containers WHERE container_id = ?", (container_id,))

    def containers(self) -> list[ContainerRecord]:
        return self._read("SELECT status, more FROM containers", _container)

    # -- use --

    def put_usage(self, records: Iterable[pb.UsageRecord]) -> None:
        """Write all in one transaction."""
        rows = [
            (r.sandbox_id, r.pod.uid, r.started_at_ns, r.ended_at_ns, r.SerializeToString())
            for r in records
        ]
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                "INSERT OR REPLACE INTO usage VALUES (?, ?, ?, ?, ?)", rows
            )
            self._connection.execute("COMMIT")

    def usage(self, since_ns: int = 0, pod_uid: str = "") -> list[pb.UsageRecord]:
        """Return the records of what ran at or after that time, oldest first."""
        return self._read(
            "SELECT record FROM usage WHERE (ended_at_ns = 0 OR ended_at_ns >= ?)"
            " AND (? = '' OR pod_uid = ?) ORDER BY started_at_ns",
            pb.UsageRecord.FromString,
            (since_ns, pod_uid, pod_uid),
        )

    def delete_usage(self, sandbox_id: str) -> None:
        self._write("DELETE FROM usage WHERE sandbox_id = ?", (sandbox_id,))

    def delete_usage_before(self, ended_before_ns: int) -> None:
        """Forget what ended before that time and whose sandbox is gone."""
        self._write(
            "DELETE FROM usage WHERE ended_at_ns > 0 AND ended_at_ns < ?"
            " AND sandbox_id NOT IN (SELECT sandbox_id FROM sandboxes)",
            (ended_before_ns,),
        )

    # -- settings that outlive the agent --

    def get_setting(self, name: str) -> str:
        """Return a setting, "" where it was never set."""
        rows = self._read("SELECT value FROM settings WHERE name = ?", str, (name,))
        return rows[0] if rows else ""

    def put_setting(self, name: str, value: str) -> None:
        self._write("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    # -- inner works --

    def _prepare(self) -> None:
        with self._translated():
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=NORMAL")
            problem = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise self._damaged(problem)
            self._migrate()

    def _migrate(self) -> None:
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise Internal(
                f"the agent's records in {self._path} are of version {version}, and this agent "
                f"knows {_VERSION} at most; run the newer agent that wrote them"
            )
        if version == 0:
            self._connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {_VERSION}; COMMIT;"
            )

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        with self._translated():
            self._connection.execute(statement, values)

    def _read(
        self, query: str, make: Callable[..., _Record], values: tuple[Any, ...] = ()
    ) -> list[_Record]:
        with self._translated():
            rows = self._connection.execute(query, values).fetchall()
        try:
            return [make(*row) for row in rows]
        except (orjson.JSONDecodeError, DecodeError, KeyError, ValueError, TypeError) as exc:
            raise self._damaged(f"a row is none of ours: {exc!r}") from exc

    def _damaged(self, why: str) -> Internal:
        return Internal(
            f"the agent's records in {self._path} are damaged ({why}). Put a copy of the file "
            "back, or move it aside: an agent without it takes every microVM here for an orphan "
            "and removes it"
        )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            if self._connection.in_transaction:
                self._connection.rollback()
            if exc.sqlite_errorname == "SQLITE_FULL":
                raise Exhausted(
                    f"no space left for the agent's records in {self._path}; make room there"
                ) from exc
            if exc.sqlite_errorname in ("SQLITE_CORRUPT", "SQLITE_NOTADB"):
                raise self._damaged(str(exc)) from exc
            raise Internal(f"the agent's records in {self._path}: {exc}") from exc


def _sandbox(status: bytes, more: str) -> SandboxRecord:
    fields = orjson.loads(more)
    return SandboxRecord(
        status=pb.SandboxStatus.FromString(status),
        phase=Phase(fields["phase"]),
        uid=fields["uid"],
        vm=fields["vm"],
        started_at_ns=fields["started_at_ns"],
        hostname=fields["hostname"],
        share_process_namespace=fields["share_process_namespace"],
        disks=[Disk(*disk) for disk in fields["disks"]],
        # Records of older agents have none of these.
        machine_id=fields.get("machine_id", ""),
        vm_cpu_before_ns=fields.get("vm_cpu_before_ns", 0),
    )


def _container(status: bytes, more: str) -> ContainerRecord:
    return ContainerRecord(pb.ContainerStatus.FromString(status), **orjson.loads(more))
