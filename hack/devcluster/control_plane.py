"""The control plane of a local cluster: etcd, API server, controllers, scheduler, kube-proxy."""

from __future__ import annotations

import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

from hack.devcluster import bootstrap, pki
from hack.devcluster.processes import running, spawn, tail
from hack.devcluster.settings import ROOT, ClusterSettings

_KUBELET_API = ROOT / "hack" / "devcluster" / "kubelet-api.yaml"


def start(settings: ClusterSettings, binaries: Path) -> None:
    """Start what does not run yet and return when the API server is ready."""
    settings.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    pki.make(settings)
    for user in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
        pki.write_kubeconfig(settings, settings.directory / f"{user}.kubeconfig", user)
    pki.write_kubeconfig(settings, settings.admin_kubeconfig, "admin")
    _add_link(settings)
    spawn(settings, "etcd", [str(binaries / "etcd"), *_etcd_flags(settings)])
    start_api_server(settings, binaries)
    spawn(
        settings,
        "kube-controller-manager",
        [str(binaries / "kube-controller-manager"), *_kcm_flags(settings)],
    )
    spawn(
        settings, "kube-scheduler", [str(binaries / "kube-scheduler"), *_scheduler_flags(settings)]
    )
    _allow_bootstrap(settings, binaries / "kubectl")


def start_api_server(settings: ClusterSettings, binaries: Path) -> None:
    """Start the API server, where it does not run, and return when it answers /readyz."""
    spawn(
        settings, "kube-apiserver", [str(binaries / "kube-apiserver"), *_apiserver_flags(settings)]
    )
    _wait_ready(settings)


def start_proxy(settings: ClusterSettings, binaries: Path) -> None:
    """Start kube-proxy beside the agent; the Node must exist."""
    config = settings.directory / "kube-proxy.yaml"
    config.write_text(
        f"""apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: {settings.node_name}
clusterCIDR: {settings.pod_cidr}
clientConnection: {{kubeconfig: {settings.directory / "kube-proxy.kubeconfig"}}}
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
"""
    )
    spawn(settings, "kube-proxy", [str(binaries / "kube-proxy"), f"--config={config}"])


def write_bootstrap_kubeconfig(settings: ClusterSettings) -> Path:
    """Return the kubeconfig with the bootstrap token, which the node turns into a certificate."""
    return bootstrap.write_kubeconfig(settings, pki.cluster_entry(settings))


def _add_link(settings: ClusterSettings) -> None:
    link = settings.api_link
    if Path(f"/sys/class/net/{link}").exists():
        return
    for command in (
        ["ip", "link", "add", link, "type", "bridge"],
        ["ip", "address", "add", f"{settings.api_address}/32", "dev", link],
        ["ip", "link", "set", link, "up"],
    ):
        subprocess.run(command, check=True)


def _etcd_flags(settings: ClusterSettings) -> list[str]:
    p = settings.pki
    return [
        "--name=local",
        f"--data-dir={settings.directory / 'etcd'}",
        "--listen-client-urls=https://127.0.0.1:2379",
        "--advertise-client-urls=https://127.0.0.1:2379",
        "--listen-peer-urls=https://127.0.0.1:2380",
        "--initial-advertise-peer-urls=https://127.0.0.1:2380",
        "--initial-cluster=local=https://127.0.0.1:2380",
        "--client-cert-auth",
        f"--trusted-ca-file={p / 'ca.crt'}",
        f"--cert-file={p / 'etcd.crt'}",
        f"--key-file={p / 'etcd.key'}",
        "--peer-client-cert-auth",
        f"--peer-trusted-ca-file={p / 'ca.crt'}",
        f"--peer-cert-file={p / 'etcd.crt'}",
        f"--peer-key-file={p / 'etcd.key'}",
        "--unsafe-no-fsync",  # a local cluster's data need not survive a power cut
        "--log-level=warn",
    ]


def _apiserver_flags(settings: ClusterSettings) -> list[str]:
    p = settings.pki
    return [
        f"--bind-address={settings.api_address}",
        f"--advertise-address={settings.api_address}",
        f"--secure-port={settings.api_port}",
        "--etcd-servers=https://127.0.0.1:2379",
        f"--etcd-cafile={p / 'ca.crt'}",
        f"--etcd-certfile={p / 'etcd.crt'}",
        f"--etcd-keyfile={p / 'etcd.key'}",
        f"--tls-cert-file={p / 'apiserver.crt'}",
        f"--tls-private-key-file={p / 'apiserver.key'}",
        f"--client-ca-file={p / 'ca.crt'}",
        f"--kubelet-certificate-authority={p / 'ca.crt'}",
        f"--kubelet-client-certificate={p / 'apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={p / 'apiserver-kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={p / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={p / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={p / 'front-proxy-client.key'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--enable-bootstrap-token-auth",
        "--allow-privileged",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={p / 'sa.pub'}",
        f"--service-account-signing-key-file={p / 'sa.key'}",
        f"--service-cluster-ip-range={settings.service_cidr}",
    ]


def _kcm_flags(settings: ClusterSettings) -> list[str]:
    p = settings.pki
    kubeconfig = settings.directory / "kube-controller-manager.kubeconfig"
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--client-ca-file={p / 'ca.crt'}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--controllers=*,bootstrap-signer-controller,token-cleaner-controller",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={p / 'sa.key'}",
        f"--root-ca-file={p / 'ca.crt'}",
        f"--cluster-signing-cert-file={p / 'ca.crt'}",
        f"--cluster-signing-key-file={p / 'ca.key'}",
        "--allocate-node-cidrs",
        f"--cluster-cidr={settings.pod_cidr}",
        f"--service-cluster-ip-range={settings.service_cidr}",
    ]


def _scheduler_flags(settings: ClusterSettings) -> list[str]:
    kubeconfig = settings.directory / "kube-scheduler.kubeconfig"
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        f"--client-ca-file={settings.pki / 'ca.crt'}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    ]


def _wait_ready(settings: ClusterSettings, timeout_s: float = 120) -> None:
    context = ssl.create_default_context(cafile=str(settings.pki / "ca.crt"))
    context.load_cert_chain(settings.pki / "admin.crt", settings.pki / "admin.key")
    deadline = time.monotonic() + timeout_s
    reason: object = "no answer"
    while time.monotonic() < deadline:
        for name in ("etcd", "kube-apiserver"):
            if running(settings, name) is None:
                raise SystemExit(
                    f"{name} ended while starting; its last words:\n{tail(settings, name)}"
                )
        try:
            with urllib.request.urlopen(f"{settings.api_url}/readyz", context=context, timeout=5):
                return
        except urllib.error.HTTPError as error:
            reason = error
            error.close()
        except OSError as error:
            reason = error
        time.sleep(0.1)
    raise SystemExit(
        f"the API server at {settings.api_url} was not ready after {timeout_s:.0f} s ({reason}); "
        f"its last words:\n{tail(settings, 'kube-apiserver')}"
    )


def _allow_bootstrap(settings: ClusterSettings, kubectl: Path) -> None:
    manifests = (bootstrap.manifest(settings), _KUBELET_API.read_text())
    subprocess.run(
        [
            str(kubectl),
            f"--kubeconfig={settings.admin_kubeconfig}",
            "apply",
            "--server-side",
            "-f",
            "-",
        ],
        input="---\n".join(manifests).encode(),
        check=True,
        stdout=subprocess.DEVNULL,
    )
