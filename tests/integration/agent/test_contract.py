"""The runtime's contract, kept by a real agent with real microVMs."""

from __future__ import annotations

import pytest

from tests.contract.conftest import Subject
from tests.contract.test_runtime_contract import *  # noqa: F403
from tests.integration.agent.conftest import Pod

pytestmark = pytest.mark.vm


@pytest.fixture
def subject(pod: Pod) -> Subject:
    return Subject(pod.client, pod.agent.busybox, pod.uid)
