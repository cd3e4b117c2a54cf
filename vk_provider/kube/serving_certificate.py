"""The certificate that the node's HTTPS API presents: self-signed until the cluster issues one."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Iterable
from pathlib import Path

from vk_provider.common.clock import Clock
from vk_provider.common.errors import VkError
from vk_provider.common.logging import get_logger
from vk_provider.kube.certificates import RETRY_S, sleep_until
from vk_provider.kube.client import KubeClient
from vk_provider.kube.csr import SERVING, request_certificate
from vk_provider.kube.pki import Identity, load_identity, self_signed, server_context, store

log = get_logger("kube.certificates")


class ServingCertificate:
    """Owns the server's `ssl_context`, whose certificate changes under it when one is issued.

    In a plain cluster nobody approves these requests; the self-signed certificate serves
    meanwhile, and the request stays open.
    """

    def __init__(
        self,
        client: KubeClient,
        directory: Path,
        node_name: str,
        names: Iterable[str],
        clock: Clock,
        *,
        client_ca_pem: bytes | None = None,
    ) -> None:
        """`names` are the DNS names and addresses of the node, as its status has them.

        `client_ca_pem`: whose client certificates are accepted; None asks for none.
        """
        self._client = client
        self._node_name = node_name
        self._names = tuple(sorted(set(names)))
        self._clock = clock
        self._file = directory / "serving-current.pem"
        self._fallback = directory / "serving-self-signed.pem"
        self._pending_key = directory / "serving-pending.key"
        self._names_changed = asyncio.Event()
        issued = self._issued()
        if issued is None:
            self._make_fallback()
        file = self._fallback if issued is None else self._file
        self.ssl_context: ssl.SSLContext = server_context(file, client_ca_pem)

    def set_names(self, names: Iterable[str]) -> None:
        """Take the node's new addresses: a certificate for them is asked for."""
        wanted = tuple(sorted(set(names)))
        if wanted != self._names:
            self._names = wanted
            self._names_changed.set()

    async def run(self) -> None:
        """Get it, and renew it each time 70 to 90 % of its life are over, until cancelled."""
        pause = RETRY_S[0]
        while True:
            self._names_changed.clear()
            names = self._names
            issued = self._issued()
            if issued is not None:
                await self._until_names_change(issued.rotate_at_ns(random.random()))
                if self._names != names:
                    continue
            outcome = await self._request(names)
            if isinstance(outcome, VkError):
                log.warning("no serving certificate yet", error=str(outcome), retry_s=pause)
                await self._clock.sleep(pause)
                pause = min(pause * 2, RETRY_S[1])
                continue
            pause = RETRY_S[0]
            if outcome is not None:
                store(self._file, outcome.pem)
                self._pending_key.unlink(missing_ok=True)
                self.ssl_context.load_cert_chain(self._file)
                log.info("serving certificate issued", names=list(names))

    async def _request(self, names: tuple[str, ...]) -> Identity | VkError | None:
        """Return what was issued or why not; None when the names changed while it was pending."""
        async with asyncio.TaskGroup() as tasks:
            request = tasks.create_task(self._attempt(names), name="serving certificate request")
            changed = tasks.create_task(self._names_changed.wait(), name="node names")
            await asyncio.wait({request, changed}, return_when=asyncio.FIRST_COMPLETED)
            request.cancel()
            changed.cancel()
        return None if request.cancelled() else request.result()

    async def _attempt(self, names: tuple[str, ...]) -> Identity | VkError:
        """Failures are values here: a raised one would end the whole task group."""
        try:
            return await request_certificate(
                self._client,
                self._clock,
                signer=SERVING,
                node_name=self._node_name,
                sans=names,
                pending_key=self._pending_key,
            )
        except VkError as exc:
            return exc

    async def _until_names_change(self, when_ns: int) -> None:
        async with asyncio.TaskGroup() as tasks:
            due = tasks.create_task(sleep_until(self._clock, when_ns), name="certificate rotation")
            changed = tasks.create_task(self._names_changed.wait(), name="node names")
            await asyncio.wait({due, changed}, return_when=asyncio.FIRST_COMPLETED)
            due.cancel()
            changed.cancel()

    def _issued(self) -> Identity | None:
        identity = load_identity(self._file)
        if (
            identity is None
            or identity.not_after_ns <= self._clock.now_ns()
            or not identity.sans >= set(self._names)
        ):
            return None
        return identity

    def _make_fallback(self) -> None:
        identity = load_identity(self._fallback)
        now_ns = self._clock.now_ns()
        if (
            identity is None
            or identity.rotate_at_ns(1.0) <= now_ns
            or not identity.sans >= set(self._names)
        ):
            store(self._fallback, self_signed(self._node_name, self._names, now_ns).pem)
