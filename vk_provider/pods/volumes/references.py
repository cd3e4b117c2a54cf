"""Which ConfigMaps and Secrets a pod's volumes show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from vk_provider.pods.podspec import Pod, volumes_of

Kind = Literal["ConfigMap", "Secret"]
Reference = tuple[str, str]  # kind, name; the namespace is the pod's


def volume_references(pod: Pod) -> set[Reference]:
    """Return (kind, name) of every object in the pod's volumes, optional ones too."""
    found: set[Reference] = set()
    for volume in volumes_of(pod):
        found.update(_in_source(volume))
        for source in (volume.get("projected") or {}).get("sources") or ():
            found.update(_in_source(source))
    return found


def _in_source(source: Mapping[str, Any]) -> Iterator[Reference]:
    if (config_map := source.get("configMap")) is not None:
        yield "ConfigMap", config_map.get("name", "")
    if (secret := source.get("secret")) is not None:
        yield "Secret", secret.get("secretName") or secret.get("name", "")
