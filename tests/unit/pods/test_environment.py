"""Containers' environments."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.podspecs import FakeObjects, container, make_pod
from vk_provider.common.errors import Unavailable
from vk_provider.pods.environment import make_environment
from vk_provider.pods.errors import ConfigError
from vk_provider.pods.services_env import service_environment

SERVICES = [
    {
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]},
    },
    {
        "metadata": {"name": "my-db", "namespace": "shop"},
        "spec": {
            "clusterIP": "10.96.0.9",
            "ports": [{"port": 5432}, {"name": "u-dp", "port": 53, "protocol": "UDP"}],
        },
    },
    {
        "metadata": {"name": "headless", "namespace": "shop"},
        "spec": {"clusterIP": "None", "ports": [{"port": 1}]},
    },
    {
        "metadata": {"name": "other", "namespace": "elsewhere"},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 1}]},
    },
]


@pytest.fixture
def objects() -> Any:
    found = FakeObjects()
    found.put_config_map("settings", {"color": "blue", "size": "L"})
    found.put_secret("login", {"user": b"ann", "blob": b"\xff\xfe"})
    return found


async def env(objects: Any, services: Any = (), pod: Any = None, **fields: Any) -> Any:
    one = container(**fields)
    found = await make_environment(
        pod or make_pod(one, nodeName="vk-1"),
        one,
        objects,
        pod_ips=["10.0.0.5"],
        host_ips=["192.0.2.1"],
        node_name="vk-1",
        allocatable={"cpu": "4", "memory": "8Gi"},
        services=services,
    )
    return {variable.name: variable.value for variable in found}


async def test_values_are_expanded_from_what_stands_before_and_from_services(objects: Any) -> None:
    found = await env(
        objects,
        services=SERVICES[:1],
        env=[
            {"name": "A", "value": "1"},
            {"name": "B", "value": "$(A)-$(KUBERNETES_SERVICE_HOST)-$(LATER)"},
            {"name": "LATER", "value": "x"},
            {"name": "EMPTY"},
        ],
    )
    assert found["B"] == "1-10.96.0.1-$(LATER)"
    assert list(found)[:4] == ["A", "B", "LATER", "EMPTY"]
    assert found["EMPTY"] == ""


async def test_env_goes_over_env_from_which_is_prefixed(objects: Any) -> None:
    found = await env(
        objects,
        envFrom=[
            {"prefix": "C_", "configMapRef": {"name": "settings"}},
            {"configMapRef": {"name": "absent", "optional": True}},
            {"secretRef": {"name": "absent", "optional": True}},
        ],
        env=[{"name": "C_size", "value": "XL"}],
    )
    assert found == {"C_color": "blue", "C_size": "XL"}


async def test_sources(objects: Any) -> None:
    def source(name: Any, **value_from: Any) -> Any:
        return {"name": name, "valueFrom": value_from}

    found = await env(
        objects,
        env=[
            source("CM", configMapKeyRef={"name": "settings", "key": "color"}),
            source("SECRET", secretKeyRef={"name": "login", "key": "user"}),
            source("NODE", fieldRef={"apiVersion": "v1", "fieldPath": "spec.nodeName"}),
            source("IP", fieldRef={"fieldPath": "status.podIP"}),
            source("CPU", resourceFieldRef={"resource": "limits.cpu"}),
            source("OPT", configMapKeyRef={"name": "settings", "key": "no", "optional": True}),
            source("OPT2", secretKeyRef={"name": "no", "key": "no", "optional": True}),
        ],
    )
    assert found == {"CM": "blue", "SECRET": "ann", "NODE": "vk-1", "IP": "10.0.0.5", "CPU": "4"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"envFrom": [{"configMapRef": {"name": "no"}}]}, 'configmap "no" not found'),
        ({"envFrom": [{"secretRef": {"name": "no"}}]}, 'secret "no" not found'),
        (
            {
                "env": [
                    {
                        "name": "A",
                        "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "no"}},
                    }
                ]
            },
            "couldn't find key no in ConfigMap shop/settings",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "login", "key": "no"}}}]},
            "couldn't find key no in Secret shop/login",
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no", "key": "no"}}}]},
            'secret "no" not found',
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]},
            "unsupported fieldPath: spec.x",
        ),
    ],
)
async def test_what_is_missing_is_said_as_the_kubelet_says_it(
    objects: Any, fields: Any, message: Any
) -> None:
    with pytest.raises(ConfigError) as failure:
        await env(objects, **fields)
    assert str(failure.value) == message


@pytest.mark.parametrize(
    "variable",
    [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "login", "key": "blob"}}},
        {"name": "A", "value": "x\0y"},
        {"name": "A=B", "value": "x"},
        {"name": "A", "valueFrom": {"fileKeyRef": {"key": "k"}}},
    ],
)
async def test_values_that_no_process_can_have_are_refused(objects: Any, variable: Any) -> None:
    with pytest.raises(ConfigError, match=r"UTF-8|given to a process|not supported"):
        await env(objects, env=[variable])


async def test_an_api_server_that_is_away_is_a_reason_to_wait(objects: Any) -> None:
    objects.error = Unavailable("the API server is away")
    with pytest.raises(ConfigError, match=r"failed to get configmap .*the API server is away"):
        await env(objects, envFrom=[{"configMapRef": {"name": "settings", "optional": True}}])


def test_service_variables_of_the_own_namespace_and_the_api_server() -> None:
    found = service_environment(SERVICES, "shop", enable_service_links=True)
    assert found["KUBERNETES_SERVICE_PORT_HTTPS"] == "443"
    assert {key: found[key] for key in found if key.startswith("MY_DB")} == {
        "MY_DB_SERVICE_HOST": "10.96.0.9",
        "MY_DB_SERVICE_PORT": "5432",
        "MY_DB_SERVICE_PORT_U_DP": "53",
        "MY_DB_PORT": "tcp://10.96.0.9:5432",
        "MY_DB_PORT_5432_TCP": "tcp://10.96.0.9:5432",
        "MY_DB_PORT_5432_TCP_PROTO": "tcp",
        "MY_DB_PORT_5432_TCP_PORT": "5432",
        "MY_DB_PORT_5432_TCP_ADDR": "10.96.0.9",
        "MY_DB_PORT_53_UDP": "udp://10.96.0.9:53",
        "MY_DB_PORT_53_UDP_PROTO": "udp",
        "MY_DB_PORT_53_UDP_PORT": "53",
        "MY_DB_PORT_53_UDP_ADDR": "10.96.0.9",
    }
    assert not [key for key in found if key.startswith(("OTHER", "HEADLESS"))]


def test_without_service_links_only_the_api_server_is_told() -> None:
    found = service_environment(SERVICES, "shop", enable_service_links=False)
    assert set(found) == {
        key
        for key in service_environment(SERVICES[:1], "shop", enable_service_links=True)
        if key.startswith("KUBERNETES_")
    }
