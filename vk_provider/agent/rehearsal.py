"""A first container in a VM that nobody has yet, so that its pod's own is not the first.

Under emulation the first start of a container takes five times as long as the next one: all that
guest kernel and guest agent do for it is translated then.
"""

from __future__ import annotations

import orjson

from vk_provider._pb import guest_pb2
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.agent.guest_calls import CALL_S, ask, fresh_entropy
from vk_provider.agent.images import ImageConfig
from vk_provider.agent.oci import Sources, User, make_container_spec
from vk_provider.agent.ports import Machine

_NAME = "rehearsal"
_PROGRAM = {
    "destination": "/init",
    "type": "bind",
    "source": "/run/vk/program",
    "options": ["bind", "ro", "nosuid", "nodev"],
}


async def rehearse(machine: Machine) -> None:
    """Have the guest run a container of its own program. Raises kinds of error."""
    config = pb.ContainerConfig(container_id=_NAME, name=_NAME, command=["/init", "rehearse"])
    sources = Sources(ImageConfig(), _NAME, User(0, 0, (0,), "/"), hostname=_NAME)
    spec = orjson.loads(make_container_spec(config, sources).oci_spec_json)
    spec["mounts"].append(_PROGRAM)
    request = guest_pb2.RehearseRequest(
        entropy=fresh_entropy(), oci_spec_json=orjson.dumps(spec).decode()
    )
    await ask(machine.guest.control.Rehearse(request, timeout=CALL_S), "rehearsing a start")
