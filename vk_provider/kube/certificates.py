"""Who this node is to the cluster: its client certificate, from the first token on, and renewed."""

from __future__ import annotations

import random
from pathlib import Path

import orjson

from vk_provider.common.clock import Clock
from vk_provider.common.errors import VkError
from vk_provider.common.logging import get_logger
from vk_provider.kube.client import KubeClient
from vk_provider.kube.csr import CLIENT, request_certificate
from vk_provider.kube.kubeconfig import Kubeconfig
from vk_provider.kube.pki import Identity, load_identity, store

_LONGEST_SLEEP_S = 3600.0  # wall time may jump under a long sleep
RETRY_S = (5.0, 300.0)

log = get_logger("kube.certificates")


class ClientCertificate:
    """The node's client certificate in `directory` (0700), which a kubeconfig beside it names.

    TLS bootstrap as a kubelet's: a first client with a bootstrap token asks for the certificate,
    and all else is done with it. A KubeClient made from `kubeconfig` notices each renewal.
    """

    def __init__(self, directory: Path, node_name: str, clock: Clock) -> None:
        self._node_name = node_name
        self._clock = clock
        self._file = directory / "client-current.pem"
        self._pending_key = directory / "client-pending.key"
        self.kubeconfig = directory / "kubeconfig"

    def usable(self) -> bool:
        """Tell whether there is one for this node that still holds."""
        identity = load_identity(self._file)
        return (
            identity is not None
            and identity.common_name == f"system:node:{self._node_name}"
            and identity.not_after_ns > self._clock.now_ns()
        )

    async def bootstrap(self, bootstrap: KubeClient) -> None:
        """Get a first certificate with the bootstrap identity, waiting until it is approved."""
        log.info("asking for a client certificate", node=self._node_name, server=bootstrap.host)
        self._keep(await self._request(bootstrap))

    def write_kubeconfig(self, cluster: Kubeconfig) -> None:
        """Write the kubeconfig: the bootstrap's cluster, our certificate."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": cluster.cluster}],
            "users": [
                {
                    "name": "node",
                    "user": {
                        "client-certificate": str(self._file),
                        "client-key": str(self._file),
                    },
                }
            ],
            "contexts": [{"name": "node", "context": {"cluster": "cluster", "user": "node"}}],
            "current-context": "node",
        }
        data = orjson.dumps(document, option=orjson.OPT_INDENT_2)
        if not self.kubeconfig.exists() or self.kubeconfig.read_bytes() != data:
            store(self.kubeconfig, data)

    async def run(self, client: KubeClient) -> None:
        """Renew it each time 70 to 90 % of its life are over, until cancelled."""
        while True:
            identity = load_identity(self._file)
            if identity is not None:
                await sleep_until(self._clock, identity.rotate_at_ns(random.random()))
            pause = RETRY_S[0]
            while True:
                try:
                    self._keep(await self._request(client))
                    break
                except VkError as exc:
                    log.warning("client certificate not renewed", error=str(exc), retry_s=pause)
                await self._clock.sleep(pause)
                pause = min(pause * 2, RETRY_S[1])

    async def _request(self, client: KubeClient) -> Identity:
        return await request_certificate(
            client,
            self._clock,
            signer=CLIENT,
            node_name=self._node_name,
            sans=(),
            pending_key=self._pending_key,
        )

    def _keep(self, identity: Identity) -> None:
        store(self._file, identity.pem)
        self._pending_key.unlink(missing_ok=True)
        log.info("client certificate stored", not_after=str(identity.leaf.not_valid_after_utc))


async def sleep_until(clock: Clock, when_ns: int) -> None:
    """Return when the wall clock has passed `when_ns`."""
    while (left_ns := when_ns - clock.now_ns()) > 0:
        await clock.sleep(min(left_ns / 1e9, _LONGEST_SLEEP_S))
