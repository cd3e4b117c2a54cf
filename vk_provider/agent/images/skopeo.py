"""Runs skopeo: the only one here that talks to registries."""

from __future__ import annotations

import base64
import os
import re
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import orjson

from vk_provider._pb.sandbox_pb2 import RegistryAuth
from vk_provider.agent.images.references import Reference
from vk_provider.agent.images.settings import ImageSettings
from vk_provider.agent.tools import PIPE, tool
from vk_provider.common.errors import (
    Exhausted,
    Invalid,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    VkError,
)

_MAX_MANIFEST_BYTES = 4 * 1024 * 1024
_MAX_WORDS = 2000
_PASSED_ON = re.compile(r"(?i)(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)")
_FATAL = re.compile(r'level=fatal msg="((?:[^"\\]|\\.)*)"')
# What skopeo says before it comes to the point; the caller says it better.
_PREAMBLE = re.compile(
    r'^(?:(?:Error )?(?:parsing image name|initializing source) "?docker://\S+: )+'
)
_POLICY = Path("/etc/containers/policy.json")

# The registry's words → the kind of error; the first that fits.
_KINDS: tuple[tuple[re.Pattern[str], type[VkError]], ...] = (
    (re.compile(r"no space left on device|disk quota exceeded"), Exhausted),
    (re.compile(r"toomanyrequests|too many requests|\b429\b"), Unavailable),
    (re.compile(r"manifest unknown|name unknown|repository name not known|not found"), NotFound),
    (
        re.compile(r"unauthorized|authentication required|invalid username/password|\b401\b"),
        Unauthenticated,
    ),
    (re.compile(r"denied|forbidden|blocked|\b403\b|rejected by policy"), PermissionDenied),
    (re.compile(r"invalid reference|unsupported manifest|unsupported schema"), Invalid),
)
# Words for a registry that could not be reached, or that fails itself.
_AWAY = re.compile(
    r"connection refused|connection reset|no such host|server misbehaving|no route to host|"
    r"network is unreachable|i/o timeout|handshake timeout|deadline exceeded|"
    r"\b50[0234]\b|service unavailable|bad gateway|internal server error"
)
_REGISTRY_AWAY = "RegistryUnavailable: "  # CRI's word for it: callers look for the prefix


class Skopeo:
    """skopeo with the operator's settings."""

    def __init__(self, settings: ImageSettings) -> None:
        self._settings = settings

    async def raw_manifest(self, name: str, auth: RegistryAuth | None, domain: str) -> bytes:
        """Return the manifest that a registry has under a full name. Raises by kind."""
        with _login(auth, domain) as login:
            options = ["--no-creds"] if login is None else ["--authfile", _path_of(login)]
            arguments = ["inspect", "--raw", *options, f"docker://{name}"]
            output = bytearray()
            async with aclosing(self._run(arguments, name, login, Path("/"))) as blocks:
                async for block in blocks:
                    output += block
                    if len(output) > _MAX_MANIFEST_BYTES:
                        raise Invalid(f"the manifest of {name} is larger than 4 MiB")
        return bytes(output)

    async def copy(
        self,
        reference: Reference,
        digest: str,
        layout: Path,
        auth: RegistryAuth | None,
    ) -> None:
        """Fetch an image into a new OCI layout, tagged `image`. Raises by kind."""
        name = reference.at(digest)
        with _login(auth, reference.domain) as login:
            options = ["--src-no-creds"]
            if login is not None:
                options = ["--src-authfile", _path_of(login)]
            arguments = ["copy", "--quiet", "--remove-signatures", *options]
            arguments += [f"docker://{name}", f"oci:{layout}:image"]
            async with aclosing(self._run(arguments, name, login, layout.parent)) as steps:
                async for _ in steps:
                    continue

    async def _run(
        self, arguments: list[str], image: str, login: int | None, temporary: Path
    ) -> AsyncGenerator[bytes, None]:
        """Yield what skopeo writes to its standard output; raise what it complains of."""
        command = ["skopeo", "--override-os", "linux", "--override-arch", "amd64"]
        command += ["--tmpdir", str(temporary)]
        if not _POLICY.exists():
            command.append("--insecure-policy")
        if self._settings.registries_conf is not None:
            command += ["--registries-conf", str(self._settings.registries_conf)]
        environment = {
            name: value for name, value in os.environ.items() if _PASSED_ON.fullmatch(name)
        }
        environment["HOME"] = "/nonexistent"  # whose logins these are not
        with tempfile.TemporaryFile() as complaints:
            async with tool(
                [*command, *arguments],
                package="skopeo",
                stdout=PIPE,
                stderr=complaints,
                env=environment,
                pass_fds=() if login is None else (login,),
            ) as process:
                if process.stdout is not None:
                    while block := await process.stdout.read(64 * 1024):
                        yield block
                code = await process.wait()
            if code != 0:
                size = complaints.seek(0, os.SEEK_END)
                complaints.seek(max(0, size - 64 * 1024))
                raise explain(image, complaints.read().decode(errors="replace"), code)


def _path_of(fd: int) -> str:
    """Name a descriptor for a program that inherits it."""
    return f"/proc/self/fd/{fd}"


@contextmanager
def _login(auth: RegistryAuth | None, domain: str) -> Iterator[int | None]:
    """Write credentials where skopeo can read them and nobody else: into memory without a name."""
    content = auth_file(auth, domain)
    if content is None:
        yield None
        return
    fd = os.memfd_create("registry-auth", os.MFD_CLOEXEC)
    try:
        os.write(fd, content)
        yield fd
    finally:
        os.close(fd)


def auth_file(auth: RegistryAuth | None, domain: str) -> bytes | None:
    """Return containers-auth.json(5) for one registry; None for anonymous access.

    Raises Invalid for credentials that skopeo could only be given on its command line.
    """
    if auth is None or not (
        auth.username or auth.password or auth.identity_token or auth.registry_token
    ):
        return None
    if auth.registry_token:
        raise Invalid(
            f"the pull secret for {domain} holds a registry token, which is not supported: "
            "use a user name and password, or an identity token"
        )
    pair = base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()
    entry = {"auth": pair}
    if auth.identity_token:
        entry["identitytoken"] = auth.identity_token
    return orjson.dumps({"auths": {domain: entry}})


def explain(image: str, complaint: str, code: int) -> VkError:
    """Return the error for skopeo's failure, of the kind that its words tell."""
    fatal = _FATAL.findall(complaint)
    words = fatal[-1].replace('\\"', '"') if fatal else complaint.strip()
    words = (
        _PREAMBLE.sub("", words)[-_MAX_WORDS:] or f"skopeo ended with code {code} and said nothing"
    )
    lowered = words.lower()
    for pattern, kind in _KINDS:
        if pattern.search(lowered):
            return kind(f"failed to pull image {image!r}: {words}")
    prefix = _REGISTRY_AWAY if _AWAY.search(lowered) else ""
    return Unavailable(f"{prefix}failed to pull image {image!r}: {words}")
