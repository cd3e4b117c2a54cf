"""hack/up's node is in one cluster at a time, and none of what it was in is mixed with another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from hack.devcluster import joined
from hack.devcluster.settings import ClusterSettings, default_settings


@pytest.fixture
def settings(tmp_path: Path) -> ClusterSettings:
    return replace(default_settings(), directory=tmp_path)


def test_a_fresh_host_may_go_anywhere(settings: ClusterSettings) -> None:
    joined.check_one_cluster(settings, None)
    joined.check_one_cluster(settings, Path("/a"))
    assert joined.recall(settings) == settings


def test_a_host_that_joined_stays_there(settings: ClusterSettings) -> None:
    (settings.directory / "joined").write_text("/bin/kubectl\n/a")
    joined.check_one_cluster(settings, Path("/a"))
    assert not joined.recall(settings).own_control_plane
    for other in (Path("/b"), None):
        with pytest.raises(SystemExit, match="is in the cluster of /a already"):
            joined.check_one_cluster(settings, other)


def test_a_local_cluster_joins_no_other(settings: ClusterSettings) -> None:
    settings.pki.mkdir()
    joined.check_one_cluster(settings, None)
    with pytest.raises(SystemExit, match="is in the local cluster already"):
        joined.check_one_cluster(settings, Path("/a"))


def test_what_was_joined_and_is_gone_holds_nothing_up(settings: ClusterSettings) -> None:
    (settings.directory / "joined").write_text("/bin/false\n/a")
    told: list[str] = []
    joined.end_demo(settings, told.append)
    joined.retire(settings, told.append)
    assert sum("still has it" in words for words in told) == 3
