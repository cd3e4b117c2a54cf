"""Records survive a new agent; a damaged file is refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.records import ContainerRecord, Disk, Phase, SandboxRecord
from vk_provider.agent.store import Store
from vk_provider.common.errors import Internal


def sandbox(sandbox_id: str = "a" * 32) -> SandboxRecord:
    return SandboxRecord(
        status=pb.SandboxStatus(
            sandbox_id=sandbox_id,
            pod=pb.PodMetadata(namespace="default", name="web", uid="u1"),
            state=pb.SANDBOX_STARTING,
            annotations={"a": "b"},
        ),
        uid=2_000_000,
        vm='{"pid": 7}',
        disks=[Disk(1, "sha256:x", "x")],
        machine_id="f" * 32,
    )


def test_sandboxes_and_containers_are_found_again(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "agent.db")
    record = sandbox()
    store.put_sandbox(record)
    record.enter(Phase.READY)
    store.put_sandbox(record)
    container = ContainerRecord(
        pb.ContainerStatus(container_id="c1", sandbox_id=record.id), "/log", "key", "SIGTERM", True
    )
    store.put_container(container)
    store.close()

    store = Store.open(tmp_path / "agent.db")
    assert store.sandboxes() == [record]
    assert store.containers() == [container]
    store.delete_sandbox(record.id)
    assert store.sandboxes() == []
    assert store.containers() == []
    store.close()


def test_usage_is_selected_by_time_and_pod(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "agent.db")
    old = pb.UsageRecord(
        sandbox_id="1", pod=pb.PodMetadata(uid="u1"), started_at_ns=1, ended_at_ns=5
    )
    live = pb.UsageRecord(sandbox_id="2", pod=pb.PodMetadata(uid="u2"), started_at_ns=2)
    store.put_usage([live, old])
    assert store.usage() == [old, live]
    assert store.usage(since_ns=6) == [live]
    assert store.usage(pod_uid="u1") == [old]
    store.delete_usage_before(6)
    assert store.usage() == [live]
    store.close()


@pytest.mark.parametrize("keep", [5, 300, 5000])
def test_a_file_cut_short_is_refused_in_words(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "agent.db"
    store = Store.open(path)
    for number in range(50):
        store.put_sandbox(sandbox(f"{number:032d}"))
    store.close()
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(Internal, match="damaged"):
        Store.open(path)


def test_records_of_a_newer_agent_are_left_alone(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "agent.db")
    store._connection.execute("PRAGMA user_version = 99")
    store.close()
    with pytest.raises(Internal, match="newer agent"):
        Store.open(tmp_path / "agent.db")


def test_a_life_has_no_way_back() -> None:
    record = sandbox()
    record.enter(Phase.READY)
    record.enter(Phase.STOPPING)
    assert record.status.state == pb.SANDBOX_NOT_READY
    with pytest.raises(Internal, match="cannot become ready"):
        record.enter(Phase.READY)
