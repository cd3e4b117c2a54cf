"""Keys, requests and certificates of the node: made, checked, and kept in files of mode 0600."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vk_provider.common.errors import Invalid

_SELF_SIGNED_DAYS = 365


@dataclass(frozen=True)
class Identity:
    """A certificate chain with its key, as one PEM (what `ssl` loads and aiohttp presents)."""

    pem: bytes
    leaf: x509.Certificate

    @property
    def common_name(self) -> str:
        names = self.leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else ""

    @property
    def sans(self) -> frozenset[str]:
        """DNS names and addresses that it speaks for."""
        try:
            extension = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        except x509.ExtensionNotFound:
            return frozenset()
        names = extension.value.get_values_for_type(x509.DNSName)
        addresses = extension.value.get_values_for_type(x509.IPAddress)
        return frozenset([*names, *map(str, addresses)])

    @property
    def not_before_ns(self) -> int:
        return _ns(self.leaf.not_valid_before_utc)

    @property
    def not_after_ns(self) -> int:
        return _ns(self.leaf.not_valid_after_utc)

    def rotate_at_ns(self, jitter: float) -> int:
        """Return when to renew it: 70 to 90 % of its life (client-go), by `jitter` of 0 to 1."""
        life = self.not_after_ns - self.not_before_ns
        return self.not_before_ns + round(life * (0.7 + 0.2 * jitter))


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the key as unencrypted PKCS #8."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def make_request(
    key: ec.EllipticCurvePrivateKey, node_name: str, sans: Sequence[str]
) -> tuple[bytes, str]:
    """Return a CSR for `system:node:NAME` in PEM, and a digest of what it asks for."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_subject(node_name))
    if sans:
        builder = builder.add_extension(_san(sans), critical=False)
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    digest = hashlib.sha256(public + "\0".join([node_name, *sorted(sans)]).encode()).hexdigest()
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return pem, digest[:32]


def make_identity(chain_pem: bytes, key: ec.EllipticCurvePrivateKey) -> Identity:
    """Join an issued chain with its key; raises Invalid when they don't belong together."""
    try:
        leaf = x509.load_pem_x509_certificates(chain_pem)[0]
    except (ValueError, IndexError) as exc:
        raise Invalid(f"The issued certificate is no PEM certificate: {exc}") from exc
    if leaf.public_key() != key.public_key():
        raise Invalid("The issued certificate is for another key than the one it was asked for")
    return Identity(chain_pem.rstrip() + b"\n" + key_pem(key), leaf)


def self_signed(node_name: str, sans: Sequence[str], now_ns: int) -> Identity:
    """Return a certificate that speaks for itself, until a real one is issued."""
    key = make_key()
    now = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_subject(node_name))
        .issuer_name(_subject(node_name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=_SELF_SIGNED_DAYS))
        .add_extension(_san(sans or [node_name]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return make_identity(certificate.public_bytes(serialization.Encoding.PEM), key)


def load_identity(file: Path) -> Identity | None:
    """Return what is in the file, None when there is none or it is torn."""
    try:
        pem = file.read_bytes()
        leaf = x509.load_pem_x509_certificates(pem)[0]
        key = serialization.load_pem_private_key(pem, password=None)
    except (FileNotFoundError, ValueError, IndexError):
        return None
    return Identity(pem, leaf) if key.public_key() == leaf.public_key() else None


def load_or_make_key(file: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key in the file; a missing or torn one is made anew, and kept."""
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), password=None)
        if isinstance(key, ec.EllipticCurvePrivateKey):
            return key
    except (FileNotFoundError, ValueError):
        pass
    made = make_key()
    store(file, key_pem(made))
    return made


def store(file: Path, data: bytes) -> None:
    """Replace a file that holds a key: whole or not at all, readable by its owner alone."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = file.with_name(f".{file.name}.new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
    new.replace(file)


def forget(directory: Path) -> None:
    """Remove every certificate, key and kubeconfig in the folder that `store` filled."""
    if directory.is_dir():
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()


def server_context(file: Path, client_ca_pem: bytes | None) -> ssl.SSLContext:
    """Return a context that presents the identity in `file`, and asks for client certificates.

    A client without one is let in: who it is, is for the request's handler to find out. Loading
    another identity into the same context later takes effect with the next handshake.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(file)
    if client_ca_pem is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=client_ca_pem.decode("ascii"))
    return context


def _subject(node_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:nodes"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"system:node:{node_name}"),
        ]
    )


def _san(sans: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([_general_name(name) for name in sorted(sans)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _ns(moment: datetime) -> int:
    return round(moment.timestamp()) * 1_000_000_000
