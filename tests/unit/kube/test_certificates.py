from __future__ import annotations

import asyncio
import base64
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.api_stub import ApiStub, Stream, status, write_kubeconfig
from tests.support.fake_clock import FakeClock
from vk_provider.common.errors import Invalid, NotFound, PermissionDenied
from vk_provider.kube.certificates import ClientCertificate
from vk_provider.kube.client import KubeClient
from vk_provider.kube.csr import CLIENT, SERVING, request_certificate
from vk_provider.kube.kubeconfig import read_kubeconfig
from vk_provider.kube.pki import (
    Identity,
    forget,
    load_identity,
    load_or_make_key,
    make_identity,
    make_key,
    make_request,
    self_signed,
    store,
)
from vk_provider.kube.serving_certificate import ServingCertificate

CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
DAY_NS = 86400 * 10**9


class Signer:
    """Issues what is asked for."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.key = ec.generate_private_key(ec.SECP256R1())

    def sign(self, request_pem: bytes, days: int = 10) -> bytes:
        request = x509.load_pem_x509_csr(request_pem)
        now = datetime.fromtimestamp(self.clock.now_ns() / 1e9, UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")]))
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + timedelta(days=days))
        )
        for extension in request.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        certificate = builder.sign(self.key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM)

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """The request as approved and issued."""
        chain = self.sign(base64.b64decode(body["spec"]["request"]))
        return csr(conditions=[{"type": "Approved"}], certificate=base64.b64encode(chain).decode())


def csr(**outcome: Any) -> dict[str, Any]:
    return {"metadata": {"name": "r", "resourceVersion": "3"}, "spec": {}, "status": outcome}


@pytest.fixture
def signer(clock: FakeClock) -> Signer:
    return Signer(clock)


async def ask(client: KubeClient, clock: FakeClock, folder: Path, **options: Any) -> Identity:
    defaults: dict[str, Any] = {"signer": SERVING, "node_name": "n", "sans": ("192.0.2.1", "n")}
    return await request_certificate(
        client, clock, pending_key=folder / "pending.key", **{**defaults, **options}
    )


async def test_a_request_waits_for_its_approval(
    api: ApiStub, client: KubeClient, clock: FakeClock, tmp_path: Path, signer: Signer
) -> None:
    api.on("POST", CSRS, csr())
    key = load_or_make_key(tmp_path / "pending.key")
    pem, _ = make_request(key, "n", ["192.0.2.1", "n"])
    issued = signer.answer({"spec": {"request": base64.b64encode(pem).decode()}})
    approved = csr(conditions=[{"type": "Approved"}])
    events = [{"type": "MODIFIED", "object": o} for o in (approved, issued)]
    api.on("WATCH", CSRS, Stream(events, asyncio.Event()))
    identity = await ask(client, clock, tmp_path)
    assert identity.common_name == "system:node:n"
    assert identity.sans == {"192.0.2.1", "n"}
    body = api.of("POST", CSRS)[0].body
    assert body["spec"]["usages"] == ["digital signature", "server auth"]
    assert body["spec"]["signerName"] == "kubernetes.io/kubelet-serving"
    subject = x509.load_pem_x509_csr(base64.b64decode(body["spec"]["request"])).subject
    assert subject.rfc4514_string() == "CN=system:node:n,O=system:nodes"


async def test_after_a_restart_the_same_request_is_found_again(
    api: ApiStub, client: KubeClient, clock: FakeClock, tmp_path: Path
) -> None:
    names = set()
    denied = csr(conditions=[{"type": "Denied", "reason": "No", "message": "not you"}])
    for _ in range(2):
        key = load_or_make_key(tmp_path / "pending.key")
        names.add(make_request(key, "n", ["n"])[1])
    assert len(names) == 1
    api.on("POST", CSRS, status(409, "AlreadyExists"))
    api.on("GET", f"{CSRS}/vk-client-{names.pop()}", denied)
    with pytest.raises(PermissionDenied, match="was denied: No not you"):
        await ask(client, clock, tmp_path, signer=CLIENT, sans=("n",))
    assert not (tmp_path / "pending.key").exists()


async def test_a_request_that_is_deleted_is_told(
    api: ApiStub, client: KubeClient, clock: FakeClock, tmp_path: Path
) -> None:
    api.on("POST", CSRS, csr())
    api.on("WATCH", CSRS, Stream([{"type": "DELETED", "object": csr()}]))
    with pytest.raises(NotFound, match="was deleted"):
        await ask(client, clock, tmp_path)


async def test_bootstrap_makes_a_kubeconfig_that_works(
    api: ApiStub, client: KubeClient, clock: FakeClock, tmp_path: Path, signer: Signer
) -> None:
    folder = tmp_path / "pki"
    certificate = ClientCertificate(folder, "n", clock)
    assert not certificate.usable()
    pem, _ = make_request(load_or_make_key(folder / "client-pending.key"), "n", ())
    request = {"spec": {"request": base64.b64encode(pem).decode()}}
    api.on("POST", CSRS, signer.answer(request))
    await certificate.bootstrap(client)
    assert certificate.usable()
    assert not ClientCertificate(folder, "other", clock).usable()
    assert not (folder / "client-pending.key").exists()
    certificate.write_kubeconfig(
        read_kubeconfig(write_kubeconfig(tmp_path / "bootstrap", "https://x"))
    )
    config = read_kubeconfig(certificate.kubeconfig)
    assert config.cluster["server"] == "https://x"
    assert config.user["client-certificate"] == str(folder / "client-current.pem")
    assert {f.stat().st_mode & 0o777 for f in folder.iterdir()} == {0o600}
    await clock.advance(11 * 86400)
    assert not certificate.usable()


async def test_a_certificate_is_renewed_while_the_client_runs(
    api: ApiStub, client: KubeClient, clock: FakeClock, tmp_path: Path, signer: Signer
) -> None:
    certificate = ClientCertificate(tmp_path, "n", clock)
    key = make_key()
    pem, _ = make_request(key, "n", ())
    store(tmp_path / "client-current.pem", make_identity(signer.sign(pem), key).pem)
    pending = load_or_make_key(tmp_path / "client-pending.key")
    pem, _ = make_request(pending, "n", ())
    request = {"spec": {"request": base64.b64encode(pem).decode()}}
    api.on("POST", CSRS, status(503, "ServiceUnavailable"), signer.answer(request))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(certificate.run(client))
        await clock.advance(6.9 * 86400)
        assert not api.of("POST", CSRS)
        await clock.advance(2.2 * 86400)
        await api.count("POST", CSRS, 1)
        await clock.wait_for_sleeper()
        await clock.advance(5)
        await api.count("POST", CSRS, 2)
        await clock.wait_for_sleeper()  # until the next renewal
        task.cancel()
    renewed = load_identity(tmp_path / "client-current.pem")
    assert renewed is not None
    assert renewed.leaf.public_key() == pending.public_key()


def test_certificates_are_renewed_late_in_life_but_not_at_its_end(
    clock: FakeClock, signer: Signer
) -> None:
    key = make_key()
    pem, _ = make_request(key, "n", ())
    identity = make_identity(signer.sign(pem, days=10), key)
    ages = [(identity.rotate_at_ns(j) - clock.now_ns()) / DAY_NS for j in (0.0, 0.5, 1.0)]
    assert ages == pytest.approx([7, 8, 9])


def test_a_certificate_for_another_key_is_refused(signer: Signer) -> None:
    pem, _ = make_request(make_key(), "n", ())
    with pytest.raises(Invalid, match="another key"):
        make_identity(signer.sign(pem), make_key())
    with pytest.raises(Invalid, match="no PEM certificate"):
        make_identity(b"nonsense", make_key())


def test_a_torn_file_counts_as_none(tmp_path: Path, clock: FakeClock) -> None:
    identity = self_signed("n", ["n"], clock.now_ns())
    file = tmp_path / "a.pem"
    for length in (0, 10, len(identity.pem) // 2, len(identity.pem) - 40):
        file.write_bytes(identity.pem[:length])
        assert load_identity(file) is None
    store(file, identity.pem)
    assert load_identity(file) == identity


async def test_a_self_signed_certificate_serves_until_one_is_issued(
    api: ApiStub, client: KubeClient, clock: FakeClock, tmp_path: Path, signer: Signer
) -> None:
    names = ["n", "192.0.2.1"]
    serving = ServingCertificate(client, tmp_path, "n", names, clock)
    presented = await _presented(serving.ssl_context)
    assert presented.issuer == presented.subject
    pem, _ = make_request(load_or_make_key(tmp_path / "serving-pending.key"), "n", sorted(names))
    request = {"spec": {"request": base64.b64encode(pem).decode()}}
    api.on("POST", CSRS, signer.answer(request))
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(serving.run())
        await clock.wait_for_sleeper()  # until its renewal
        task.cancel()
    presented = await _presented(serving.ssl_context)
    assert presented.issuer.rfc4514_string() == "CN=ca"
    again = ServingCertificate(client, tmp_path, "n", names, clock)
    assert (await _presented(again.ssl_context)).issuer.rfc4514_string() == "CN=ca"


async def test_new_addresses_need_a_new_certificate(
    api: ApiStub, client: KubeClient, clock: FakeClock, tmp_path: Path
) -> None:
    api.on("POST", CSRS, csr())
    api.on("WATCH", CSRS, Stream([], asyncio.Event()))
    serving = ServingCertificate(client, tmp_path, "n", ["n"], clock)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(serving.run())
        await api.count("WATCH", CSRS, 1)
        serving.set_names(["n", "192.0.2.5"])
        first, second = await api.count("POST", CSRS, 2)
        task.cancel()
    assert first.body["metadata"]["name"] != second.body["metadata"]["name"]


async def _presented(context: ssl.SSLContext) -> x509.Certificate:
    """Return the certificate that a new handshake with the context shows."""

    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    async with await asyncio.start_server(close, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
    return x509.load_der_x509_certificate(found)


def test_a_folder_of_certificates_is_forgotten_whole(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    for name in ("client-current.pem", "kubeconfig"):
        store(folder / name, b"secret")
    (folder / ".serving-current.pem.new").write_bytes(b"half written")
    forget(folder)
    assert not folder.exists()
    forget(folder)
