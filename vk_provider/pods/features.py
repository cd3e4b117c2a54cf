"""Every field of a pod's spec, and what becomes of it here: honoured, another's, or refused.

The tables are the promise that nothing is ignored: a field that is set and stands in none of them
is refused too, and a test compares them with the API's own types.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vk_provider.pods.podspec import Container, Pod, short_json


@dataclass(frozen=True, slots=True)
class Honoured:
    """Acted on by the node; `of` names the table of what is inside."""

    of: str = ""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Not a node's business: acted on by `by`, or without effect on any such node."""

    by: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Can't be honoured. `unless`: values that are taken, `asks`: the only ones that are not;
    `reason`: of the rejection; `note`: what holds for a value that is taken.
    """

    hint: str
    unless: tuple[Any, ...] = ()
    asks: tuple[Any, ...] = ()
    reason: str = "PodFeatureUnsupported"
    note: str = ""


Rule = Honoured | Elsewhere | Refused
Table = Mapping[str, Rule]

_YES = Honoured()
_SCHEDULER = Elsewhere("the scheduler")
_API_SERVER = Elsewhere("the API server")

_OWN_NETWORK = "each pod here has a network of its own; remove it, and use hostPort for a port"
_OWN_KERNEL = "each pod here has a kernel of its own, and shares none with the host"
_VOLUME = "use configMap, secret, downwardAPI, projected, emptyDir or image volumes"
_NO_WINDOWS = "pods here run Linux"
_NO_DEVICES = "no device of the host is passed on to a pod's VM"


def _refuse(hint: str, *names: str) -> dict[str, Rule]:
    return {name: Refused(hint) for name in names}


def _honour(*names: str) -> dict[str, Rule]:
    return dict.fromkeys(names, _YES)


_SECURITY: dict[str, Rule] = {
    "seLinuxOptions": Elsewhere("SELinux, which is off in the guest, as on most nodes"),
    "windowsOptions": Refused(_NO_WINDOWS),
    "runAsUser": _YES,
    "runAsGroup": _YES,
    "runAsNonRoot": _YES,
    "seccompProfile": Honoured("SeccompProfile"),
    "appArmorProfile": Honoured("AppArmorProfile"),
}

_CONTAINER: dict[str, Rule] = {
    **_honour("name", "image", "command", "args", "workingDir", "ports", "restartPolicy"),
    **_honour("terminationMessagePath", "terminationMessagePolicy", "imagePullPolicy"),
    **_honour("stdin", "stdinOnce", "tty", "restartPolicyRules", "resizePolicy"),
    "envFrom": Honoured("EnvFromSource"),
    "env": Honoured("EnvVar"),
    "resources": Honoured("ResourceRequirements"),
    "volumeMounts": Honoured("VolumeMount"),
    "volumeDevices": Refused("raw block volumes are not supported"),
    "livenessProbe": Honoured("Probe"),
    "readinessProbe": Honoured("Probe"),
    "startupProbe": Honoured("Probe"),
    "lifecycle": Honoured("Lifecycle"),
    "securityContext": Honoured("SecurityContext"),
}

TABLES: Mapping[str, Table] = {
    "PodSpec": {
        **_honour("restartPolicy", "terminationGracePeriodSeconds", "activeDeadlineSeconds"),
        **_honour("dnsPolicy", "dnsConfig", "nodeSelector", "serviceAccountName", "nodeName"),
        **_honour("shareProcessNamespace", "imagePullSecrets", "hostname", "subdomain"),
        **_honour("tolerations", "hostAliases", "priorityClassName", "priority", "affinity"),
        **_honour("readinessGates", "enableServiceLinks", "overhead", "setHostnameAsFQDN"),
        **_honour("os", "hostnameOverride", "runtimeClassName"),
        "volumes": Honoured("Volume"),
        "initContainers": Honoured("Container"),
        "containers": Honoured("Container"),
        "ephemeralContainers": Honoured("EphemeralContainer"),
        "securityContext": Honoured("PodSecurityContext"),
        "resources": Honoured("ResourceRequirements"),
        "hostNetwork": Refused(_OWN_NETWORK),
        "hostPID": Refused(_OWN_KERNEL),
        "hostIPC": Refused(_OWN_KERNEL),
        "hostUsers": Refused(f"{_OWN_KERNEL}; leave hostUsers out", asks=(False,)),
        "resourceClaims": Refused(_NO_DEVICES),
        "serviceAccount": Elsewhere("serviceAccountName, of which it is the old name"),
        "automountServiceAccountToken": _API_SERVER,
        "schedulerName": _SCHEDULER,
        "preemptionPolicy": _SCHEDULER,
        "topologySpreadConstraints": _SCHEDULER,
        "schedulingGates": _SCHEDULER,
        "schedulingGroup": _SCHEDULER,
        "evictionResponders": Elsewhere("whoever evicts through the API"),
    },
    "Volume": {
        "name": _YES,
        "emptyDir": Honoured("EmptyDirVolumeSource"),
        "secret": _YES,
        "configMap": _YES,
        "downwardAPI": _YES,
        "image": _YES,
        "projected": Honoured("ProjectedVolumeSource"),
        "hostPath": Refused(f"a pod's VM sees no directory of the host; {_VOLUME}"),
        **_refuse(_VOLUME, "gcePersistentDisk", "awsElasticBlockStore", "gitRepo", "nfs", "iscsi"),
        **_refuse(_VOLUME, "glusterfs", "persistentVolumeClaim", "rbd", "flexVolume", "cinder"),
        **_refuse(_VOLUME, "cephfs", "flocker", "fc", "azureFile", "vsphereVolume", "quobyte"),
        **_refuse(_VOLUME, "azureDisk", "photonPersistentDisk", "portworxVolume", "scaleIO"),
        **_refuse(_VOLUME, "storageos", "csi", "ephemeral"),
    },
    "EmptyDirVolumeSource": {
        "medium": Refused("use medium Memory, or none for disk", unless=("Memory",)),
        "sizeLimit": _YES,
        "mode": Refused("an emptyDir here has mode 0777"),
    },
    "ProjectedVolumeSource": {
        "sources": Honoured("VolumeProjection"),
        "defaultMode": _YES,
        "defaultUser": _YES,
    },
    "VolumeProjection": {
        **_honour("secret", "downwardAPI", "configMap", "serviceAccountToken"),
        "clusterTrustBundle": Refused("put the certificates into a ConfigMap instead"),
        "podCertificate": Refused("put the certificate into a Secret instead"),
    },
    "Container": _CONTAINER,
    "EphemeralContainer": {**_CONTAINER, "targetContainerName": _YES},
    "EnvFromSource": _honour("prefix", "configMapRef", "secretRef"),
    "EnvVar": {"name": _YES, "value": _YES, "valueFrom": Honoured("EnvVarSource")},
    "EnvVarSource": {
        **_honour("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef"),
        "fileKeyRef": Refused("the node can't read files in the guest; use a ConfigMap or Secret"),
    },
    "ResourceRequirements": {"limits": _YES, "requests": _YES, "claims": Refused(_NO_DEVICES)},
    "VolumeMount": {
        **_honour("name", "readOnly", "recursiveReadOnly", "mountPath", "subPath"),
        **_honour("mountPropagation", "subPathExpr"),
        "bindMountOptions": Refused("only readOnly can be chosen for a mount"),
    },
    "Probe": {
        "exec": _YES,
        "httpGet": Honoured("HTTPGetAction"),
        "tcpSocket": _YES,
        "grpc": Honoured("GRPCAction"),
        **_honour("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold"),
        **_honour("failureThreshold", "terminationGracePeriodSeconds"),
    },
    "HTTPGetAction": {
        **_honour("path", "port", "host", "scheme", "httpHeaders"),
        "protocol": Refused("HTTP probes here speak HTTP/1.1", unless=("HTTP1",)),
    },
    "GRPCAction": {
        **_honour("port", "service"),
        "mode": Refused("gRPC probes here are in plain text", unless=("Plaintext",)),
    },
    "Lifecycle": {
        "postStart": Honoured("LifecycleHandler"),
        "preStop": Honoured("LifecycleHandler"),
        "stopSignal": _YES,
    },
    "LifecycleHandler": {
        "exec": _YES,
        "httpGet": Honoured("HTTPGetAction"),
        "tcpSocket": Refused("no kubelet can run a tcpSocket hook; use exec or httpGet"),
        "sleep": _YES,
    },
    "SecurityContext": {
        **_SECURITY,
        **_honour("capabilities", "privileged", "readOnlyRootFilesystem"),
        **_honour("allowPrivilegeEscalation", "procMount"),
    },
    "PodSecurityContext": {
        **_SECURITY,
        **_honour("supplementalGroups", "supplementalGroupsPolicy", "fsGroup", "sysctls"),
        **_honour("fsGroupChangePolicy"),
        "seLinuxChangePolicy": Elsewhere("SELinux, which is off in the guest"),
    },
    "SeccompProfile": {
        "type": Refused(
            "profiles of the host's can't be read here; use RuntimeDefault",
            unless=("RuntimeDefault", "Unconfined"),
            note="RuntimeDefault is the border of the VM: no filter is applied in the guest yet",
        ),
        "localhostProfile": Elsewhere("type Localhost, which is refused"),
    },
    "AppArmorProfile": {
        "type": Refused(
            "Cannot enforce AppArmor: AppArmor is not enabled on the host",
            unless=("Unconfined",),
            reason="AppArmor",
        ),
        "localhostProfile": Elsewhere("type Localhost, which is refused"),
    },
}


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A field that is set and can't be honoured."""

    path: str
    value: Any
    hint: str
    reason: str

    def __str__(self) -> str:
        shown = short_json(self.value)
        asked = f"{self.path}={shown}" if len(shown) <= 40 else self.path
        return f"{asked} is not supported on this virtual node: {self.hint}"


def unsupported_fields(pod: Pod) -> Iterator[Unsupported]:
    """Yield what the pod asks for and can't have, in the order of the tables."""
    yield from _walk("PodSpec", pod["spec"], "spec")


def unsupported_in_container(container: Container) -> Iterator[Unsupported]:
    """Yield the same for one container: an ephemeral one comes after the pod was admitted."""
    yield from _walk("EphemeralContainer", container, f"container {container['name']}")


def _walk(table: str, value: Mapping[str, Any], path: str) -> Iterator[Unsupported]:
    rules = TABLES[table]
    for name, inner in value.items():
        rule = rules.get(name)
        asks = isinstance(rule, Refused) and inner in rule.asks
        if not asks and _is_unset(inner, in_volume=table == "Volume"):
            continue
        where = f"{path}.{name}"
        match rule:
            case Honoured(of) if of:
                yield from _walk_each(of, inner, where)
            case Honoured() | Elsewhere():
                pass
            case Refused():
                if asks or (not rule.asks and inner not in rule.unless):
                    yield Unsupported(where, inner, rule.hint, rule.reason)
            case None:
                hint = "it is newer than this node; remove it or upgrade vk-provider"
                yield Unsupported(where, inner, hint, "PodFeatureUnsupported")


def _is_unset(value: Any, *, in_volume: bool) -> bool:
    if value == {}:
        return not in_volume  # there an empty object is a source with defaults
    return value is None or value is False or value in ("", [])


def _walk_each(table: str, value: Any, path: str) -> Iterator[Unsupported]:
    if isinstance(value, Mapping):
        yield from _walk(table, value, path)
        return
    for index, item in enumerate(value):
        yield from _walk(table, item, f"{path}[{index}]")
