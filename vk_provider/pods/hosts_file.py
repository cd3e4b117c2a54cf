"""The /etc/hosts of a pod's containers (kubelet managedHostsFileContent)."""

from __future__ import annotations

from collections.abc import Sequence

from vk_provider.pods.hostname import pod_hostname
from vk_provider.pods.podspec import Pod
from vk_provider.pods.settings import PodSettings

_HEAD = """\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""


def make_hosts_file(pod: Pod, pod_ips: Sequence[str], *, settings: PodSettings) -> bytes:
    """Return the file: loopback names, the pod's own name at each of its IPs, hostAliases.

    Raises SandboxConfigError where the pod's names are invalid.
    """
    host = pod_hostname(pod, settings)
    own = f"{host.name}.{host.domain}\t{host.name}" if host.domain else host.name
    text = _HEAD + "".join(f"{ip}\t{own}\n" for ip in pod_ips)
    aliases = pod["spec"].get("hostAliases") or ()
    if aliases:
        text += "\n# Entries added by HostAliases.\n"
        for alias in aliases:
            text += alias["ip"] + "\t" + "\t".join(alias.get("hostnames") or ()) + "\n"
    return text.encode()
