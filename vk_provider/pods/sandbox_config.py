"""A pod's sandbox as the agent is to run it (kuberuntime generatePodSandboxConfig)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from fractions import Fraction

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Invalid
from vk_provider.pods.amounts import bounded
from vk_provider.pods.demand import container_demand
from vk_provider.pods.dns import pod_dns
from vk_provider.pods.hostname import pod_hostname
from vk_provider.pods.image_names import parse_image_name
from vk_provider.pods.podspec import (
    Container,
    Pod,
    all_containers,
    app_containers,
    init_containers,
    is_sidecar,
    name_of,
    namespace_of,
    pod_security,
    uid_of,
)
from vk_provider.pods.resources import pod_limits
from vk_provider.pods.settings import PodSettings
from vk_provider.pods.sysctls import sysctl_settings

SIZE_ANNOTATION = "vk-provider.dev/size"


def make_run_sandbox_request(
    pod: Pod,
    sandbox_id: str,
    attempt: int,
    volumes: Sequence[pb.Volume],
    *,
    host: pb.HostInfo,
    settings: PodSettings,
    annotations: Mapping[str, str],
) -> pb.RunSandboxRequest:
    """Return the request for a pod's sandbox; `volumes` are those of `build_volumes`.

    What the pod's owner should know of its DNS is in `pod_dns(…).warnings`. Raises
    SandboxConfigError for host names that can't be.
    """
    hostname = pod_hostname(pod, settings)
    dns = pod_dns(pod, host_resolv_conf=host.resolv_conf, settings=settings)
    return pb.RunSandboxRequest(
        sandbox_id=sandbox_id,
        pod=pb.PodMetadata(namespace=namespace_of(pod), name=name_of(pod), uid=uid_of(pod)),
        attempt=attempt,
        hostname=hostname.for_kernel(pod),
        domainname=hostname.domain,
        resolv_conf=dns.render(),
        demand=container_demand(pod),
        size_override=(pod["metadata"].get("annotations") or {}).get(SIZE_ANNOTATION, ""),
        port_mappings=port_mappings(pod),
        volumes=volumes,
        sysctls=sysctl_settings(pod_security(pod).get("sysctls") or ()),
        annotations=annotations,
        ephemeral_storage_limit_bytes=bounded(
            pod_limits(pod).get("ephemeral-storage", Fraction(0))
        ),
        share_process_namespace=bool(pod["spec"].get("shareProcessNamespace")),
        images=_images_to_expect(pod),
    )


def _images_to_expect(pod: Pod) -> list[str]:
    """Return the images that containers may be made from without a pull, each once."""
    found: dict[str, None] = {}
    for container in all_containers(pod):
        if container.get("imagePullPolicy") == "Always":
            continue
        with suppress(Invalid):  # told where the container is started
            found[parse_image_name(str(container.get("image") or "")).full] = None
    return list(found)


def port_mappings(pod: Pod) -> list[pb.PortMapping]:
    """Return the ports of the host that lead to the pod, those of sidecars among them."""
    sidecars = [container for container in init_containers(pod) if is_sidecar(container)]
    return [
        mapping
        for container in [*sidecars, *app_containers(pod)]
        for mapping in _of_container(container)
    ]


def _of_container(container: Container) -> list[pb.PortMapping]:
    return [
        pb.PortMapping(
            host_port=port["hostPort"],
            container_port=port["containerPort"],
            protocol=port.get("protocol") or "TCP",
            host_ip=port.get("hostIP") or "",
        )
        for port in container.get("ports") or ()
        if port.get("hostPort")
    ]
