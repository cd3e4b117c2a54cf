"""A container's security context over its pod's (pkg/securitycontext, kuberuntime)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.errors import ConfigError
from vk_provider.pods.podspec import Container, Pod, describe, pod_security

_MAX_UID = 2**31 - 1
_SECCOMP = {
    "Unconfined": pb.SeccompProfile.UNCONFINED,
    "RuntimeDefault": pb.SeccompProfile.RUNTIME_DEFAULT,
    "Localhost": pb.SeccompProfile.LOCALHOST,
}


def security_context(pod: Pod, container: Container, image: pb.Image) -> pb.SecurityContext:
    """Return what the container may do and as whom it runs.

    Raises ConfigError where runAsNonRoot would be broken or can't be verified.
    """
    of_pod = pod_security(pod)
    of_container: Mapping[str, Any] = container.get("securityContext") or {}
    check_run_as_non_root(pod, container, image)

    def effective(field: str) -> Any:
        value = of_container.get(field)
        return of_pod.get(field) if value is None else value

    capabilities = of_container.get("capabilities") or {}
    groups = [] if of_pod.get("fsGroup") is None else [of_pod["fsGroup"]]
    context = pb.SecurityContext(
        supplemental_groups=[*groups, *(of_pod.get("supplementalGroups") or ())],
        supplemental_groups_strict=of_pod.get("supplementalGroupsPolicy") == "Strict",
        run_as_non_root=bool(effective("runAsNonRoot")),
        privileged=bool(of_container.get("privileged")),
        add_capabilities=[name.removeprefix("CAP_") for name in capabilities.get("add") or ()],
        drop_capabilities=[name.removeprefix("CAP_") for name in capabilities.get("drop") or ()],
        readonly_rootfs=bool(of_container.get("readOnlyRootFilesystem")),
        no_new_privileges=of_container.get("allowPrivilegeEscalation") is False,
        unmasked_proc=of_container.get("procMount") == "Unmasked",
        seccomp=_seccomp(of_container.get("seccompProfile") or of_pod.get("seccompProfile")),
    )
    if (user := effective("runAsUser")) is not None:
        context.run_as_user = user
    if (group := effective("runAsGroup")) is not None:
        context.run_as_group = group
    return context


def check_run_as_non_root(pod: Pod, container: Container, image: pb.Image) -> None:
    """Raise ConfigError unless runAsNonRoot is kept, or not asked for (verifyRunAsNonRoot)."""
    of_pod = pod_security(pod)
    of_container: Mapping[str, Any] = container.get("securityContext") or {}
    non_root = of_container.get("runAsNonRoot")
    if not (of_pod.get("runAsNonRoot") if non_root is None else non_root):
        return
    where = f'(pod: "{describe(pod)}", container: {container["name"]})'
    user = of_container.get("runAsUser")
    user = of_pod.get("runAsUser") if user is None else user
    if user is not None:
        if user == 0:
            raise ConfigError(f"container's runAsUser breaks non-root policy {where}")
        return
    name = image.user.partition(":")[0]
    if name and not name.isdecimal():
        raise ConfigError(
            f"container has runAsNonRoot and image has non-numeric user ({name}), "
            f"cannot verify user is non-root {where}"
        )
    uid = int(name or 0)
    if uid == 0:
        raise ConfigError(f"container has runAsNonRoot and image will run as root {where}")
    if uid > _MAX_UID:
        raise ConfigError(
            f"container has runAsNonRoot and image has an invalid user id ({uid}). "
            f"(Must be 1-({_MAX_UID})) {where}"
        )


def _seccomp(profile: Mapping[str, Any] | None) -> pb.SeccompProfile:
    if not profile:
        return pb.SeccompProfile(type=pb.SeccompProfile.UNCONFINED)
    return pb.SeccompProfile(
        type=_SECCOMP[profile["type"]], localhost_ref=profile.get("localhostProfile") or ""
    )
