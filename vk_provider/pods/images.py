"""Has a container's image there before it is created (kubelet images.EnsureImageExists)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.common.clock import Clock
from vk_provider.common.errors import Invalid, Unavailable, VkError
from vk_provider.pods.backoff import Backoff
from vk_provider.pods.image_names import parse_image_name
from vk_provider.pods.objects import Objects
from vk_provider.pods.podspec import Pod, uid_of
from vk_provider.pods.pull_secrets import read_pull_secrets
from vk_provider.pods.recorder import Recorder
from vk_provider.pods.status.containers import Waiting
from vk_provider.runtime.api import Runtime

_REGISTRY_UNAVAILABLE = "RegistryUnavailable"


@dataclass(frozen=True, slots=True)
class ImageResult:
    """The image, or why it is not there and when to try again (wall time, 0: as ever)."""

    image: pb.Image | None = None
    waiting: Waiting | None = None
    retry_at_ns: int = 0


class ImageManager:
    """Pulls by policy, with credentials, back-off and the kubelet's events. Owns no task."""

    def __init__(
        self, runtime: Runtime, objects: Objects, recorder: Recorder, clock: Clock
    ) -> None:
        self._runtime = runtime
        self._objects = objects
        self._recorder = recorder
        self._clock = clock
        self._backoff = Backoff()
        self._last_error: dict[str, str] = {}

    async def ensure(
        self, pod: Pod, image: str, pull_policy: str, field_path: str = ""
    ) -> ImageResult:
        """Return the image, pulled where the policy asks for it.

        Raises Unavailable where the runtime itself is away; everything else is a result.
        """
        try:
            name = parse_image_name(image)
        except Invalid as exc:
            message = f'Failed to apply default image tag "{image}": {exc}'
            self._recorder.event(pod, "Warning", "InspectFailed", message, field_path=field_path)
            return ImageResult(waiting=Waiting("InvalidImageName", message))
        if pull_policy != "Always":
            present = await self._runtime.list_images(name.full)
            if present:
                message = (
                    f'Container image "{image}" already present on machine '
                    "and can be accessed by the pod"
                )
                self._recorder.event(pod, "Normal", "Pulled", message, field_path=field_path)
                return ImageResult(image=present[0])
            if pull_policy == "Never":
                message = f'Container image "{image}" is not present with pull policy of Never'
                self._recorder.event(
                    pod, "Warning", "ErrImageNeverPull", message, field_path=field_path
                )
                return ImageResult(waiting=Waiting("ErrImageNeverPull", message))
        return await self._pull(pod, image, field_path)

    def forget(self, pod_uid: str) -> None:
        """Drop what is remembered of a pod that is gone."""
        self._backoff.forget(f"{pod_uid}_")
        for key in [k for k in self._last_error if k.startswith(f"{pod_uid}_")]:
            del self._last_error[key]

    async def _pull(self, pod: Pod, image: str, field_path: str) -> ImageResult:
        key = f"{uid_of(pod)}_{image}"
        retry_ns = self._backoff.retry_ns(key, self._clock.now_ns())
        if retry_ns:
            message = f'Back-off pulling image "{image}"'
            self._recorder.event(pod, "Normal", "BackOff", message, field_path=field_path)
            before = self._last_error.get(key)
            text = f"{message}: {before}" if before else message
            return ImageResult(waiting=Waiting("ImagePullBackOff", text), retry_at_ns=retry_ns)
        self._recorder.event(
            pod, "Normal", "Pulling", f'Pulling image "{image}"', field_path=field_path
        )
        began = self._clock.monotonic()
        try:
            done = await self._fetch(pod, image, field_path)
        except VkError as exc:
            await self._still_there(exc)
            return self._failed(pod, image, field_path, exc)
        self._last_error.pop(key, None)
        waited = round((self._clock.monotonic() - began) * 1000)
        pulled = done.duration_ns // 1_000_000 if done.duration_ns else waited
        self._recorder.event(
            pod,
            "Normal",
            "Pulled",
            f'Successfully pulled image "{image}" in {go_duration_ms(pulled)} '
            f"({go_duration_ms(max(waited, pulled))} including waiting). "
            f"Image size: {done.image.size_bytes} bytes.",
            field_path=field_path,
        )
        return ImageResult(image=done.image)

    async def _fetch(self, pod: Pod, image: str, field_path: str) -> pb.PullImageProgress:
        """Pull with each credential that fits, in turn; without any, anonymously."""
        name = parse_image_name(image)
        secrets = await read_pull_secrets(pod, self._objects)
        if secrets.missing:
            self._recorder.event(
                pod,
                "Warning",
                "FailedToRetrieveImagePullSecret",
                "Unable to retrieve some image pull secrets "
                f"({', '.join(secrets.missing)}); attempting to pull the image may not succeed.",
                field_path=field_path,
            )
        candidates: Sequence[pb.RegistryAuth | None] = secrets.for_image(name) or [None]
        failure: VkError | None = None
        for auth in candidates:
            try:
                return await self._pull_once(name.full, auth)
            except VkError as exc:
                failure = exc
        assert failure is not None
        raise failure

    async def _pull_once(self, image: str, auth: pb.RegistryAuth | None) -> pb.PullImageProgress:
        last: pb.PullImageProgress | None = None
        async with aclosing(self._runtime.pull_image(image, auth)) as progress:
            async for step in progress:
                last = step
        if last is None or not last.HasField("image"):
            raise Unavailable(f"the pull of {image} ended without a result; it is tried again")
        return last

    async def _still_there(self, error: VkError) -> None:
        """Tell a registry that is away from a runtime that is: the latter says nothing."""
        if isinstance(error, Unavailable):
            await self._runtime.list_images("-")

    def _failed(self, pod: Pod, image: str, field_path: str, error: VkError) -> ImageResult:
        key = f"{uid_of(pod)}_{image}"
        text = str(error)
        message = f'Failed to pull image "{image}": {text}'
        self._recorder.event(pod, "Warning", "Failed", message, field_path=field_path)
        now = self._clock.now_ns()
        self._backoff.advance(key, now, now)
        reason = "ErrImagePull"
        if _REGISTRY_UNAVAILABLE in text:
            reason = _REGISTRY_UNAVAILABLE
            detail = text.partition(_REGISTRY_UNAVAILABLE)[2]
            text = f"image pull failed for {image} because the registry is unavailable{detail}"
        self._last_error[key] = f"{reason}: {text}"
        return ImageResult(
            waiting=Waiting(reason, text), retry_at_ns=self._backoff.retry_ns(key, now)
        )


def go_duration_ms(milliseconds: int) -> str:
    """Render a duration as Go prints it: 12ms, 1.5s, 2m3.4s."""
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds
