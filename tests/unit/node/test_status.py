from __future__ import annotations

from typing import Any

from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.node.conditions import make_conditions
from vk_provider.node.settings import NodeSettings, Taint
from vk_provider.node.status import make_labels, make_node, make_patch, make_status, node_addresses

HOST = pb.HostInfo(
    cpu_milli=1500,
    memory_bytes=8 << 30,
    ephemeral_storage_bytes=20 << 30,
    max_pods=60,
    addresses=["127.0.0.1", "192.0.2.7", "192.0.2.8"],
    architecture="amd64",
    boot_id="b",
    kernel_version="6.1",
    agent_version="1",
    network_ready=True,
)
SETTINGS = NodeSettings("n", taints=(Taint("k", "", "NoSchedule"),), labels={"x": "y"})


def registered() -> dict[str, Any]:
    conditions, _ = make_conditions(HOST, "", (), 0)
    node = make_node(SETTINGS, HOST, conditions)
    # The server writes quantities in its own way.
    for section in ("capacity", "allocatable"):
        node["status"][section]["memory"] = "8Gi"
    return node


def patch_of(
    node: dict[str, Any], host: pb.HostInfo = HOST, images: tuple[pb.Image, ...] = ()
) -> tuple[dict[str, Any], bool]:
    conditions, _ = make_conditions(host, "", node["status"]["conditions"], 0)
    status = make_status(SETTINGS, host, images)
    return make_patch(node, make_labels(SETTINGS, host), status, conditions)


def test_a_node_says_what_its_host_offers() -> None:
    node = registered()
    assert node["status"]["capacity"] == {
        "cpu": "1500m",
        "memory": "8Gi",
        "ephemeral-storage": f"{20 << 20}Ki",
        "pods": "60",
    }
    assert node["status"]["addresses"] == [
        {"type": "InternalIP", "address": "192.0.2.7"},
        {"type": "Hostname", "address": "n"},
    ]
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 10250}}
    assert node["status"]["declaredFeatures"] == ["ExtendWebSocketsToKubelet"]
    assert node["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.37.2+")
    assert node["spec"]["taints"] == [{"key": "k", "effect": "NoSchedule"}]
    assert node["metadata"]["labels"]["x"] == "y"


def test_the_operators_addresses_and_pods_win() -> None:
    settings = NodeSettings("n", ("192.0.2.1", "2001:db8::1"), max_pods=5)
    assert node_addresses(settings, HOST) == ("192.0.2.1", "2001:db8::1")
    assert make_status(settings, HOST, [])["capacity"]["pods"] == "5"


def test_nothing_new_is_no_change() -> None:
    patch, changed = patch_of(registered())
    assert not changed
    assert list(patch["status"]) == ["conditions"]


def test_only_what_changed_is_patched() -> None:
    host = pb.HostInfo()
    host.CopyFrom(HOST)
    host.memory_bytes = 4 << 30
    host.boot_id = "c"
    patch, changed = patch_of(registered(), host)
    assert changed
    assert patch["status"]["capacity"] == {"memory": f"{4 << 20}Ki"}
    assert patch["status"]["nodeInfo"] == {"bootID": "c"}


def test_addresses_are_replaced_as_a_whole() -> None:
    node = registered()
    node["status"]["addresses"][0]["address"] = "192.0.2.99"
    patch, _ = patch_of(node)
    assert patch["status"]["addresses"][-1] == {"$patch": "replace"}


def test_what_others_wrote_stays_and_their_resources_are_allocatable() -> None:
    node = registered()
    node["status"]["capacity"] |= {"example.com/gpu": "3", "hugepages-2Mi": "0"}
    node["status"]["allocatable"] |= {"example.com/gone": "1"}
    node["status"]["conditions"].append({"type": "Other", "status": "True"})
    node["metadata"]["labels"]["other"] = "label"
    patch, changed = patch_of(node)
    assert changed
    assert patch["status"]["allocatable"] == {"example.com/gpu": "3", "example.com/gone": None}
    assert "capacity" not in patch["status"]
    assert "metadata" not in patch
    assert all(c["type"] != "Other" for c in patch["status"]["conditions"])


def test_labels_of_ours_that_were_changed_are_set_right() -> None:
    node = registered()
    node["metadata"]["labels"]["kubernetes.io/arch"] = "riscv64"
    patch, _ = patch_of(node)
    assert patch["metadata"]["labels"] == {"kubernetes.io/arch": "amd64"}


def test_images_are_the_fifty_largest_with_five_names() -> None:
    images = [
        pb.Image(image_ref=f"sha256:{n}", size_bytes=n, repo_tags=[f"t{i}" for i in range(9)])
        for n in range(60)
    ]
    patch, changed = patch_of(registered(), images=tuple(images))
    assert changed
    shown = patch["status"]["images"]
    assert len(shown) == 50
    assert shown[0] == {"names": [f"t{i}" for i in range(5)], "sizeBytes": 59}
