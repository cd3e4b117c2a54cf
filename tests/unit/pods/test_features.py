"""No field of a pod's spec is ignored."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.support.podspecs import container, make_pod
from vk_provider.pods.features import TABLES, Honoured, unsupported_fields

FIELDS: dict[str, dict[str, str]] = defaultdict(dict)
for line in (Path(__file__).parent / "podspec_fields.txt").read_text().splitlines():
    place, go_type = line.split()
    FIELDS[place.partition(".")[0]][place.partition(".")[2]] = go_type


@pytest.mark.parametrize("table", TABLES)
def test_each_table_has_all_fields_of_its_type_and_no_other(table: str) -> None:
    assert set(TABLES[table]) == set(FIELDS[table])


@pytest.mark.parametrize("table", TABLES)
def test_tables_lead_to_the_types_of_their_fields(table: str) -> None:
    for field, rule in TABLES[table].items():
        if isinstance(rule, Honoured) and rule.of:
            assert rule.of == FIELDS[table][field]


def test_the_page_says_what_the_table_says() -> None:
    root = Path(__file__).parents[3]
    made = subprocess.run(
        [sys.executable, root / "hack/pod-fields-page"], capture_output=True, text=True, check=True
    )
    assert made.stdout == (root / "docs/pod-fields.md").read_text(), "run hack/pod-fields-page"


def refusals(pod: Any) -> list[str]:
    return [str(found) for found in unsupported_fields(pod)]


def test_an_ordinary_pod_as_the_api_server_completes_it_is_fine() -> None:
    app = container(
        imagePullPolicy="IfNotPresent",
        resources={"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
        resizePolicy=[{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
        terminationMessagePolicy="File",
        volumeMounts=[
            {"name": "token", "readOnly": True, "mountPath": "/var/run/secrets/x"},
        ],
        livenessProbe={
            "httpGet": {"path": "/", "port": 80, "scheme": "HTTP", "protocol": "HTTP1"},
            "failureThreshold": 3,
            "periodSeconds": 10,
            "successThreshold": 1,
            "timeoutSeconds": 1,
        },
        securityContext={"privileged": True, "seLinuxOptions": {"level": "s0"}},
    )
    pod = make_pod(
        app,
        dnsPolicy="ClusterFirst",
        enableServiceLinks=True,
        nodeName="vk-1",
        preemptionPolicy="PreemptLowerPriority",
        priority=0,
        restartPolicy="Always",
        schedulerName="default-scheduler",
        securityContext={"seccompProfile": {"type": "RuntimeDefault"}},
        serviceAccount="default",
        terminationGracePeriodSeconds=30,
        hostUsers=True,
        hostNetwork=False,
        tolerations=[{"operator": "Exists"}],
        volumes=[
            {
                "name": "token",
                "projected": {
                    "defaultMode": 420,
                    "sources": [{"serviceAccountToken": {"path": "token"}}],
                },
            },
            {"name": "tmp", "emptyDir": {"medium": "Memory"}},
            {"name": "plain", "emptyDir": {}},
        ],
    )
    assert refusals(pod) == []


@pytest.mark.parametrize(
    ("spec", "refusal"),
    [
        ({"hostNetwork": True}, "spec.hostNetwork=true is not supported on this virtual node: "),
        ({"hostPID": True}, "spec.hostPID=true "),
        ({"hostIPC": True}, "spec.hostIPC=true "),
        ({"hostUsers": False}, "spec.hostUsers=false "),
        ({"resourceClaims": [{"name": "gpu"}]}, "spec.resourceClaims"),
        (
            {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]},
            'spec.volumes[0].persistentVolumeClaim={"claimName":"c"} is not supported',
        ),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}, "spec.volumes[0].hostPath"),
        ({"volumes": [{"name": "v", "ephemeral": {}}]}, "spec.volumes[0].ephemeral={}"),
        (
            {"volumes": [{"name": "v", "emptyDir": {"medium": "HugePages"}}]},
            'spec.volumes[0].emptyDir.medium="HugePages"',
        ),
        (
            {
                "volumes": [
                    {"name": "v", "projected": {"sources": [{"podCertificate": {"keyType": "x"}}]}}
                ]
            },
            "spec.volumes[0].projected.sources[0].podCertificate",
        ),
        (
            {"securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}}},
            'spec.securityContext.appArmorProfile.type="RuntimeDefault"',
        ),
        (
            {"securityContext": {"seccompProfile": {"type": "Localhost"}}},
            'spec.securityContext.seccompProfile.type="Localhost"',
        ),
        ({"fieldOfTomorrow": 1}, "spec.fieldOfTomorrow=1 is not supported on this virtual node"),
    ],
)
def test_what_can_not_be_honoured_is_refused_by_name(spec: Any, refusal: str) -> None:
    found = refusals(make_pod(**spec))
    assert len(found) == 1
    assert found[0].startswith(refusal)


@pytest.mark.parametrize(
    "fields",
    [
        {"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]},
        {"resources": {"claims": [{"name": "gpu"}]}},
        {"livenessProbe": {"httpGet": {"port": 1, "protocol": "HTTP2"}}},
        {"readinessProbe": {"grpc": {"port": 1, "mode": "TLS"}}},
        {"lifecycle": {"preStop": {"tcpSocket": {"port": 1}}}},
        {"env": [{"name": "A", "valueFrom": {"fileKeyRef": {"key": "k"}}}]},
        {"volumeMounts": [{"name": "v", "mountPath": "/v", "bindMountOptions": ["noexec"]}]},
        {"securityContext": {"windowsOptions": {"hostProcess": True}}},
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
def test_the_same_holds_in_containers_of_every_kind(kind: str, fields: Any) -> None:
    pod = make_pod()
    pod["spec"][kind] = [container(**fields)]
    (found,) = refusals(pod)
    assert found.startswith(f"spec.{kind}[0].{next(iter(fields))}")


def test_false_must_be_told_from_unset_where_false_asks_for_something() -> None:
    assert refusals(make_pod(hostUsers=False))
    assert not refusals(make_pod(hostUsers=None))
    assert not refusals(make_pod(hostPID=False, automountServiceAccountToken=False))
