"""What is remembered of an attachment."""

from __future__ import annotations

from pathlib import Path

import pytest

from vk_provider.agent.network.attachment import Interface, Record, Records
from vk_provider.agent.network.conflist import built_in
from vk_provider.common.errors import FailedPrecondition

SANDBOX = "0" * 32


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    records = Records(tmp_path / "attachments")
    records.open()
    network = built_in(["10.1.0.0/24"], "vkbr0", 1500, tmp_path)
    seen = Interface("0a:00:00:00:00:01", 1500, ["10.1.0.2/24"], [("0.0.0.0/0", "10.1.0.1")])
    record = Record(network, {}, "IgnoreUnknown=1", {"ips": []}, seen)
    assert records.load(SANDBOX) is None
    records.save(SANDBOX, record)
    assert records.load(SANDBOX) == record
    assert records.machine_ids() == {SANDBOX}
    assert seen.to_proto("eth0").routes[0].gateway == "10.1.0.1"
    records.remove(SANDBOX)
    records.remove(SANDBOX)
    assert records.machine_ids() == set()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"conflist":{}}'])
def test_a_damaged_record_is_named(tmp_path: Path, text: str) -> None:
    records = Records(tmp_path)
    (tmp_path / f"{SANDBOX}.json").write_text(text)
    with pytest.raises(FailedPrecondition, match=SANDBOX):
        records.load(SANDBOX)
