"""The process of a container: arguments, environment, directory, user, rights."""

from __future__ import annotations

from typing import Any, Protocol

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.oci.capabilities import capabilities
from vk_provider.agent.oci.users import User
from vk_provider.common.errors import Invalid

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# systemd's default for services: many files for who asks, few for what loops over all of them.
_OPEN_FILES = {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 524_288}


class ImageConfig(Protocol):
    """What this room reads of an image's configuration (OCI image-spec `config`)."""

    @property
    def entrypoint(self) -> list[str]: ...
    @property
    def cmd(self) -> list[str]: ...
    @property
    def env(self) -> list[str]: ...
    @property
    def working_dir(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def stop_signal(self) -> str: ...


def make_process(
    config: pb.ContainerConfig, image: ImageConfig, user: User, hostname: str
) -> dict[str, Any]:
    """Return OCI's `process`. Raises Invalid where there is no command, or a capability unknown."""
    security = config.security
    held = capabilities(
        security.add_capabilities, security.drop_capabilities, privileged=security.privileged
    )
    # Like a login: only root keeps capabilities over the exec; no ambient, none inheritable.
    effective = held
    return {
        "terminal": config.tty,
        "args": arguments(config, image),
        "env": environment(config, image, user, hostname),
        "cwd": config.working_dir or image.working_dir or "/",
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": list(user.groups)},
        "capabilities": {"bounding": held, "permitted": effective, "effective": effective},
        "noNewPrivileges": security.no_new_privileges,
        "oomScoreAdj": config.resources.oom_score_adj,
        "rlimits": [_OPEN_FILES],
    }


def arguments(config: pb.ContainerConfig, image: ImageConfig) -> list[str]:
    """Return the command line: the pod's over the image's, as the CRI merges them.

    A command in the pod replaces the image's entrypoint and its cmd.
    """
    command, args = list(config.command), list(config.args)
    if not command:
        command = list(image.entrypoint)
        args = args or list(image.cmd)
    if not command and not args:
        raise Invalid(
            f"no command specified: neither container {config.name!r} nor its image "
            f"{config.image!r} names one"
        )
    return command + args


def environment(
    config: pb.ContainerConfig, image: ImageConfig, user: User, hostname: str
) -> list[str]:
    """Return NAME=VALUE entries: defaults, then the image's, then the pod's; the last wins."""
    values = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if config.tty:
        values["TERM"] = "xterm"
    for entry in image.env:
        name, _, value = entry.partition("=")
        if name:
            values[name] = value
    values |= {variable.name: variable.value for variable in config.env}
    values.setdefault("HOME", user.home)
    return [f"{name}={value}" for name, value in values.items()]
