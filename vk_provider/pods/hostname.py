"""A pod's host name and domain (kubelet GeneratePodHostNameAndDomain, GetNodenameForKernel)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vk_provider.pods.errors import SandboxConfigError
from vk_provider.pods.podspec import Pod, name_of, namespace_of
from vk_provider.pods.settings import PodSettings

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_LENGTH = 63
_SUBDOMAIN_LENGTH = 253
_KERNEL_LENGTH = 64  # of the nodename that uname(2) holds, without its NUL


@dataclass(frozen=True, slots=True)
class PodHostname:
    """The short name and the domain ("" for none) that go into /etc/hosts."""

    name: str
    domain: str

    def for_kernel(self, pod: Pod) -> str:
        """Return what uname shows: the FQDN where the pod asks for it and has a domain."""
        if not self.domain or not pod["spec"].get("setHostnameAsFQDN"):
            return self.name
        fqdn = f"{self.name}.{self.domain}"
        if len(fqdn) > _KERNEL_LENGTH:
            raise SandboxConfigError(
                "failed to construct FQDN from pod hostname and cluster domain, FQDN "
                f"{fqdn} is too long ({_KERNEL_LENGTH} characters is the max, "
                f"{len(fqdn)} characters requested)"
            )
        return fqdn


def pod_hostname(pod: Pod, settings: PodSettings) -> PodHostname:
    """Return the pod's name and domain; raises SandboxConfigError for names that are none."""
    spec = pod["spec"]
    override = spec.get("hostnameOverride")
    if override is not None:
        if len(override) > _SUBDOMAIN_LENGTH or not all(map(_LABEL.fullmatch, override.split("."))):
            raise SandboxConfigError(
                f'pod HostnameOverride "{override}" is not a valid DNS subdomain: '
                "use lower-case letters, digits, '-' and '.'"
            )
        return PodHostname(_cut(override, name_of(pod)), "")
    name = spec.get("hostname") or ""
    if name and not _is_label(name):
        raise SandboxConfigError(_not_a_label("Hostname", name))
    subdomain = spec.get("subdomain") or ""
    if subdomain and not _is_label(subdomain):
        raise SandboxConfigError(_not_a_label("Subdomain", subdomain))
    domain = f"{subdomain}.{namespace_of(pod)}.svc.{settings.cluster_domain}" if subdomain else ""
    return PodHostname(_cut(name or name_of(pod), name_of(pod)), domain)


def _is_label(text: str) -> bool:
    return len(text) <= _LABEL_LENGTH and _LABEL.fullmatch(text) is not None


def _not_a_label(field: str, value: str) -> str:
    return (
        f'pod {field} "{value}" is not a valid DNS label: use at most {_LABEL_LENGTH} lower-case '
        "letters, digits and '-', with a letter or digit at both ends"
    )


def _cut(name: str, pod_name: str) -> str:
    cut = name if len(name) <= _LABEL_LENGTH else name[:_LABEL_LENGTH].rstrip("-.")
    if not cut:
        raise SandboxConfigError(f'hostname for pod "{pod_name}" was invalid: "{name}"')
    return cut
