"""The certificates, keys and kubeconfigs of a local cluster."""

from __future__ import annotations

import datetime
import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from hack.devcluster.settings import ClusterSettings

_VALID = datetime.timedelta(days=365)


@dataclass(frozen=True)
class Authority:
    """A certificate authority whose files are NAME.crt and NAME.key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make(settings: ClusterSettings) -> None:
    """Write what the control plane needs below settings.pki; does nothing when it is there."""
    pki = settings.pki
    if (pki / ".complete").exists():
        return
    pki.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca = _authority(pki, "ca", "vk-provider local cluster")
    front = _authority(pki, "front-proxy-ca", "vk-provider front proxy")
    local = ["localhost", "127.0.0.1"]
    names = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    _leaf(
        pki,
        ca,
        "apiserver",
        "kube-apiserver",
        sans=[*names, *local, settings.api_address, settings.service_api_address],
    )
    _leaf(pki, ca, "etcd", "etcd", sans=local)
    _leaf(
        pki,
        ca,
        "apiserver-kubelet-client",
        "kube-apiserver-kubelet-client",
        ["kubeadm:cluster-admins"],
    )
    _leaf(pki, front, "front-proxy-client", "front-proxy-client")
    _leaf(pki, ca, "admin", "vk-admin", ["system:masters"])
    for user in ("kube-controller-manager", "kube-scheduler", "kube-proxy"):
        _leaf(pki, ca, user, f"system:{user}")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write(pki / "sa.key", _pem(key))
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write(pki / "sa.pub", public)
    (pki / ".complete").touch()


def make_user(
    settings: ClusterSettings,
    name: str,
    user: str,
    groups: Iterable[str] = (),
    valid: datetime.timedelta = _VALID,
) -> None:
    """Write NAME.crt and NAME.key for a further user, known to the API server as `user`."""
    key = serialization.load_pem_private_key((settings.pki / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    certificate = x509.load_pem_x509_certificate((settings.pki / "ca.crt").read_bytes())
    _leaf(settings.pki, Authority(certificate, key), name, user, groups, valid=valid)


def write_kubeconfig(settings: ClusterSettings, path: Path, user: str) -> None:
    """Write a kubeconfig that speaks as the holder of USER.crt."""
    auth = {
        "client-certificate": str(settings.pki / f"{user}.crt"),
        "client-key": str(settings.pki / f"{user}.key"),
    }
    write_kubeconfig_with(path, user, cluster_entry(settings), auth)


def cluster_entry(settings: ClusterSettings) -> dict[str, str]:
    """Return a kubeconfig's entry of the local cluster."""
    authority = str(settings.pki / "ca.crt")
    return {"server": settings.api_url, "certificate-authority": authority}


def write_kubeconfig_with(
    path: Path, user: str, cluster: dict[str, str], auth: dict[str, str]
) -> None:
    """Write a kubeconfig with the given cluster and user (a token, certificate paths …)."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": user, "user": auth}],
        "contexts": [{"name": user, "context": {"cluster": "local", "user": user}}],
        "current-context": user,
    }
    _write(path, json.dumps(document, indent=1).encode())


def _authority(pki: Path, name: str, common_name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _store(pki, name, key, certificate)
    return Authority(certificate, key)


def _leaf(
    pki: Path,
    issuer: Authority,
    name: str,
    common_name: str,
    groups: Iterable[str] = (),
    sans: Iterable[str] = (),
    valid: datetime.timedelta = _VALID,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + valid)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage(
                [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
            ),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    )
    names = [_general_name(san) for san in sans]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    _store(pki, name, key, builder.sign(issuer.key, hashes.SHA256()))


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(san: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        return x509.DNSName(san)


def _store(
    pki: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate
) -> None:
    _write(pki / f"{name}.key", _pem(key))
    _write(pki / f"{name}.crt", certificate.public_bytes(serialization.Encoding.PEM))


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(data)
