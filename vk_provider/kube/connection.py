"""One set of credentials in use: kubernetes-asyncio's configuration and its aiohttp session."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import (
    ConfigException,
    load_incluster_config,
    load_kube_config_from_dict,
)

from vk_provider.common.errors import Invalid, Unauthenticated
from vk_provider.kube.kubeconfig import Kubeconfig

Opener = Callable[[], Coroutine[Any, Any, "Connection"]]
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Connection:
    """A session with the API server that lives until the last request on it has ended.

    Owned by KubeClient, which opens another when the credentials change.
    """

    def __init__(self, configuration: Any, files: tuple[Path, ...]) -> None:
        # Each watch holds a connection of HTTP/1.1, so the number must not be limited.
        configuration.connection_pool_maxsize = 0
        self._configuration = configuration
        self._api_client = ApiClient(configuration=configuration)
        self._files = files
        self._signature = _signature(files)
        self._users = 0
        self._retired = False
        self.host: str = configuration.host.rstrip("/")
        self.proxy: str | None = configuration.proxy

    @property
    def session(self) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = self._api_client.rest_client.pool_manager
        return session

    @property
    def server_hostname(self) -> str | None:
        name: str | None = self._configuration.tls_server_name
        return name

    def outdated(self) -> bool:
        """Tell whether a file with credentials has changed since they were read."""
        return _signature(self._files) != self._signature

    def put_up_with_files(self) -> None:
        """Take the files as they are now for known: they were found unusable."""
        self._signature = _signature(self._files)

    async def authorization(self) -> str | None:
        """Return the Authorization header, refreshed where kubernetes-asyncio knows how."""
        try:
            value: str | None = await self._configuration.get_api_key_with_prefix("BearerToken")
        except (ConfigException, OSError) as exc:
            raise Unauthenticated(
                f"The token for {self.host} could not be refreshed: {exc}"
            ) from exc
        # Token files end in a newline, as editors leave them.
        value = value.strip() if value is not None else None
        if value is not None and not (value.isascii() and value.isprintable()):
            raise Unauthenticated(f"The token for {self.host} holds characters that no token has")
        return value

    async def __aenter__(self) -> Connection:
        self._users += 1
        return self

    async def __aexit__(self, *_: object) -> None:
        self._users -= 1
        if self._retired and self._users == 0:
            await self._api_client.close()

    async def retire(self) -> None:
        """Close it as soon as nobody uses it any more."""
        self._retired = True
        if self._users == 0:
            await self._api_client.close()

    async def close(self) -> None:
        """Close it now; requests on it fail."""
        self._retired = True
        await self._api_client.close()


def kubeconfig_opener(load: Callable[[], Kubeconfig]) -> Opener:
    """Return how to open a connection with what `load` reads, each time anew."""

    async def connect() -> Connection:
        config = load()
        configuration = Configuration()
        try:
            with config.with_files() as document:
                loader = await load_kube_config_from_dict(
                    document, client_configuration=configuration
                )
                if hasattr(loader, "exec_plugin_expiry"):
                    configuration.refresh_api_key_hook = _exec_refresh(loader)
                return Connection(configuration, config.files)
        except (ConfigException, ssl.SSLError, OSError) as exc:
            raise Invalid(f"The kubeconfig {config.path} can't be used: {exc}") from exc

    return connect


def in_cluster_opener() -> Opener:
    """Return how to open a connection with the service account of the pod we run in."""

    async def connect() -> Connection:
        configuration = Configuration()
        try:
            load_incluster_config(configuration)
            return Connection(configuration, (_SERVICE_ACCOUNT / "ca.crt",))
        except (ConfigException, ssl.SSLError, OSError) as exc:
            raise Invalid(
                f"The service account of this pod can't be used ({exc}); outside of a cluster, "
                "name a kubeconfig with --kubeconfig"
            ) from exc

    return connect


def keep_alive(response: aiohttp.ClientResponse) -> None:
    """Have the kernel notice within half a minute that the other side of a quiet watch is gone."""
    transport = response.connection.transport if response.connection else None
    raw = transport.get_extra_info("socket") if transport else None
    if raw is None:
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 15),
        (socket.TCP_KEEPINTVL, 5),
        (socket.TCP_KEEPCNT, 3),
        (socket.TCP_USER_TIMEOUT, 30_000),
    ):
        raw.setsockopt(socket.IPPROTO_TCP, option, value)


def _exec_refresh(loader: Any) -> Callable[[Any], Coroutine[Any, Any, None]]:
    async def refresh(configuration: Any) -> None:
        await loader.load_from_exec_plugin()  # a no-op until the token nears its end
        configuration.api_key["BearerToken"] = loader.token

    return refresh


def _signature(files: tuple[Path, ...]) -> tuple[tuple[int, int, int] | None, ...]:
    return tuple(_stamp(file) for file in files)


def _stamp(file: Path) -> tuple[int, int, int] | None:
    try:
        stat = file.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
