from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest

from vk_provider.common.errors import Invalid
from vk_provider.kube.kubeconfig import read_kubeconfig, token_config


def document(**user: Any) -> dict[str, Any]:
    return {
        "current-context": "c",
        "contexts": [
            {"name": "other", "context": {"cluster": "other"}},
            {"name": "c", "context": {"cluster": "k", "user": "u"}},
        ],
        "clusters": [
            {"name": "k", "cluster": {"server": "https://x", "certificate-authority": "ca.crt"}}
        ],
        "users": [{"name": "u", "user": user}],
    }


def write(path: Path, content: Any) -> Path:
    path.write_bytes(orjson.dumps(content))
    return path


def test_relative_names_start_at_the_kubeconfig_and_are_watched(tmp_path: Path) -> None:
    path = write(
        tmp_path / "config", document(**{"client-certificate": "a.crt", "client-key": "/k"})
    )
    (tmp_path / "ca.crt").write_bytes(b"CA")
    config = read_kubeconfig(path)
    assert config.user == {"client-certificate": str(tmp_path / "a.crt"), "client-key": "/k"}
    assert config.files == (path, tmp_path / "ca.crt", tmp_path / "a.crt", Path("/k"))
    assert config.authority_pem() == b"CA"


def test_inline_keys_are_files_in_memory_only_while_they_are_read(tmp_path: Path) -> None:
    key = base64.b64encode(b"secret").decode()
    path = write(tmp_path / "config", document(**{"client-key-data": key}))
    with read_kubeconfig(path).with_files() as materialised:
        file = Path(materialised["users"][0]["user"]["client-key"])
        assert file.read_bytes() == b"secret"
        assert "memfd:" in str(file.readlink())
    assert not file.exists()


def test_a_context_without_user_is_anonymous(tmp_path: Path) -> None:
    content = document()
    content["contexts"][1]["context"].pop("user")
    assert read_kubeconfig(write(tmp_path / "config", content)).user == {}


def broken(**changes: Any) -> dict[str, Any]:
    return {**document(), **changes}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "holds no mapping"),
        (broken(**{"current-context": None}), "names no current context"),
        (broken(**{"current-context": "gone"}), "no context named 'gone' under contexts"),
        (broken(clusters=[]), "no cluster named 'k' under clusters"),
        (broken(clusters=[{"name": "k", "cluster": {}}]), "names no server"),
        (broken(users=[]), "no user named 'u' under users"),
        (document(**{"client-key-data": "%%%"}), "no base64 in client-key-data"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, content: Any, words: str) -> None:
    path = write(tmp_path / "config", content)
    with pytest.raises(Invalid, match=words), read_kubeconfig(path).with_files():
        pass


def test_a_missing_file_and_a_torn_one_are_said(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="can't be read"):
        read_kubeconfig(tmp_path / "none")
    (tmp_path / "torn").write_text("a: [1,")
    with pytest.raises(Invalid, match="is not YAML"):
        read_kubeconfig(tmp_path / "torn")


def test_a_token_file_makes_a_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "ca").write_bytes(b"CA")
    (tmp_path / "token").write_text("abc")
    config = token_config("https://x", tmp_path / "ca", tmp_path / "token")
    assert config.user == {"tokenFile": str(tmp_path / "token")}
    assert config.authority_pem() == b"CA"
    with pytest.raises(Invalid, match="is no file"):
        token_config("https://x", tmp_path / "ca", tmp_path / "none")
