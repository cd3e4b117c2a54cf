"""HTTP requests of probes and hooks (pkg/probe/http)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from vk_provider.pods.podspec import Container
from vk_provider.pods.probes.model import OUTPUT_LIMIT_BYTES, Answer, CheckError
from vk_provider.pods.probes.ports import host_port, resolve_port

_KUBERNETES_VERSION = "1.37"
_MAX_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)

Purpose = Literal["probe", "lifecycle"]


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A GET as an httpGet action describes it; `text` is its URL as events show it."""

    text: str
    url: URL
    headers: CIMultiDict[str]


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The last answer: its status and the first bytes of its body."""

    status: int
    body: str


def make_request(
    action: Mapping[str, Any], container: Container, pod_ip: str, purpose: Purpose
) -> HttpRequest:
    """Return the request; raises CheckError for a port or a host that is none."""
    port = resolve_port(action.get("port"), container)
    scheme = str(action.get("scheme") or "HTTP").lower()
    authority = host_port(action.get("host") or pod_ip, port)
    text = f"{scheme}://{authority}{_target(action.get('path') or '/')}"
    plain = text.isascii() and text.isprintable() and " " not in text
    headers = _headers(action.get("httpHeaders") or (), purpose)
    try:
        return HttpRequest(text, URL(text, encoded=plain), headers)
    except ValueError as exc:
        raise CheckError(f"{text} is no URL: {exc}") from exc


def _target(path: str) -> str:
    """Return path and query of what the pod calls a path, which may be a whole URL."""
    try:
        parts = urlsplit(path)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
    except ValueError:
        target = path
    return target if target.startswith("/") else f"/{target}"


def _headers(entries: Sequence[Mapping[str, str]], purpose: Purpose) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict(
        (entry["name"], entry.get("value") or "") for entry in entries
    )
    headers.setdefault("User-Agent", f"kube-{purpose}/{_KUBERNETES_VERSION}")
    if "Accept" not in headers:
        headers["Accept"] = "*/*"
    elif not headers["Accept"]:
        del headers["Accept"]
    return headers


async def send(request: HttpRequest, timeout_s: float | None) -> HttpResponse:
    """Send the request and follow redirects on the same host.

    A redirect to another host is not followed but returned. No proxy, no cookies, no kept
    connection, and certificates are not verified: the pod is asked, whoever it says it is. Raises
    aiohttp.ClientError, OSError, TimeoutError or ValueError.
    """
    async with (
        asyncio.timeout(timeout_s),
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=False, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent"),
            auto_decompress=False,
        ) as session,
    ):
        url = request.url
        for _ in range(_MAX_REDIRECTS):
            async with session.get(url, headers=request.headers, allow_redirects=False) as response:
                location = response.headers.get("Location", "")
                target = url.join(URL(location)) if location else url
                if (
                    response.status not in _REDIRECTS
                    or not location
                    or target.host != request.url.host
                ):
                    return HttpResponse(response.status, await _body(response))
                url = target
    raise ValueError(f"stopped after {_MAX_REDIRECTS} redirects")


async def _body(response: aiohttp.ClientResponse) -> str:
    body = bytearray()
    async for chunk in response.content.iter_chunked(OUTPUT_LIMIT_BYTES):
        body += chunk[: OUTPUT_LIMIT_BYTES - len(body)]
        if len(body) >= OUTPUT_LIMIT_BYTES:
            break
    return body.decode(errors="replace")


async def check_http(
    action: Mapping[str, Any], container: Container, pod_ip: str, timeout_s: float
) -> Answer:
    """Return success for a status below 400; a redirect elsewhere is one with a warning."""
    request = make_request(action, container, pod_ip, "probe")
    try:
        response = await send(request, timeout_s)
    except TimeoutError:
        reason = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
        return Answer(False, f'Get "{request.text}": {reason}')
    except (aiohttp.ClientError, OSError, ValueError) as exc:
        return Answer(False, f'Get "{request.text}": {exc}')
    if not 200 <= response.status < 400:  # the body may hold secrets and is not shown
        return Answer(False, f"HTTP probe failed with statuscode: {response.status}")
    if response.status >= 300:
        return Answer(
            True, f"Probe terminated redirects, Response body: {response.body}", warning=True
        )
    return Answer(True, response.body)
