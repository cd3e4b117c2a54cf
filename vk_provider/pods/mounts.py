"""Mounts of a container (kubelet makeMounts)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.errors import ConfigError
from vk_provider.pods.expansion import expand
from vk_provider.pods.podspec import Container, Pod, volumes_of

HOSTS_PATH = "/etc/hosts"
_READ_ONLY_SOURCES = ("configMap", "secret", "downwardAPI", "projected", "image")


def container_mounts(pod: Pod, container: Container, env: Sequence[pb.EnvVar]) -> list[pb.Mount]:
    """Return the container's mounts in the order of the spec; `env` is its final environment.

    Raises ConfigError for a volume, a sub-path or a variable that is not there.
    """
    volumes = {volume["name"]: volume for volume in volumes_of(pod)}
    variables = {variable.name: variable.value for variable in env}
    return [
        _mount(mount, container, volumes, variables)
        for mount in container.get("volumeMounts") or ()
    ]


def _mount(
    mount: Mapping[str, Any],
    container: Container,
    volumes: Mapping[str, Mapping[str, Any]],
    variables: Mapping[str, str],
) -> pb.Mount:
    name = mount["name"]
    if name not in volumes:
        raise ConfigError(
            f'cannot find volume "{name}" to mount into container "{container["name"]}"'
        )
    always_read_only = any(source in volumes[name] for source in _READ_ONLY_SOURCES)
    path = mount["mountPath"]
    return pb.Mount(
        volume=name,
        container_path=path if path.startswith("/") else f"/{path}",
        read_only=bool(mount.get("readOnly")) or always_read_only,
        sub_path=_sub_path(mount, variables),
        propagation=mount.get("mountPropagation") or "None",
        recursive_read_only=_recursive_read_only(mount),
    )


def _sub_path(mount: Mapping[str, Any], variables: Mapping[str, str]) -> str:
    sub_path = mount.get("subPath") or ""
    if expression := mount.get("subPathExpr"):
        missing: set[str] = set()

        def lookup(name: str) -> str:
            value = variables.get(name, "")
            if not value:
                missing.add(name)
            return value

        sub_path = expand(expression, lookup)
        if missing:
            raise ConfigError(f"missing value for {', '.join(sorted(missing))}")
    if sub_path.startswith("/"):
        raise ConfigError(f"error SubPath `{sub_path}` must not be an absolute path")
    if ".." in PurePosixPath(sub_path).parts:
        raise ConfigError(f"unable to provision SubPath `{sub_path}`: must not contain '..'")
    return "/".join(PurePosixPath(sub_path).parts)  # without empty and `.` parts


def _recursive_read_only(mount: Mapping[str, Any]) -> bool:
    mode = mount.get("recursiveReadOnly") or "Disabled"
    if mode == "Disabled":
        return False
    if not mount.get("readOnly"):
        raise ConfigError(
            f'failed to resolve recursive read-only mode: volume "{mount["name"]}" requested '
            "recursive read-only mode, but it is not read-only"
        )
    return True
