"""Volumes that change while their pod runs."""

from __future__ import annotations

from tests.support.pod_world import PodWorld, container, pod, pod_world

VOLUMES = [
    {"name": "settings", "configMap": {"name": "settings"}},
    {
        "name": "labels",
        "downwardAPI": {
            "items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
        },
    },
]
MOUNTED = container(
    volumeMounts=[{"name": v["name"], "mountPath": f"/{v['name']}"} for v in VOLUMES]
)


def content(world: PodWorld, name: str) -> bytes:
    (volume,) = [v for (_, of), v in world.runtime.volumes.items() if of == name]
    return volume.files.files[0].data


def say(world: PodWorld, color: str) -> None:
    world.api.config_maps["default", "settings"] = {"data": {"color": color}}


async def test_a_changed_config_map_reaches_the_running_pod_without_a_restart() -> None:
    async with pod_world() as world:
        say(world, "blue")
        await world.create(pod("web", MOUNTED, volumes=VOLUMES))
        assert content(world, "settings") == b"blue"
        say(world, "red")
        world.manager.object_changed("ConfigMap", "default", "settings")
        await world.settle()
        assert content(world, "settings") == b"red"
        assert world.container_status()["restartCount"] == 0


async def test_a_deleted_config_map_leaves_what_was_there_and_is_told() -> None:
    async with pod_world() as world:
        say(world, "blue")
        await world.create(pod("web", MOUNTED, volumes=VOLUMES))
        del world.api.config_maps["default", "settings"]
        world.manager.object_changed("ConfigMap", "default", "settings")
        await world.settle()
        assert content(world, "settings") == b"blue"
        assert world.status()["phase"] == "Running"
        assert "FailedMount" in world.api.reasons()


async def test_what_changed_while_the_node_was_away_is_sent_afterwards() -> None:
    async with pod_world() as world:
        say(world, "blue")
        await world.create(pod("web", MOUNTED, volumes=VOLUMES))
        await world.kill_node()
        say(world, "green")
        await world.start_node()
        assert content(world, "settings") == b"green"
        say(world, "red")
        world.manager.object_changed("ConfigMap", "default", "settings")
        await world.settle()
        assert content(world, "settings") == b"red"


async def test_an_ended_pod_is_sent_nothing_more() -> None:
    async with pod_world() as world:
        say(world, "blue")
        await world.create(pod("web", MOUNTED, volumes=VOLUMES, restartPolicy="Never"))
        world.runtime.exit(world.running(), 0)
        await world.settle()
        assert world.status()["phase"] == "Succeeded"
        sent = [call for call in world.runtime.calls if call[0] == "update_volume"]
        say(world, "red")
        world.manager.object_changed("ConfigMap", "default", "settings")
        await world.settle()
        assert [call for call in world.runtime.calls if call[0] == "update_volume"] == sent
