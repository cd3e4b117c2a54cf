"""A container as the agent is to create it (kuberuntime generateContainerConfig)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.errors import ConfigError
from vk_provider.pods.expansion import expand_all
from vk_provider.pods.features import unsupported_in_container
from vk_provider.pods.mounts import HOSTS_PATH, container_mounts
from vk_provider.pods.podspec import Container, Pod
from vk_provider.pods.resources import linux_resources
from vk_provider.pods.security import security_context
from vk_provider.pods.settings import PodSettings


def make_container_config(
    pod: Pod,
    container: Container,
    *,
    container_id: str,
    attempt: int,
    image_ref: str,
    image: pb.Image,
    env: Sequence[pb.EnvVar],
    hosts_file: bytes,
    annotations: Mapping[str, str],
    settings: PodSettings,
    target_container_id: str = "",
) -> pb.ContainerConfig:
    """Return the container's configuration.

    `image` is what the pull found (whose user decides on runAsNonRoot), `env` the final
    environment, `target_container_id` whose processes an ephemeral container sees. Raises
    ConfigError: waiting reason CreateContainerConfigError.
    """
    for found in unsupported_in_container(container):
        raise ConfigError(str(found))
    variables = {variable.name: variable.value for variable in env}
    mounts = container_mounts(pod, container, env)
    files = []
    if all(mount.container_path != HOSTS_PATH for mount in mounts):
        files.append(pb.ContainerFile(container_path=HOSTS_PATH, data=hosts_file, mode=0o644))
    return pb.ContainerConfig(
        container_id=container_id,
        name=container["name"],
        attempt=attempt,
        image=container["image"],
        image_ref=image_ref,
        command=expand_all(container.get("command") or (), variables),
        args=expand_all(container.get("args") or (), variables),
        env=env,
        working_dir=container.get("workingDir") or "",
        mounts=mounts,
        files=files,
        resources=linux_resources(pod, container, settings=settings),
        security=security_context(pod, container, image),
        stdin=bool(container.get("stdin")),
        stdin_once=bool(container.get("stdinOnce")),
        tty=bool(container.get("tty")),
        termination_message_path=container.get("terminationMessagePath") or "",
        stop_signal=(container.get("lifecycle") or {}).get("stopSignal") or "",
        annotations=annotations,
        target_container_id=target_container_id,
    )
