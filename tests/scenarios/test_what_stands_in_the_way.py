"""Images, configuration, volumes and admission that fail, and what the pod's owner sees."""

from __future__ import annotations

import base64
import json

from tests.support.pod_world import container, pod, pod_world
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.errors import Exhausted, Internal, NotFound, Unavailable
from vk_provider.runtime.fake_records import FakeImage


async def test_an_image_that_does_not_exist_is_backed_off() -> None:
    async with pod_world() as world:
        await world.create(pod("web", container(image="registry.test/none:1")))
        waiting = world.container_status()["state"]["waiting"]
        assert waiting["reason"] == "ErrImagePull"
        await world.advance(3)
        waiting = world.container_status()["state"]["waiting"]
        assert waiting["reason"] == "ImagePullBackOff"
        assert waiting["message"].startswith(
            'Back-off pulling image "registry.test/none:1": ErrImagePull: '
        )
        assert world.status()["phase"] == "Pending"
        assert world.condition("PodReadyToStartContainers") == "True"
        reasons = world.api.reasons()
        assert "Pulling" in reasons and "Failed" in reasons and "BackOff" in reasons
        world.runtime.registry["registry.test/none:1"] = FakeImage()
        await world.advance(10)
        assert world.status()["phase"] == "Running"


async def test_a_registry_that_is_away_is_told() -> None:
    async with pod_world() as world:
        away = Unavailable("RegistryUnavailable: failed to pull image: connection refused")
        world.runtime.fail("pull_image", away)
        await world.create(pod())
        assert world.container_status()["state"]["waiting"] == {
            "reason": "RegistryUnavailable",
            "message": "image pull failed for registry.test/app:1 because the registry is "
            "unavailable: failed to pull image: connection refused",
        }
        await world.advance(3)
        assert world.container_status()["state"]["waiting"]["reason"] == "ImagePullBackOff"
        await world.advance(10)
        assert world.status()["phase"] == "Running"


async def test_a_name_that_cannot_be_parsed_is_never_pulled() -> None:
    async with pod_world() as world:
        await world.create(pod("web", container(image="Not A Name")))
        waiting = world.container_status()["state"]["waiting"]
        assert waiting["reason"] == "InvalidImageName"
        assert "pull_image" not in {call for call, _ in world.runtime.calls}


async def test_never_pulls_nothing() -> None:
    async with pod_world() as world:
        await world.create(pod("web", container(imagePullPolicy="Never")))
        assert world.container_status()["state"]["waiting"]["reason"] == "ErrImageNeverPull"


async def test_a_present_image_is_not_pulled_again_unless_always() -> None:
    async with pod_world() as world:
        await world.create(pod("one", uid="1"))
        await world.create(pod("two", uid="2"))
        await world.create(pod("three", container(imagePullPolicy="Always"), uid="3"))
        assert [c for c, _ in world.runtime.calls].count("pull_image") == 2
        assert any("already present on machine" in e.message for e in world.api.events)


async def test_pull_secrets_are_used_and_missing_ones_told() -> None:
    async with pod_world() as world:
        seen = []
        pull = world.runtime.pull_image

        def spy(image, auth=None):  # type: ignore[no-untyped-def]
            seen.append(auth)
            return pull(image, auth)

        world.runtime.pull_image = spy  # type: ignore[method-assign]
        auths = {"auths": {"registry.test": {"username": "u", "password": "p"}}}
        world.api.secrets["default", "creds"] = {
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64.b64encode(json.dumps(auths).encode()).decode()},
        }
        await world.create(pod(imagePullSecrets=[{"name": "creds"}, {"name": "none"}]))
        assert [auth.username for auth in seen if auth] == ["u"]
        assert "FailedToRetrieveImagePullSecret" in world.api.reasons()
        assert not any(word == "p" for e in world.api.events for word in e.message.split())


async def test_a_missing_config_map_key_waits_for_it() -> None:
    env = [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "a"}}}]
    async with pod_world() as world:
        await world.create(pod("web", container(env=env)))
        waiting = world.container_status()["state"]["waiting"]
        assert waiting == {
            "reason": "CreateContainerConfigError",
            "message": 'configmap "late" not found',
        }
        world.api.config_maps["default", "late"] = {"data": {"a": "1"}}
        world.manager.object_changed("ConfigMap", "default", "late")
        await world.settle()
        assert world.status()["phase"] == "Running"
        (made,) = world.runtime.containers.values()
        assert {v.name: v.value for v in made.config.env}["A"] == "1"


async def test_a_volume_that_cannot_be_filled_is_told_and_tried_again() -> None:
    volumes = [{"name": "v", "secret": {"secretName": "late"}}]
    async with pod_world() as world:
        await world.create(pod(volumes=volumes))
        assert world.container_status()["state"]["waiting"]["reason"] == "ContainerCreating"
        (event,) = [e for e in world.api.events if e.reason == "FailedMount"]
        assert 'MountVolume.SetUp failed for volume "v"' in event.message
        assert world.runtime.sandboxes == {}
        world.api.secrets["default", "late"] = {"data": {"k": "djE="}}
        await world.advance(2)
        assert world.status()["phase"] == "Running"
        (volume,) = world.runtime.volumes.values()
        assert volume.files.files[0].data == b"v1"


async def test_a_sandbox_that_fails_is_told_and_tried_again() -> None:
    async with pod_world() as world:
        world.runtime.fail("run_sandbox", Exhausted("no memory left on the host"))
        await world.create(pod())
        (event,) = [e for e in world.api.events if e.reason == "FailedCreatePodSandBox"]
        assert event.message == "Failed to create pod sandbox: no memory left on the host"
        assert world.status()["phase"] == "Pending"
        await world.advance(2)
        assert world.status()["phase"] == "Running"
        assert world.container_status()["restartCount"] == 0
        assert len(world.runtime.sandboxes) == 1, "the failed one is removed"


async def test_a_lost_answer_is_no_failure() -> None:
    async with pod_world() as world:
        world.runtime.fail("run_sandbox", Unavailable("connection lost"))
        await world.create(pod())
        await world.advance(2)
        assert world.status()["phase"] == "Running"
        assert len(world.runtime.sandboxes) == 1
        assert "FailedCreatePodSandBox" not in world.api.reasons()


async def test_a_host_that_is_not_ready_is_told_to_the_pods_owner() -> None:
    async with pod_world() as world:
        run = world.runtime.run_sandbox

        async def refuse(request: pb.RunSandboxRequest) -> pb.SandboxStatus:
            raise Unavailable("the network waits for the node's pod CIDR")

        world.runtime.run_sandbox = refuse  # type: ignore[method-assign]
        await world.create(pod())
        assert "FailedCreatePodSandBox" in world.api.reasons()
        world.runtime.run_sandbox = run  # type: ignore[method-assign]
        await world.advance(5)
        assert world.status()["phase"] == "Running"


async def test_create_errors_are_shown() -> None:
    async with pod_world() as world:
        world.runtime.fail("create_container", Internal("mount refused"))
        await world.create(pod())
        waiting = world.container_status()["state"]["waiting"]
        assert waiting == {"reason": "CreateContainerError", "message": "mount refused"}
        await world.advance(2)
        assert world.status()["phase"] == "Running"


async def test_one_container_in_trouble_does_not_hold_up_another() -> None:
    async with pod_world() as world:
        await world.create(
            pod("web", container("bad", image="registry.test/none:1"), container("good"))
        )
        assert "running" in world.container_status("good")["state"]
        assert world.container_status("bad")["state"]["waiting"]["reason"] == "ErrImagePull"


async def test_what_a_microvm_cannot_honour_is_refused_in_words() -> None:
    async with pod_world() as world:
        await world.create(pod(hostNetwork=True))
        status = world.status()
        assert status["phase"] == "Failed"
        assert status["reason"] == "PodFeatureUnsupported"
        assert status["message"].startswith("Pod was rejected: ")
        assert "hostNetwork" in status["message"]
        assert world.runtime.sandboxes == {}
        await world.kill_node()
        await world.start_node()
        assert world.status() == status
        world.api.request_deletion("web")
        await world.settle()
        assert world.api.pods == {}


async def test_more_than_the_node_has_is_refused() -> None:
    big = container(resources={"requests": {"cpu": "3"}})
    async with pod_world() as world:
        await world.create(pod("one", big, uid="1"))
        await world.create(pod("two", big, uid="2"))
        assert world.status("one")["phase"] == "Running"
        assert world.status("two")["reason"] == "OutOfcpu"


async def test_the_active_deadline_ends_the_pod() -> None:
    async with pod_world() as world:
        await world.create(pod(activeDeadlineSeconds=10))
        await world.advance(9)
        assert world.status()["phase"] == "Running"
        await world.advance(2)
        status = world.status()
        assert (status["phase"], status["reason"]) == ("Failed", "DeadlineExceeded")
        assert "DeadlineExceeded" in world.api.reasons()


async def test_a_pod_deleted_before_it_started_goes_at_once() -> None:
    async with pod_world() as world:
        world.runtime.hold("pull_image")
        await world.create(pod())
        world.api.request_deletion("web")
        await world.settle()
        assert world.api.pods == {} and world.runtime.sandboxes == {}
        (deleted,) = world.api.deletes
        assert deleted["status"]["phase"] == "Failed"


async def test_a_forced_deletion_leaves_nothing() -> None:
    async with pod_world() as world:
        await world.create(pod())
        world.api.remove("web")
        await world.settle()
        assert world.runtime.sandboxes == {}
        assert world.manager.pods() == []


async def test_an_image_that_vanishes_before_create_is_an_error_of_its_own() -> None:
    async with pod_world() as world:
        world.runtime.fail("create_container", NotFound("image is gone"))
        await world.create(pod())
        assert world.container_status()["state"]["waiting"]["reason"] == "CreateContainerError"
