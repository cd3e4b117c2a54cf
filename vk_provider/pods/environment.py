"""The environment of a container (kubelet makeEnvironmentVariables).

Holds secrets: nothing here logs a value, and no error names one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Invalid
from vk_provider.pods.errors import ConfigError
from vk_provider.pods.expansion import expand_from
from vk_provider.pods.fieldpath import environment_field
from vk_provider.pods.lookups import Lookup, secret_data
from vk_provider.pods.objects import Objects
from vk_provider.pods.podspec import Container, Pod, namespace_of
from vk_provider.pods.resource_fields import resource_field
from vk_provider.pods.services_env import Service, service_environment


@dataclass(frozen=True, slots=True)
class _Facts:
    pod: Pod
    container: Container
    pod_ips: Sequence[str]
    host_ips: Sequence[str]
    node_name: str
    allocatable: Mapping[str, str]


async def make_environment(
    pod: Pod,
    container: Container,
    objects: Objects,
    *,
    pod_ips: Sequence[str],
    host_ips: Sequence[str],
    node_name: str,
    allocatable: Mapping[str, str],
    services: Iterable[Service],
) -> list[pb.EnvVar]:
    """Return the variables in the order they were declared: envFrom, env, then Services'.

    `allocatable` (the node's, as quantities) stands in for limits that are not set. Raises
    ConfigError where an object or key is missing or a value can't be given to a process.
    """
    facts = _Facts(pod, container, pod_ips, host_ips, node_name, allocatable)
    lookup = Lookup(objects, namespace_of(pod), ConfigError)
    from_services = service_environment(
        services,
        namespace_of(pod),
        enable_service_links=pod["spec"].get("enableServiceLinks", True),
    )
    values: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        values |= await _bulk(source, lookup)
    for variable in container.get("env") or ():
        value = await _value(variable, facts, lookup, values, from_services)
        if value is not None:
            values[variable["name"]] = value
    for name, value in from_services.items():
        values.setdefault(name, value)
    for name, value in values.items():
        if "\0" in value or "\0" in name or "=" in name or not name:
            raise ConfigError(
                f'environment variable "{name}" of container "{container["name"]}" can\'t be given '
                "to a process: its name is empty or has a '=', or its value has a NUL byte"
            )
    return [pb.EnvVar(name=name, value=value) for name, value in values.items()]


async def _bulk(source: Mapping[str, Any], lookup: Lookup) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    data: Mapping[str, str] = {}
    if (reference := source.get("configMapRef")) is not None:
        found = await lookup.config_map(
            reference.get("name", ""), optional=bool(reference.get("optional"))
        )
        data = (found or {}).get("data") or {}
    elif (reference := source.get("secretRef")) is not None:
        found = await lookup.secret(
            reference.get("name", ""), optional=bool(reference.get("optional"))
        )
        data = {
            key: _text(value, f'key {key} of Secret "{reference.get("name", "")}"')
            for key, value in _secret(found).items()
        }
    return {prefix + key: value for key, value in data.items()}


async def _value(
    variable: Mapping[str, Any],
    facts: _Facts,
    lookup: Lookup,
    values: Mapping[str, str],
    from_services: Mapping[str, str],
) -> str | None:
    """Return a variable's value, None where its source is absent and optional."""
    if variable.get("value"):
        return expand_from(variable["value"], values, from_services)
    source = variable.get("valueFrom") or {}
    try:
        if (field := source.get("fieldRef")) is not None:
            return environment_field(
                facts.pod,
                field.get("fieldPath", ""),
                node_name=facts.node_name,
                host_ips=facts.host_ips,
                pod_ips=facts.pod_ips,
                api_version=field.get("apiVersion", ""),
            )
        if (resource := source.get("resourceFieldRef")) is not None:
            return resource_field(facts.pod, resource, facts.allocatable, facts.container)
    except Invalid as exc:
        raise ConfigError(str(exc)) from exc
    if (key_ref := source.get("configMapKeyRef")) is not None:
        return await _config_map_key(key_ref, facts, lookup)
    if (key_ref := source.get("secretKeyRef")) is not None:
        return await _secret_key(key_ref, facts, lookup)
    if source:
        raise ConfigError(
            f'the source {", ".join(source)} of environment variable "{variable["name"]}" is not '
            "supported by this node; use value, fieldRef, resourceFieldRef, configMapKeyRef or "
            "secretKeyRef"
        )
    return ""


async def _config_map_key(
    reference: Mapping[str, Any], facts: _Facts, lookup: Lookup
) -> str | None:
    name, key, optional = _key_reference(reference)
    found = await lookup.config_map(name, optional=optional)
    data: Mapping[str, str] = (found or {}).get("data") or {}
    if key in data:
        return data[key]
    if optional:
        return None
    raise ConfigError(f"couldn't find key {key} in ConfigMap {namespace_of(facts.pod)}/{name}")


async def _secret_key(reference: Mapping[str, Any], facts: _Facts, lookup: Lookup) -> str | None:
    name, key, optional = _key_reference(reference)
    data = _secret(await lookup.secret(name, optional=optional))
    if key in data:
        return _text(data[key], f'key {key} of Secret "{name}"')
    if optional:
        return None
    raise ConfigError(f"couldn't find key {key} in Secret {namespace_of(facts.pod)}/{name}")


def _key_reference(reference: Mapping[str, Any]) -> tuple[str, str, bool]:
    return (
        reference.get("name", ""),
        reference.get("key", ""),
        bool(reference.get("optional")),
    )


def _secret(found: Mapping[str, Any] | None) -> dict[str, bytes]:
    try:
        return secret_data(found or {})
    except Invalid as exc:
        raise ConfigError(str(exc)) from exc


def _text(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"{what} is not UTF-8 text and can't be an environment variable; "
            "mount the Secret as a volume instead"
        ) from exc
