"""The gate that every request passes: 401 for strangers, 403 for those who may not."""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from vk_provider.common.errors import Unauthenticated, VkError
from vk_provider.common.logging import get_logger
from vk_provider.kubelet_api.authentication import Authenticator, User
from vk_provider.kubelet_api.authorization import Authorizer, subresources_for, verb_for

log = get_logger("kubelet_api.access")


def access_middleware(authenticator: Authenticator, authorizer: Authorizer) -> Middleware:
    """Return the middleware; texts and codes are those of the kubelet's InstallAuthFilter."""

    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            user = await authenticator.authenticate(
                request.transport.get_extra_info("peercert") if request.transport else None,
                request.headers.get("Authorization"),
            )
        except Unauthenticated:
            return web.Response(status=401, text="Unauthorized")
        except VkError as exc:
            log.warning("could not find out who is asking", path=request.path, error=str(exc))
            return web.Response(status=401, text="Unauthorized")
        refusal = await _refusal(authorizer, user, request)
        return refusal or await handler(request)

    return gate


async def _refusal(authorizer: Authorizer, user: User, request: web.Request) -> web.Response | None:
    path = _served_path(request)
    verb, subresources = verb_for(request.method, path), subresources_for(path)
    for subresource in subresources:
        try:
            if await authorizer.allows(user, verb, subresource):
                return None
        except VkError as exc:
            who = f"user={user.name}, verb={verb}, resource=nodes, subresource={subresource}"
            log.warning("could not find out whether a request is allowed", error=str(exc))
            return web.Response(status=500, text=f"Authorization error ({who})")
    listed = " ".join(subresources)
    return web.Response(
        status=403,
        text=f"Forbidden (user={user.name}, verb={verb}, resource=nodes, "
        f"subresource(s)=[{listed}])\n",
    )


def _served_path(request: web.Request) -> str:
    """Return the matched route's own form, so that no spelling of a path is judged as another."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else request.path
