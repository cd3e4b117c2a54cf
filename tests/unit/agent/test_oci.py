"""OCI specs: what a container runs as, sees and may do."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.images import ImageConfig
from vk_provider.agent.oci import (
    Sources,
    User,
    linux_resources,
    make_container_spec,
    resolve_user,
)
from vk_provider.agent.oci.capabilities import ALL, DEFAULT, capabilities
from vk_provider.agent.oci.resources import cpu_weight
from vk_provider.common.errors import Invalid

PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\n# a comment\napp:x:1000:1001::/home/app:/bin/sh\nshort:x:7:8\n"
)
GROUP = "root:x:0:\nwheel:x:10:root,app\nstaff:x:50:app\n"
ROOT = User(0, 0, (0,), "/root")
CONTAINER = "c" * 64


def spec_of(config: pb.ContainerConfig, image: ImageConfig | None = None, **more: Any) -> Any:
    config.container_id, config.name = CONTAINER, "main"
    sources = Sources(image or ImageConfig(cmd=["sh"]), "key", ROOT, "web", **more)
    return make_container_spec(config, sources)


def spec(config: pb.ContainerConfig, image: ImageConfig | None = None, **more: Any) -> Any:
    return orjson.loads(spec_of(config, image, **more).oci_spec_json)


def mounts(config: pb.ContainerConfig) -> dict[str, dict[str, Any]]:
    return {m["destination"]: m for m in spec(config)["mounts"]}


@pytest.mark.parametrize(
    ("image_user", "expected"),
    [
        ("", (0, 0, (0, 10), "/root")),
        ("app", (1000, 1001, (1001, 10, 50), "/home/app")),
        ("1000", (1000, 1001, (1001, 10, 50), "/home/app")),
        ("app:staff", (1000, 50, (50, 10), "/home/app")),
        ("1234:5678", (1234, 5678, (5678,), "/")),
        ("short", (7, 8, (8,), "/")),
    ],
)
def test_the_images_user_is_looked_up(image_user: str, expected: tuple[Any, ...]) -> None:
    assert resolve_user(image_user, PASSWD, GROUP) == User(*expected)


def test_the_pods_ids_win() -> None:
    user = resolve_user(
        "app:staff", PASSWD, GROUP, run_as_user=0, run_as_group=9, supplemental_groups=[5, 10]
    )
    assert user == User(0, 9, (9, 10, 5), "/root")
    strict = resolve_user("app", PASSWD, GROUP, supplemental_groups=[5], strict_groups=True)
    assert strict.groups == (1001, 5)


@pytest.mark.parametrize("name", ["nobody", "app:nogroup", str(2**31)])
def test_unknown_names_and_wild_ids_are_refused(name: str) -> None:
    with pytest.raises(Invalid):
        resolve_user(name, PASSWD, GROUP)


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        ([], [], ["entry", "cmd"]),
        (["own"], [], ["own"]),
        ([], ["a"], ["entry", "a"]),
        (["own"], ["a"], ["own", "a"]),
    ],
)
def test_command_and_args_replace_the_images(
    command: list[str], args: list[str], expected: list[str]
) -> None:
    image = ImageConfig(entrypoint=["entry"], cmd=["cmd"])
    made = spec(pb.ContainerConfig(command=command, args=args), image)
    assert made["process"]["args"] == expected


def test_nothing_to_run_is_refused() -> None:
    with pytest.raises(Invalid, match="no command specified"):
        spec(pb.ContainerConfig(), ImageConfig())


def test_the_environment_is_the_images_then_the_pods() -> None:
    image = ImageConfig(cmd=["sh"], env=["A=image", "B=image"])
    env = [pb.EnvVar(name="B", value="pod"), pb.EnvVar(name="C", value="x=y")]
    made = spec(pb.ContainerConfig(env=env, tty=True), image)["process"]
    assert made["env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=web",
        "TERM=xterm",
        "A=image",
        "B=pod",
        "C=x=y",
        "HOME=/root",
    ]


def test_capabilities_are_the_default_with_the_pods_changes() -> None:
    assert set(capabilities([], [], privileged=False)) == {f"CAP_{name}" for name in DEFAULT}
    assert capabilities(["NET_ADMIN"], ["ALL"], privileged=False) == ["CAP_NET_ADMIN"]
    assert len(capabilities(["ALL"], ["CAP_SYS_ADMIN"], privileged=False)) == len(ALL) - 1
    assert len(capabilities([], [], privileged=True)) == len(ALL)
    with pytest.raises(Invalid, match="FLY"):
        capabilities(["FLY"], [], privileged=False)


@pytest.mark.parametrize(
    ("shares", "weight"), [(0, 1), (2, 1), (1024, 100), (262_144, 10_000), (2**40, 10_000)]
)
def test_shares_become_weights_through_both_defaults(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight


def test_limits_that_are_unset_are_lifted() -> None:
    assert linux_resources(pb.LinuxResources()) == {
        "cpu": {"period": 100_000, "quota": -1},
        "memory": {"limit": -1, "swap": -1},
        "unified": {"memory.oom.group": "1"},
    }


def test_volumes_files_and_sub_paths_are_mounted_parents_first() -> None:
    config = pb.ContainerConfig(
        mounts=[
            pb.Mount(volume="inner", container_path="/data/inner/", read_only=True),
            pb.Mount(volume="outer", container_path="/data", sub_path="a/b"),
        ],
        files=[pb.ContainerFile(container_path="/etc/hosts", data=b"x", mode=0o644)],
        termination_message_path="/dev/termination-log",
    )
    made = spec_of(config)
    found = orjson.loads(made.oci_spec_json)["mounts"]
    order = [m["destination"] for m in found]
    assert order.index("/data") < order.index("/data/inner")
    by_path = {m["destination"]: m for m in found}
    assert by_path["/data"]["source"] == f"/run/vk/containers/{CONTAINER}/subpaths/0"
    assert by_path["/data/inner"]["options"] == ["rbind", "rprivate", "ro"]
    assert by_path["/etc/hosts"]["source"].endswith("/files/0")
    assert by_path["/dev/termination-log"]["source"].endswith("/termination-log")
    assert (made.sub_paths[0].volume, made.sub_paths[0].path) == ("outer", "a/b")


def test_a_volume_may_take_the_place_of_a_kernel_file_system() -> None:
    config = pb.ContainerConfig(mounts=[pb.Mount(volume="shm", container_path="/dev/shm")])
    assert mounts(config)["/dev/shm"]["type"] == "bind"


@pytest.mark.parametrize("path", ["relative", "/", "/a/../b", ""])
def test_paths_that_climb_are_refused(path: str) -> None:
    with pytest.raises(Invalid):
        spec(pb.ContainerConfig(mounts=[pb.Mount(volume="v", container_path=path)]))


def test_privilege_lifts_masks_and_devices() -> None:
    plain = spec(pb.ContainerConfig())
    assert "/proc/kcore" in plain["linux"]["maskedPaths"]
    assert plain["linux"]["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    security = pb.SecurityContext(privileged=True)
    privileged = spec(pb.ContainerConfig(security=security))
    assert "maskedPaths" not in privileged["linux"]
    assert privileged["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert "rw" in mounts(pb.ContainerConfig(security=security))["/sys"]["options"]


def test_process_namespaces_are_own_shared_or_the_targets() -> None:
    def pid(**more: Any) -> dict[str, str]:
        found: dict[str, str] = spec(pb.ContainerConfig(), **more)["linux"]["namespaces"][0]
        return found

    assert pid() == {"type": "pid"}
    assert pid(share_process_namespace=True)["path"] == "/run/vk/sandbox/ns/pid"
    assert pid(target_pid=42)["path"] == "/proc/42/ns/pid"


def test_a_seccomp_profile_of_the_host_is_refused() -> None:
    profile = pb.SeccompProfile(type=pb.SeccompProfile.LOCALHOST, localhost_ref="x.json")
    with pytest.raises(Invalid, match=r"x\.json"):
        spec(pb.ContainerConfig(security=pb.SecurityContext(seccomp=profile)))
