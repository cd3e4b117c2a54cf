"""The cluster: whether it can be reached, how it takes us, its clock, and the rights held there."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from vk_provider.cli.checks.model import Finding, Verdict, doubtful, failed, ok
from vk_provider.common.clock import Clock
from vk_provider.common.errors import VkError
from vk_provider.kube.client import KubeClient

_SKEW_S = 5.0
_OLDEST = (1, 34)
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Right:
    """A right that a node needs.

    by_object: the Node authorizer gives it to a node for what its pods name, one by one, and
    refuses it in general; only somebody else can be asked whether he has it.
    """

    verb: str
    resource: str
    group: str = ""
    subresource: str = ""
    namespace: str = ""
    field_selector: tuple[str, str] | None = None
    name: str = ""
    by_object: bool = False

    def __str__(self) -> str:
        what = f"{self.resource}/{self.subresource}" if self.subresource else self.resource
        return f"{self.verb} {what}"


def node_rights(node_name: str) -> tuple[Right, ...]:
    """Return what a node must be allowed, as the Node authorizer allows it."""
    mine = ("spec.nodeName", node_name)
    reviews = "authorization.k8s.io"
    return (
        Right("create", "nodes"),
        Right("get", "nodes", name=node_name),
        Right("watch", "nodes", name=node_name),
        Right("patch", "nodes", subresource="status", name=node_name),
        Right("list", "pods", field_selector=mine),
        Right("watch", "pods", field_selector=mine),
        Right("patch", "pods", subresource="status", namespace="default"),
        Right("delete", "pods", namespace="default"),
        *(
            Right(verb, resource, by_object=True)
            for resource in ("configmaps", "secrets")
            for verb in ("get", "list", "watch")
        ),
        Right("create", "serviceaccounts", subresource="token", by_object=True),
        Right("list", "services"),
        Right("watch", "services"),
        Right("create", "events", namespace="default"),
        Right("patch", "events", namespace="default"),
        Right(
            "update",
            "leases",
            group="coordination.k8s.io",
            namespace="kube-node-lease",
            name=node_name,
        ),
        Right("create", "certificatesigningrequests", group="certificates.k8s.io"),
        Right("create", "tokenreviews", group="authentication.k8s.io"),
        Right("create", "subjectaccessreviews", group=reviews),
    )


BOOTSTRAP_RIGHTS = (
    Right("create", "certificatesigningrequests", group="certificates.k8s.io"),
    Right("watch", "certificatesigningrequests", group="certificates.k8s.io"),
)


async def check_cluster(
    client: KubeClient, clock: Clock, rights: tuple[Right, ...]
) -> AsyncIterator[Finding]:
    """Look at one cluster with one identity."""
    reached = await _check_version(client)
    yield reached
    if reached.verdict is Verdict.FAILED:
        return
    yield await _check_clock(client, clock)
    identity = await _check_identity(client)
    yield identity
    if identity.found.startswith("system:node:"):
        rights = tuple(right for right in rights if not right.by_object)
    yield await _check_rights(client, rights)


async def _check_version(client: KubeClient) -> Finding:
    try:
        version = await client.get("/version")
    except VkError as exc:
        return failed(
            "cluster",
            str(exc),
            "check the server's address in the kubeconfig, its certificate and the way there",
        )
    text = str(version.get("gitVersion"))
    match = re.match(r"v(\d+)\.(\d+)", text)
    if match is None or (int(match[1]), int(match[2])) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        return doubtful("cluster", f"{client.host}, {text}", f"not tried with less than {oldest}")
    return ok("cluster", f"{client.host}, {text}")


async def _check_clock(client: KubeClient, clock: Clock) -> Finding:
    try:
        headers = await client.head("/version")
        there = parsedate_to_datetime(headers["Date"]).timestamp()
    except (VkError, KeyError, ValueError) as exc:
        return doubtful("clock", f"can't be compared ({exc!r})", "see that NTP runs on both sides")
    skew = clock.now_ns() / 1e9 - there - 0.5  # the header has whole seconds
    if abs(skew) > _SKEW_S:
        return failed(
            "clock",
            f"{skew:+.0f} s beside the API server's",
            "set it (chronyd, systemd-timesyncd): certificates, tokens and leases depend on it",
        )
    return ok("clock", f"within {_SKEW_S:.0f} s of the API server's")


async def _check_identity(client: KubeClient) -> Finding:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = await client.create("/apis/authentication.k8s.io/v1/selfsubjectreviews", body)
    except VkError as exc:
        return failed("identity", str(exc), "the credentials are refused: take newer ones")
    return ok("identity", str(answer["status"]["userInfo"].get("username")))


async def _check_rights(client: KubeClient, rights: tuple[Right, ...]) -> Finding:
    try:
        answers = await asyncio.gather(*(_allowed(client, right) for right in rights))
    except VkError as exc:
        return doubtful("rights there", f"can't be asked for: {exc}", "")
    missing = [str(r) for r, allowed in zip(rights, answers, strict=True) if not allowed]
    if missing:
        return failed(
            "rights there",
            f"may not: {', '.join(missing)}",
            "be system:node:NAME in system:nodes (TLS bootstrap does that), or bind the "
            "ClusterRole system:node to this identity",
        )
    return ok("rights there", f"all {len(rights)} that are needed")


async def _allowed(client: KubeClient, right: Right) -> bool:
    attributes: dict[str, object] = {
        "verb": right.verb,
        "resource": right.resource,
        "group": right.group,
        "subresource": right.subresource,
        "namespace": right.namespace,
        "name": right.name,
    }
    if right.field_selector is not None:
        key, value = right.field_selector
        requirement = {"key": key, "operator": "In", "values": [value]}
        attributes["fieldSelector"] = {"requirements": [requirement]}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = await client.create(_REVIEWS, body)
    return bool((answer.get("status") or {}).get("allowed"))
