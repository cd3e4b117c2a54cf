from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import orjson
import pytest
import structlog

from vk_provider.common.logging import get_logger, set_up


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def test_logs_are_json_on_stderr_with_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    set_up("info")
    log = get_logger("a.room")
    log.debug("not shown")
    log.info("shown", pod="p")
    (line,) = out.getvalue().splitlines()
    entry = orjson.loads(line)
    assert (entry["room"], entry["event"], entry["pod"]) == ("a.room", "shown", "p")
    assert entry["level"] == "info"
