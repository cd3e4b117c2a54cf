"""Which ConfigMaps and Secrets a pod names (kubelet pkg/api/pod VisitPodSecretNames and kin)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

Kind = Literal["ConfigMap", "Secret"]
Reference = tuple[Kind, str]


def references(pod: Mapping[str, Any]) -> frozenset[Reference]:
    """Return (kind, name) of everything in the pod's namespace that its content depends on."""
    spec = pod.get("spec") or {}
    found = {*_of_volumes(spec), *_of_containers(spec)}
    found |= {("Secret", s.get("name")) for s in spec.get("imagePullSecrets") or ()}
    return frozenset((kind, name) for kind, name in found if name)


def _of_volumes(spec: Mapping[str, Any]) -> Iterator[tuple[Kind, Any]]:
    for volume in spec.get("volumes") or ():
        if source := volume.get("configMap"):
            yield "ConfigMap", source.get("name")
        if source := volume.get("secret"):
            yield "Secret", source.get("secretName")
        for source in (volume.get("projected") or {}).get("sources") or ():
            if inner := source.get("configMap"):
                yield "ConfigMap", inner.get("name")
            if inner := source.get("secret"):
                yield "Secret", inner.get("name")


def _of_containers(spec: Mapping[str, Any]) -> Iterator[tuple[Kind, Any]]:
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(group) or ():
            for source in container.get("envFrom") or ():
                if inner := source.get("configMapRef"):
                    yield "ConfigMap", inner.get("name")
                if inner := source.get("secretRef"):
                    yield "Secret", inner.get("name")
            for variable in container.get("env") or ():
                value = variable.get("valueFrom") or {}
                if inner := value.get("configMapKeyRef"):
                    yield "ConfigMap", inner.get("name")
                if inner := value.get("secretKeyRef"):
                    yield "Secret", inner.get("name")
