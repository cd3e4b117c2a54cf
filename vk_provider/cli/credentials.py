"""Who the node process is to the cluster: by a token turned certificate, or a kubeconfig."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vk_provider import __version__
from vk_provider.cli.settings import Access, NodeProcessSettings
from vk_provider.common.clock import Clock
from vk_provider.common.errors import DeadlineExceeded, Unauthenticated, Unavailable
from vk_provider.common.logging import get_logger
from vk_provider.kube.certificates import ClientCertificate
from vk_provider.kube.client import KubeClient
from vk_provider.kube.kubeconfig import Kubeconfig, read_kubeconfig, token_config

_USER_AGENT = f"vk-provider/{__version__}"
_PAUSE_S = (0.5, 10.0)
_REVIEWS = "/apis/authentication.k8s.io/v1/selfsubjectreviews"

log = get_logger("credentials")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A client, and what keeps it valid: the certificate to renew, if it is ours to renew."""

    client: KubeClient
    kubeconfig: Path | None
    certificate: ClientCertificate | None


async def open_client(settings: NodeProcessSettings, clock: Clock) -> Credentials:
    """Return a client as the node, bootstrapping if need be. The caller closes the client.

    Waits for the API server only where there is no certificate yet: a node whose certificate
    holds starts without it.
    """
    access = settings.access
    if access.kubeconfig is not None:
        client = await KubeClient.from_kubeconfig(
            access.kubeconfig, user_agent=_USER_AGENT, clock=clock
        )
        await _check_identity(client, settings.node.name)
        return Credentials(client, access.kubeconfig, None)
    if access.bootstrap_kubeconfig is None and not access.server:
        client = await KubeClient.in_cluster(user_agent=_USER_AGENT, clock=clock)
        await _check_identity(client, settings.node.name)
        return Credentials(client, None, None)
    return await _bootstrapped(settings, clock)


async def _bootstrapped(settings: NodeProcessSettings, clock: Clock) -> Credentials:
    certificate = ClientCertificate(settings.pki_dir, settings.node.name, clock)
    if not certificate.usable():
        await _bootstrap(certificate, settings.access, clock)
    certificate.write_kubeconfig(_read(settings.access))
    client = await _as_node(certificate, clock)
    try:
        await _check_identity(client, settings.node.name)
    except Unauthenticated as exc:
        # The cluster was made anew under the same address, or its authority was replaced.
        log.warning("the cluster does not know the stored certificate", error=str(exc))
        await client.close()
        await _bootstrap(certificate, settings.access, clock)
        client = await _as_node(certificate, clock)
    return Credentials(client, certificate.kubeconfig, certificate)


async def _as_node(certificate: ClientCertificate, clock: Clock) -> KubeClient:
    return await KubeClient.from_kubeconfig(
        certificate.kubeconfig, user_agent=_USER_AGENT, clock=clock
    )


async def _bootstrap(certificate: ClientCertificate, access: Access, clock: Clock) -> None:
    client = await KubeClient.from_config(
        lambda: _read(access), user_agent=_USER_AGENT, clock=clock
    )
    pause = _PAUSE_S[0]
    try:
        while True:
            try:
                await certificate.bootstrap(client)
                return
            except (Unavailable, DeadlineExceeded) as exc:
                log.warning("can't reach the API server yet", error=str(exc), retry_s=pause)
            await clock.sleep(pause)
            pause = min(pause * 2, _PAUSE_S[1])
    except Unauthenticated as exc:
        raise Unauthenticated(
            f"The bootstrap token was refused ({exc}); it may have expired: make another with "
            "`kubeadm token create`, or a Secret of type bootstrap.kubernetes.io/token"
        ) from exc
    finally:
        await client.close()


def _read(access: Access) -> Kubeconfig:
    if access.bootstrap_kubeconfig is not None:
        return read_kubeconfig(access.bootstrap_kubeconfig)
    assert access.ca is not None
    assert access.bootstrap_token_file is not None
    return token_config(access.server, access.ca, access.bootstrap_token_file)


async def _check_identity(client: KubeClient, node_name: str) -> None:
    """Warn where the cluster takes us for somebody else than the node; Unauthenticated passes."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = await client.create(_REVIEWS, body)
    except (Unavailable, DeadlineExceeded) as exc:
        log.warning("can't reach the API server yet", error=str(exc))
        return
    user = ((answer.get("status") or {}).get("userInfo") or {}).get("username", "")
    if user == f"system:node:{node_name}":
        log.info("known to the cluster", user=user)
    else:
        log.warning(
            "not known to the cluster as the node; its rights must cover what a node may do",
            user=user,
            expected=f"system:node:{node_name}",
        )
