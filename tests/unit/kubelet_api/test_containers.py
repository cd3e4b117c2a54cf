from typing import Any

import pytest

from vk_provider.common.errors import FailedPrecondition
from vk_provider.kubelet_api.containers import container_spec, is_running, log_container_id


def pod(state: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web"},
        "spec": {
            "containers": [{"name": "app"}],
            "initContainers": [{"name": "init"}],
            "ephemeralContainers": [{"name": "debug"}],
        },
        "status": {
            "containerStatuses": [{"name": "app", "state": state, **status}],
            "ephemeralContainerStatuses": [
                {"name": "debug", "state": {"running": {}}, "containerID": "vk://dbg"}
            ],
        },
    }


ENDED = {"terminated": {"exitCode": 1, "containerID": "vk://ended"}}
LAST = {"terminated": {"exitCode": 1, "containerID": "vk://last"}}
UNMADE = {"terminated": {"exitCode": 137, "reason": "ContainerStatusUnknown"}}


class TestWhoseLog:
    """The cases of the kubelet's validateContainerLogStatus."""

    def test_a_running_container_has_its_own(self) -> None:
        assert log_container_id(pod({"running": {}}, containerID="vk://now"), "app", False) == "now"

    def test_kinds_are_all_found(self) -> None:
        assert log_container_id(pod({}), "debug", False) == "dbg"

    def test_the_one_before(self) -> None:
        assert log_container_id(pod({"running": {}}, lastState=LAST), "app", True) == "last"

    def test_an_ended_container_has_its_own(self) -> None:
        assert log_container_id(pod(ENDED, lastState=LAST), "app", False) == "ended"

    def test_where_the_end_has_no_run_the_one_before_serves(self) -> None:
        assert log_container_id(pod(UNMADE, lastState=LAST), "app", False) == "last"

    def test_while_waiting_to_restart_the_one_before_serves(self) -> None:
        waiting = {"waiting": {"reason": "CrashLoopBackOff"}}
        assert log_container_id(pod(waiting, lastState=LAST), "app", False) == "last"

    @pytest.mark.parametrize(
        ("state", "previous", "words"),
        [
            ({"running": {}}, True, 'previous terminated container "app" in pod "web" not found'),
            (UNMADE, False, 'container "app" in pod "web" is terminated'),
            (
                {"waiting": {"reason": "ErrImagePull"}},
                False,
                'container "app" in pod "web" is waiting to start: image can\'t be pulled',
            ),
            (
                {"waiting": {"reason": "ImagePullBackOff"}},
                False,
                "is waiting to start: trying and failing to pull image",
            ),
            (
                {"waiting": {"reason": "ContainerCreating"}},
                False,
                "is waiting to start: ContainerCreating",
            ),
            ({}, False, "is waiting to start - no logs yet"),
        ],
    )
    def test_where_there_is_none_the_words_are_the_kubelets(
        self, state: dict[str, Any], previous: bool, words: str
    ) -> None:
        with pytest.raises(FailedPrecondition) as caught:
            log_container_id(pod(state), "app", previous)
        assert words in str(caught.value)

    def test_without_a_status_it_is_not_available(self) -> None:
        with pytest.raises(FailedPrecondition, match="is not available"):
            log_container_id(pod({}), "init", False)


def test_specs_of_all_kinds_are_found() -> None:
    for name in ("app", "init", "debug"):
        assert container_spec(pod({}), name) == {"name": name}
    assert container_spec(pod({}), "other") is None


def test_running_is_what_the_status_says() -> None:
    assert is_running(pod({"running": {}}), "app")
    assert not is_running(pod(ENDED), "app")
    assert not is_running(pod({}), "init")
