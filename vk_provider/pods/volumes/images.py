"""Image volumes (KEP-4639): which images a pod's volumes need before they can be built."""

from __future__ import annotations

from dataclasses import dataclass

from vk_provider.pods.podspec import Pod, volumes_of


@dataclass(frozen=True, slots=True)
class ImageVolume:
    """A volume's name, the image it shows and when to pull it (as `imagePullPolicy`)."""

    name: str
    reference: str
    pull_policy: str


def image_volumes(pod: Pod) -> list[ImageVolume]:
    """Return the pod's image volumes, in order."""
    return [
        ImageVolume(
            volume["name"],
            volume["image"].get("reference", ""),
            volume["image"].get("pullPolicy") or "IfNotPresent",
        )
        for volume in volumes_of(pod)
        if volume.get("image") is not None
    ]
