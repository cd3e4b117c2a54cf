"""What a request may do: access reviews on the node's subresources.

Source: `pkg/kubelet/server/auth.go` (GetRequestAttributes, with KubeletFineGrainedAuthz), and the
webhook's cache times from KubeletConfiguration.
"""

from __future__ import annotations

from vk_provider.common.clock import Clock
from vk_provider.kubelet_api.authentication import User
from vk_provider.kubelet_api.sources import Reviewer
from vk_provider.kubelet_api.ttl_cache import TtlCache

_PATH = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_ALLOWED_TTL_S = 300.0
_DENIED_TTL_S = 30.0

_VERBS = {
    "POST": "create",
    "GET": "get",
    "HEAD": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_STREAMS = ("/exec", "/attach", "/portForward", "/run")
_SUBRESOURCES = (
    ("/allocatedPods", ("pods", "proxy")),
    ("/pods", ("pods", "proxy")),
    ("/runningpods", ("pods", "proxy")),
    ("/healthz", ("healthz", "proxy")),
    ("/configz", ("configz", "proxy")),
    ("/flagz", ("configz",)),
    ("/stats", ("stats",)),
    ("/metrics", ("metrics",)),
    ("/logs", ("log",)),
    ("/checkpoint", ("checkpoint",)),
    ("/statusz", ("statusz",)),
)


def _is_under(prefix: str, path: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def verb_for(method: str, path: str) -> str:
    """Return the API's verb for a request.

    A WebSocket's handshake is a GET; what it opens in a container is no reading, so `create` is
    asked for whatever the method.
    """
    if any(_is_under(prefix, path) for prefix in _STREAMS):
        return "create"
    return _VERBS.get(method, "")


def subresources_for(path: str) -> tuple[str, ...]:
    """Return the subresources of `nodes`, any of which opens `path`, in the order to ask for."""
    for prefix, subresources in _SUBRESOURCES:
        if _is_under(prefix, path):
            return subresources
    return ("proxy",)


class Authorizer:
    """Asks the API server whether a user may, and remembers the answer."""

    def __init__(self, reviewer: Reviewer, node_name: str, clock: Clock) -> None:
        self._reviewer = reviewer
        self._node_name = node_name
        self._known: TtlCache[tuple[User, str, str], bool] = TtlCache(clock)

    async def allows(self, user: User, verb: str, subresource: str) -> bool:
        """Tell whether the user may; raises what the review raises where nobody could be asked."""
        key = (user, verb, subresource)
        known = self._known.get(key)
        if known is None:
            known = await self._review(user, verb, subresource)
            self._known.put(key, known, _ALLOWED_TTL_S if known else _DENIED_TTL_S)
        return known

    async def _review(self, user: User, verb: str, subresource: str) -> bool:
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name,
                "groups": list(user.groups),
                "uid": user.uid,
                "extra": {key: list(values) for key, values in user.extra},
                "resourceAttributes": {
                    "verb": verb,
                    "version": "v1",
                    "resource": "nodes",
                    "subresource": subresource,
                    "name": self._node_name,
                },
            },
        }
        status = (await self._reviewer.create(_PATH, review)).get("status") or {}
        return bool(status.get("allowed")) and not status.get("denied")
