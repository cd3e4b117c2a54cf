"""A kubeconfig file, read so that no key touches a disk and every file it names is known."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from vk_provider.common.errors import Invalid

_FILES = {
    "cluster": ("certificate-authority",),
    "user": ("client-certificate", "client-key", "tokenFile"),
}


class Kubeconfig:
    """The current context of one kubeconfig file.

    `document` is a kubeconfig with just that context, its paths absolute; `files` are the files
    whose change means that credentials changed: the kubeconfig itself and what it names.
    """

    def __init__(self, path: Path, document: dict[str, Any], files: tuple[Path, ...]) -> None:
        self.path = path
        self.document = document
        self.files = files

    @property
    def cluster(self) -> dict[str, Any]:
        """The context's cluster entry: server, certificate-authority…"""
        found: dict[str, Any] = self.document["clusters"][0]["cluster"]
        return found

    @property
    def user(self) -> dict[str, Any]:
        """The context's user entry; {} for anonymous."""
        users = self.document["users"]
        found: dict[str, Any] = users[0]["user"] if users else {}
        return found

    def authority_pem(self) -> bytes | None:
        """Return the cluster's certificate authority, None where the file names none."""
        data = self.cluster.get("certificate-authority-data")
        if data:
            return _decode(self.path, "certificate-authority-data", data)
        file = self.cluster.get("certificate-authority")
        return Path(file).read_bytes() if file else None

    @contextlib.contextmanager
    def with_files(self) -> Iterator[dict[str, Any]]:
        """Yield the document with inline data as files in memory, which end with the block."""
        with contextlib.ExitStack() as files:
            yield {
                **self.document,
                "clusters": [self._materialised(self.document["clusters"][0], "cluster", files)],
                "users": [self._materialised(u, "user", files) for u in self.document["users"]],
            }

    def _materialised(
        self, entry: dict[str, Any], kind: str, files: contextlib.ExitStack
    ) -> dict[str, Any]:
        body = dict(entry[kind])
        for name in _FILES[kind]:
            if data := body.pop(f"{name}-data", None):
                decoded = _decode(self.path, f"{name}-data", data)
                body[name] = files.enter_context(_in_memory(name, decoded))
        return {**entry, kind: body}


def read_kubeconfig(path: str | Path) -> Kubeconfig:
    """Read the file; raises Invalid with the place when it is missing, torn or incomplete."""
    path = Path(path).expanduser().absolute()
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as exc:
        raise Invalid(
            f"The kubeconfig {path} can't be read ({exc.strerror}); name another with --kubeconfig"
        ) from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise Invalid(f"The kubeconfig {path} is not YAML: {exc}") from exc
    if not isinstance(document, dict):
        raise Invalid(f"The kubeconfig {path} holds no mapping; it is empty or cut short")
    context = _named(path, document, "contexts", document.get("current-context"), "context")
    cluster = _named(path, document, "clusters", context["context"].get("cluster"), "cluster")
    if not cluster["cluster"].get("server"):
        raise Invalid(f"The kubeconfig {path} names no server for cluster {cluster['name']!r}")
    users = []
    if context["context"].get("user"):
        users.append(_named(path, document, "users", context["context"]["user"], "user"))
    cluster, *users = (
        _absolute(path, e, k) for e, k in [(cluster, "cluster"), *((u, "user") for u in users)]
    )
    named = [(cluster, "cluster"), *((u, "user") for u in users)]
    files = [Path(e[k][name]) for e, k in named for name in _FILES[k] if e[k].get(name)]
    return Kubeconfig(
        path,
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context["name"],
            "contexts": [context],
            "clusters": [cluster],
            "users": users,
        },
        (path, *files),
    )


def token_config(server: str, authority: Path, token_file: Path) -> Kubeconfig:
    """Return the same for a server, its authority's certificate and a token, each in a file."""
    for file in (authority, token_file):
        if not file.is_file():
            raise Invalid(f"{file} is no file; it is needed to reach {server}")
    cluster = {"server": server, "certificate-authority": str(authority.absolute())}
    return Kubeconfig(
        token_file,
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "token",
            "contexts": [{"name": "token", "context": {"cluster": "token", "user": "token"}}],
            "clusters": [{"name": "token", "cluster": cluster}],
            "users": [{"name": "token", "user": {"tokenFile": str(token_file.absolute())}}],
        },
        (authority.absolute(), token_file.absolute()),
    )


def _named(
    path: Path, document: dict[str, Any], section: str, name: Any, key: str
) -> dict[str, Any]:
    if not name:
        raise Invalid(f"The kubeconfig {path} names no current {key}; set current-context in it")
    for entry in document.get(section) or ():
        if (
            isinstance(entry, dict)
            and entry.get("name") == name
            and isinstance(entry.get(key), dict)
        ):
            return dict(entry)
    raise Invalid(f"The kubeconfig {path} has no {key} named {name!r} under {section}")


def _absolute(path: Path, entry: dict[str, Any], key: str) -> dict[str, Any]:
    body = dict(entry[key])
    for name in _FILES[key]:
        # As clientcmd: inline data wins over a file, relative names start at the kubeconfig.
        if body.get(f"{name}-data"):
            body.pop(name, None)
        elif body.get(name):
            body[name] = str(path.parent / body[name])
    return {**entry, key: body}


def _decode(path: Path, field: str, data: Any) -> bytes:
    try:
        return base64.b64decode(str(data), validate=True)
    except binascii.Error as exc:
        raise Invalid(f"The kubeconfig {path} holds no base64 in {field}: {exc}") from exc


@contextlib.contextmanager
def _in_memory(name: str, data: bytes) -> Iterator[str]:
    """Yield the path of a file that is on no disk and that no other user can open."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        yield f"/proc/self/fd/{descriptor}"
