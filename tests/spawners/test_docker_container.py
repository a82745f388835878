"""From a launch to what the Engine API is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from perijove.model import Account, Attempt, Gpu, OperatorError
from perijove_spawners.containers.container import (
    EngineOptions,
    check_paths,
    container_name,
    create_body,
    owner_network,
)
from perijove_spawners.containers.docker import DockerLauncher
from perijove_spawners.containers.podman import PodmanLauncher
from perijove_spawners.containers.program import OwnProgram, program
from perijove_spawners.launcher import JOB_DIRECTORY, Launch, LaunchError, Mount

OPTIONS = EngineOptions(url="unix:///nowhere")
LAUNCH = Launch(
    attempt=Attempt(12, 1),
    owner="alice@lab",
    command=("python3", "-c", "print('ü')"),
    account=Account("alice", 4242, 4243, "/home/alice", groups=(4243, 100)),
    directory=Path("/state/attempts/12.1"),
    image="lab/base:1",
    env={"HOME": "/home/alice"},
    cwd="/home/alice",
    mounts=(Mount("/export/alice", "/home/alice"), Mount("/data", "/data", read_only=True)),
    cpu=0.25,
    memory=64 << 20,
)


def body(
    launch: Launch = LAUNCH, options: EngineOptions = OPTIONS, podman: bool = False
) -> dict[str, object]:
    dialect = PodmanLauncher.dialect if podman else DockerLauncher.dialect
    return create_body(launch, installation="lab", options=options, dialect=dialect)


def host(*args: object, **kwargs: object) -> dict[str, object]:
    config = body(*args, **kwargs)["HostConfig"]  # type: ignore[arg-type]
    assert isinstance(config, dict)
    return config


def test_a_job_has_no_privilege() -> None:
    config = host()
    assert config["CapDrop"] == ["ALL"]
    assert config["SecurityOpt"] == ["no-new-privileges:true"]
    assert config["PidsLimit"] == 4096
    assert config["Init"] is True
    assert "Privileged" not in config
    assert "Binds" not in config
    assert body()["User"] == "4242:4243"
    assert config["GroupAdd"] == ["100"]


def test_the_command_is_all_that_runs() -> None:
    asked = body()
    assert asked["Entrypoint"] == ["python3", "-c", "print('ü')"]
    assert asked["Cmd"] == []
    assert asked["Healthcheck"] == {"Test": ["NONE"]}
    assert "Healthcheck" not in body(podman=True)
    assert asked["StopSignal"] == "SIGTERM"


def test_an_image_may_keep_its_entrypoint() -> None:
    own = OwnProgram(("/entry", "-x"), ("by", "default"))
    kept = replace(LAUNCH, entrypoint=True)
    assert program(LAUNCH, own) == {"Entrypoint": list(LAUNCH.command), "Cmd": []}
    assert program(kept, own)["Entrypoint"] == ["/entry", "-x", *LAUNCH.command]
    assert program(replace(kept, command=()), own)["Entrypoint"] == ["/entry", "-x", "by", "default"]
    assert program(replace(kept, command=()), OwnProgram())["Entrypoint"] is None


def test_a_shell_opens_files_and_gives_way_to_the_program() -> None:
    files = replace(LAUNCH, stdin="/in/a b", descriptors={5: "/run/perijove/.fd5"})
    shell, option, script, *words = program(files, OwnProgram())["Entrypoint"]
    assert (shell, option, tuple(words)) == ("/bin/sh", "-c", LAUNCH.command)
    assert script == """exec "$0" "$@" <'/in/a b' 5>>/run/perijove/.fd5"""


def test_a_sealed_job_has_no_network_and_an_image_that_cannot_be_written() -> None:
    sealed = replace(LAUNCH, sealed=True, network="bridge", mounts=())
    config = host(sealed)
    assert (config["NetworkMode"], config["ReadonlyRootfs"]) == ("none", True)
    assert config["Tmpfs"] == {"/tmp": f"rw,nosuid,nodev,mode=1777,size={32 << 20}"}
    assert host(replace(sealed, mounts=(Mount("/state/out", "/tmp"),)))["Tmpfs"] == {}
    assert "ReadonlyRootfs" not in host() and "Tmpfs" not in host()


def test_limits_are_exact_and_leave_no_swap() -> None:
    config = host(replace(LAUNCH, shm_size=1 << 20))
    assert config["NanoCpus"] == 250_000_000
    assert config["Memory"] == config["MemorySwap"] == 64 << 20
    assert config["ShmSize"] == 1 << 20
    assert "ShmSize" not in host()


def test_mounts_are_binds_of_what_exists_and_the_job_directory() -> None:
    mounts = host()["Mounts"]
    assert isinstance(mounts, list)
    assert [(m["Source"], m["Target"], m["ReadOnly"]) for m in mounts] == [
        ("/export/alice", "/home/alice", False),
        ("/data", "/data", True),
        ("/state/attempts/12.1/job", JOB_DIRECTORY, False),
    ]
    assert {m["Type"] for m in mounts} == {"bind"}
    assert {m["BindOptions"]["Propagation"] for m in mounts} == {"rprivate"}


def test_a_users_label_cannot_pass_for_ours() -> None:
    forged = replace(LAUNCH, labels={"perijove.attempt": "99.1", "perijove.directory": "/etc", "team": "x"})
    labels = body(forged)["Labels"]
    assert labels == {
        "team": "x",
        "perijove.installation": "lab",
        "perijove.attempt": "12.1",
        "perijove.owner": "alice@lab",
        "perijove.directory": "/state/attempts/12.1",
        "perijove.ports": "",
        "perijove.network": "bridge",
        "perijove.manifest": "",
    }


@pytest.mark.parametrize(
    ("asked", "default", "mode"),
    [
        (None, "bridge", "bridge"),
        (None, "none", "none"),
        ("host", "none", "host"),
        ("user", "bridge", owner_network("lab", "alice@lab")),
        (None, "user", owner_network("lab", "alice@lab")),
    ],
)
def test_network(asked: str | None, default: str, mode: str) -> None:
    config = host(replace(LAUNCH, network=asked), replace(OPTIONS, network=default))
    assert config["NetworkMode"] == mode


def test_owners_share_no_network() -> None:
    assert owner_network("lab", "alice") != owner_network("lab", "bob")
    assert owner_network("lab", "alice") != owner_network("other", "alice")


def test_gpus_are_devices_or_requests_of_the_driver() -> None:
    stand_in = Gpu(index=0, uuid="a", device="/dev/zero")
    real = Gpu(index=1, uuid="GPU-b")
    config = host(replace(LAUNCH, gpus=(stand_in, real)))
    device = {"PathOnHost": "/dev/zero", "PathInContainer": "/dev/zero", "CgroupPermissions": "rw"}
    assert config["Devices"] == [device]
    assert config["DeviceRequests"] == [
        {"Driver": "nvidia", "DeviceIDs": ["GPU-b"], "Capabilities": [["gpu"]]}
    ]
    assert "Devices" not in host()


def test_podman_has_gpus_by_cdi() -> None:
    devices = host(replace(LAUNCH, gpus=(Gpu(index=1, uuid="GPU-b"),)), podman=True)["Devices"]
    assert isinstance(devices, list)
    assert [device["PathOnHost"] for device in devices] == ["nvidia.com/gpu=1"]


def test_a_container_needs_an_image() -> None:
    with pytest.raises(LaunchError, match=r"12\.1 names no image"):
        body(replace(LAUNCH, image=None))


def test_the_name_is_the_claim() -> None:
    assert container_name("lab", Attempt(12, 3)) == "perijove-lab-12.3"


def test_options_are_read() -> None:
    options = {"network": "none", "pull": "never", "pids_limit": "64", "pull_timeout": "2.5"}
    assert EngineOptions.parse(options, url="unix:///d") == EngineOptions(
        "unix:///d", "none", "never", 2.5, 64
    )
    assert EngineOptions.parse({"url": "unix:///p"}, url="unix:///d").url == "unix:///p"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pul", "never", "unknown engine option 'pul'; known are archive_limit, network, pids_limit"),
        ("pull", "often", "pull='often': must be one of missing, always, never"),
        ("network", "macvlan", "network='macvlan': must be one of bridge, host, none, project, user"),
        ("pids_limit", "many", "pids_limit='many'"),
    ],
)
def test_a_wrong_option_is_named(name: str, value: str, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        EngineOptions.parse({name: value}, url="")


def test_what_a_runtime_would_make_as_root_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    home = replace(LAUNCH, mounts=(Mount(str(tmp_path), "/home/alice"),))
    check_paths(home)
    check_paths(replace(home, cwd="/home/alice/work"))
    check_paths(replace(home, cwd="/opt/in-the-image"))
    with pytest.raises(LaunchError, match="working directory /home/alice/gone does not exist"):
        check_paths(replace(home, cwd="/home/alice/gone"))
    with pytest.raises(LaunchError, match="at /data does not exist"):
        check_paths(replace(home, mounts=(Mount(str(tmp_path / "gone"), "/data"),)))
