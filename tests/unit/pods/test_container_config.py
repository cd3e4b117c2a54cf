"""Containers and sandboxes as the agent is told to make them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.podspecs import container, make_pod
from vk_provider._pb import sandbox_pb2 as pb
from vk_provider.pods.container_config import make_container_config
from vk_provider.pods.errors import ConfigError
from vk_provider.pods.mounts import container_mounts
from vk_provider.pods.sandbox_config import make_run_sandbox_request
from vk_provider.pods.settings import PodSettings
from vk_provider.pods.sysctls import dotted, forbidden

VOLUMES = [
    {"name": "scratch", "emptyDir": {}},
    {"name": "settings", "configMap": {"name": "settings"}},
    {"name": "tools", "image": {"reference": "tools:1"}},
]


def config(pod_fields: Any = None, image: Any = None, env: Any = (), **fields: Any) -> Any:
    app = container(**fields)
    return make_container_config(
        make_pod(app, volumes=VOLUMES, **(pod_fields or {})),
        app,
        container_id="c" * 64,
        attempt=2,
        image_ref="sha256:1",
        image=image or pb.Image(user="1000"),
        env=[pb.EnvVar(name=name, value=value) for name, value in env],
        hosts_file=b"hosts",
        annotations={"a": "b"},
        settings=PodSettings(),
    )


def test_what_the_spec_says_is_handed_on() -> None:
    found = config(
        command=["sh", "-c", "echo $(A) $(B)"],
        args=["$$(A)"],
        workingDir="/srv",
        stdin=True,
        tty=True,
        lifecycle={"stopSignal": "SIGUSR1"},
        env=[("A", "1")],
    )
    assert found.command == ["sh", "-c", "echo 1 $(B)"]
    assert found.args == ["$(A)"]
    assert (found.working_dir, found.stop_signal) == ("/srv", "SIGUSR1")
    assert (found.stdin, found.stdin_once, found.tty) == (True, False, True)
    assert (found.name, found.image, found.image_ref) == ("app", "busybox:1", "sha256:1")
    assert (found.attempt, found.termination_message_path) == (2, "/dev/term")
    assert found.env == [pb.EnvVar(name="A", value="1")]
    assert found.files == [pb.ContainerFile(container_path="/etc/hosts", data=b"hosts", mode=0o644)]


def test_a_mount_over_etc_hosts_replaces_the_managed_file() -> None:
    found = config(volumeMounts=[{"name": "scratch", "mountPath": "/etc/hosts"}])
    assert not found.files


def mounts(*entries: Any, env: Any = ()) -> list[pb.Mount]:
    app = container(volumeMounts=list(entries))
    variables = [pb.EnvVar(name=name, value=value) for name, value in env]
    return container_mounts(make_pod(app, volumes=VOLUMES), app, variables)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            {"name": "scratch", "mountPath": "/data"},
            pb.Mount(volume="scratch", container_path="/data", propagation="None"),
        ),
        (
            {"name": "settings", "mountPath": "etc/app"},
            pb.Mount(
                volume="settings", container_path="/etc/app", propagation="None", read_only=True
            ),
        ),
        (
            {"name": "tools", "mountPath": "/tools", "subPath": "./bin//x/"},
            pb.Mount(
                volume="tools",
                container_path="/tools",
                propagation="None",
                read_only=True,
                sub_path="bin/x",
            ),
        ),
        (
            {
                "name": "scratch",
                "mountPath": "/data",
                "readOnly": True,
                "recursiveReadOnly": "IfPossible",
                "mountPropagation": "HostToContainer",
                "subPathExpr": "$(POD)/logs",
            },
            pb.Mount(
                volume="scratch",
                container_path="/data",
                propagation="HostToContainer",
                read_only=True,
                recursive_read_only=True,
                sub_path="web/logs",
            ),
        ),
    ],
)
def test_mounts(entry: Any, expected: pb.Mount) -> None:
    assert mounts(entry, env=[("POD", "web")]) == [expected]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"name": "no"}, 'cannot find volume "no" to mount into container "app"'),
        ({"name": "scratch", "subPath": "/abs"}, "must not be an absolute path"),
        ({"name": "scratch", "subPath": "a/../../b"}, "unable to provision SubPath"),
        ({"name": "scratch", "subPathExpr": "$(NO)"}, "missing value for NO"),
        ({"name": "scratch", "subPathExpr": "$(UP)/x"}, "unable to provision SubPath"),
        ({"name": "scratch", "subPathExpr": "$(ROOT)x"}, "must not be an absolute path"),
        ({"name": "scratch", "recursiveReadOnly": "Enabled"}, "but it is not read-only"),
    ],
)
def test_mounts_that_can_not_be(entry: Any, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        mounts({"mountPath": "/data"} | entry, env=[("UP", ".."), ("ROOT", "/")])


def test_the_containers_security_context_goes_over_the_pods() -> None:
    found = config(
        pod_fields={
            "securityContext": {
                "runAsUser": 1,
                "runAsGroup": 2,
                "fsGroup": 3,
                "supplementalGroups": [4, 5],
                "supplementalGroupsPolicy": "Strict",
                "seccompProfile": {"type": "RuntimeDefault"},
            }
        },
        securityContext={
            "runAsUser": 0,
            "privileged": True,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "procMount": "Unmasked",
            "capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["ALL"]},
        },
    ).security
    assert found == pb.SecurityContext(
        run_as_user=0,
        run_as_group=2,
        supplemental_groups=[3, 4, 5],
        supplemental_groups_strict=True,
        privileged=True,
        add_capabilities=["NET_ADMIN"],
        drop_capabilities=["ALL"],
        readonly_rootfs=True,
        no_new_privileges=True,
        unmasked_proc=True,
        seccomp=pb.SeccompProfile(type=pb.SeccompProfile.RUNTIME_DEFAULT),
    )


def test_without_a_security_context_the_image_decides() -> None:
    found = config().security
    assert found == pb.SecurityContext(seccomp=pb.SeccompProfile())
    assert not found.HasField("run_as_user")


@pytest.mark.parametrize(
    ("of_pod", "of_container", "user", "complaint"),
    [
        ({"runAsNonRoot": True}, {}, "", "image will run as root"),
        ({"runAsNonRoot": True}, {}, "0:0", "image will run as root"),
        ({"runAsNonRoot": True}, {}, "nobody", r"non-numeric user \(nobody\)"),
        ({"runAsNonRoot": True}, {}, str(2**31), "invalid user id"),
        ({"runAsNonRoot": True}, {"runAsUser": 0}, "7", "runAsUser breaks non-root policy"),
        ({"runAsUser": 0}, {"runAsNonRoot": True}, "7", "runAsUser breaks non-root policy"),
        ({"runAsNonRoot": True}, {}, "1000:1000", None),
        ({"runAsNonRoot": True}, {"runAsUser": 7}, "", None),
        ({"runAsNonRoot": True}, {"runAsNonRoot": False}, "", None),
        ({}, {}, "", None),
    ],
)
def test_run_as_non_root(of_pod: Any, of_container: Any, user: str, complaint: str | None) -> None:
    def make() -> None:
        config(
            pod_fields={"securityContext": of_pod},
            securityContext=of_container,
            image=pb.Image(user=user),
        )

    if complaint is None:
        make()
    else:
        with pytest.raises(ConfigError, match=complaint):
            make()


def test_the_sandbox_is_told_the_whole_pod() -> None:
    pod = make_pod(
        container(
            ports=[
                {"containerPort": 80, "hostPort": 8080},
                {"containerPort": 81},
                {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.0.2.1"},
            ],
            resources={"limits": {"ephemeral-storage": "1Gi"}},
        ),
        annotations={"vk-provider.dev/size": "2x4Gi"},
        subdomain="db",
        setHostnameAsFQDN=True,
        shareProcessNamespace=True,
        dnsPolicy="Default",
        securityContext={"sysctls": [{"name": "net/ipv4/tcp_syncookies", "value": "1"}]},
    )
    found = make_run_sandbox_request(
        pod,
        "s" * 32,
        1,
        [pb.Volume(name="v")],
        host=pb.HostInfo(resolv_conf="nameserver 192.0.2.53\n"),
        settings=PodSettings(cluster_domain="c.test"),
        annotations={"a": "b"},
    )
    assert found == pb.RunSandboxRequest(
        sandbox_id="s" * 32,
        pod=pb.PodMetadata(namespace="shop", name="web", uid="u-1"),
        attempt=1,
        hostname="web.db.shop.svc.c.test",
        domainname="db.shop.svc.c.test",
        resolv_conf="nameserver 192.0.2.53\n",
        demand=[pb.ContainerDemand()],
        size_override="2x4Gi",
        port_mappings=[
            pb.PortMapping(host_port=8080, container_port=80, protocol="TCP"),
            pb.PortMapping(host_port=53, container_port=53, protocol="UDP", host_ip="192.0.2.1"),
        ],
        volumes=[pb.Volume(name="v")],
        sysctls={"net.ipv4.tcp_syncookies": "1"},
        annotations={"a": "b"},
        ephemeral_storage_limit_bytes=1 << 30,
        share_process_namespace=True,
        images=["busybox:1"],
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("net.ipv4.x", "net.ipv4.x"),
        ("net/ipv4/x", "net.ipv4.x"),
        ("net/ipv4/conf/eth0.1/x", "net.ipv4.conf.eth0/1.x"),
        ("net.ipv4.conf.eth0/1.x", "net.ipv4.conf.eth0/1.x"),
        ("plain", "plain"),
    ],
)
def test_names_of_sysctls_are_written_with_dots(name: str, expected: str) -> None:
    assert dotted(name) == expected


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("net.ipv4.tcp_syncookies", (), False),
        ("net/ipv4/tcp_syncookies", (), False),
        ("net.core.somaxconn", (), True),
        ("net.core.somaxconn", ("net.core.*",), False),
        ("net.core.somaxconn", ("net.core.somaxconn",), False),
        ("vm.swappiness", ("*",), True),
    ],
)
def test_only_safe_and_allowed_sysctls_are_set(
    name: str, allowed: tuple[str, ...], refused: bool
) -> None:
    found = forbidden([{"name": name, "value": "1"}], allowed)
    assert (found is not None) is refused
    if found:
        assert found == f'forbidden sysctl: "{name}" not allowlisted'


def test_a_container_that_came_after_admission_is_refused_what_the_pod_would_be() -> None:
    profile = {"type": "Localhost", "localhostProfile": "x"}
    with pytest.raises(ConfigError, match=r"container app.securityContext.seccompProfile.type"):
        config(securityContext={"seccompProfile": profile})
