"""Images of a registry that wants a password: whom it gives them to, on real engines, and nobody else."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from registry import can_run, guarded_registry, put_image, small_image
from tests.conftest import absent
from tests.spawners.real_node import RealNode

from perijove.model import Account, Outcome, ReasonCode, State
from perijove_spawners.launcher import RegistryLogin
from perijove_spawners.references import repository_of

pytestmark = pytest.mark.engine

ALICE = Account("alice", 4242, 4242, "/home/alice")
PASSWORDS = {"ada": "correct-horse-battery", "bob": "another-staple-there"}
ADA, BOB = (RegistryLogin(name, password) for name, password in PASSWORDS.items())
NOBODY = RegistryLogin("ada", "wrong-password-of-ada")


@dataclass(frozen=True)
class Images:
    """A registry with images, of which each engine uses one, since they may share layers."""

    host: str
    digests: dict[str, str]
    docker_url: str

    def of(self, engine: str) -> str:
        return f"{self.host}/lab/{engine}:1"

    def put(self, image: str, mark: str) -> str:
        login = {"username": ADA.username, "password": ADA.password}
        return put_image(self.docker_url, image, small_image(mark), login)


@pytest.fixture(scope="module")
def images(guarded_address: str, docker_url: str) -> Iterator[Images]:
    if not can_run():
        absent("docker-registry or htpasswd is not installed")
    with (
        tempfile.TemporaryDirectory(prefix="pj-registry-") as folder,
        guarded_registry(Path(folder), guarded_address, PASSWORDS) as host,
    ):
        made = Images(host, {}, docker_url)
        for engine in ("docker", "podman"):
            made.digests[engine] = made.put(made.of(engine), f"first of {engine}")
        yield made


@pytest.fixture(params=["docker", "podman"])
async def node(request: pytest.FixtureRequest, tmp_path: Path, images: Images) -> AsyncIterator[RealNode]:
    url = request.getfixturevalue(f"{request.param}_url")
    made = RealNode(tmp_path, request.param, ALICE, url=url)
    await made.open()
    yield made
    await made.close()
    api = docker.APIClient(base_url=url)
    for found in api.images():
        names = [*(found.get("RepoTags") or []), *(found.get("RepoDigests") or [])]
        if any(name.startswith(images.host) for name in names):
            api.remove_image(found["Id"], force=True)


async def attempt(node: RealNode, image: str, login: RegistryLogin | None, **more: Any) -> Outcome:
    return await node.run(
        "/bin/sh",
        "-c",
        "read -r mark < /mark; echo $mark",
        image=image,
        registry=login,
        network="none",
        outputs={"said": "fd:1"},
        **more,
    )


async def test_who_may_have_an_image_and_who_may_not(node: RealNode, images: Images) -> None:
    engine = node.launcher.capabilities.name
    image = images.of(engine)
    for login, said in ((None, "wants a login"), (NOBODY, "refuses the login")):
        refused = await attempt(node, image, login)
        assert refused.state is State.FAILED
        assert refused.reason is ReasonCode.LAUNCH_FAILED
        assert said in refused.message, refused.message
        assert images.host in refused.message
        assert not refused.transient
    some = await asyncio.gather(*(attempt(node, image, ADA) for _ in range(3)))
    assert {one.state for one in some} == {State.SUCCEEDED}, some
    assert node.text(some[0].outputs["said"]) == f"first of {engine}\n"
    # What ada's login brought here is not everybody's, whatever it is called.
    pinned = f"{repository_of(image)}@{images.digests[engine]}"
    assert {one.image_manifest for one in some} == {pinned}
    for name in (pinned, f"{image}@{images.digests[engine]}"):
        by_digest = await attempt(node, name, ADA)
        assert (by_digest.state, by_digest.image_manifest) == (State.SUCCEEDED, pinned), by_digest
    for name in (image, pinned, str(some[0].image_digest)):
        for login in (None, NOBODY):
            refused = await attempt(node, name, login)
            assert refused.reason is ReasonCode.LAUNCH_FAILED, (name, refused)
    assert (await attempt(node, image, BOB)).state is State.SUCCEEDED
    # Another agent knows that, too.
    await node.agent.close()
    await node.open()
    assert (await attempt(node, image, None)).reason is ReasonCode.LAUNCH_FAILED
    assert (await attempt(node, image, ADA, pull="never")).state is State.SUCCEEDED
    _nothing_is_told(node)


def _nothing_is_told(node: RealNode) -> None:
    """Neither the agent's directory nor an answer of the engine holds a password."""
    secrets = [one.password.encode() for one in (ADA, BOB, NOBODY)]
    for path in node.directory.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(secret in data for secret in secrets), path
    assert not any(one.password in repr(one) for one in (ADA, BOB))


async def test_what_a_registry_cannot_give_is_said(node: RealNode, images: Images) -> None:
    missing = await attempt(node, f"{images.host}/lab/nosuch:1", ADA)
    assert missing.reason is ReasonCode.LAUNCH_FAILED
    assert "has no such image" in missing.message
    nowhere = await attempt(node, "registry.invalid/lab/nosuch:1", None)
    assert nowhere.reason is ReasonCode.LAUNCH_FAILED
    assert "registry.invalid" in nowhere.message
    never = await attempt(node, images.of("podman"), ADA, pull="never")
    assert "nothing is pulled here" in never.message


async def test_an_image_that_the_engine_lost_a_moment_ago_is_pulled_again(
    node: RealNode, images: Images
) -> None:
    image = images.of(node.launcher.capabilities.name)
    api: Any = docker.APIClient(base_url=node.url)
    assert (await attempt(node, image, ADA)).state is State.SUCCEEDED
    api.remove_image(image, force=True)
    again = await attempt(node, image, ADA)
    assert again.state is State.SUCCEEDED, again
    api.remove_image(image, force=True)
    never = await attempt(node, image, ADA, pull="never")
    assert (never.reason, never.transient) == (ReasonCode.LAUNCH_FAILED, False)
    assert "nothing is pulled here" in never.message


async def test_a_digest_is_run_wherever_its_tag_has_gone(node: RealNode, images: Images) -> None:
    engine = node.launcher.capabilities.name
    image = f"{images.host}/lab/leaving-{engine}:1"
    older = images.put(image, f"older of {engine}")
    newer = images.put(image, f"newer of {engine}")
    assert older != newer
    for digest, mark in ((older, "older"), (newer, "newer")):
        outcome = await attempt(node, f"{image}@{digest}", ADA)
        assert node.text(outcome.outputs["said"]) == f"{mark} of {engine}\n"
        assert outcome.image_manifest == f"{repository_of(image)}@{digest}"


async def test_always_brings_what_the_tag_means_now(node: RealNode, images: Images) -> None:
    engine = node.launcher.capabilities.name
    image = f"{images.host}/lab/moving-{engine}:1"
    images.put(image, "older")
    assert node.text((await attempt(node, image, ADA)).outputs["said"]) == "older\n"
    images.put(image, "newer")
    if engine == "podman":  # what is put takes the tag away from the Docker engine that it is made on
        again = await attempt(node, image, ADA, pull="missing")
        assert node.text(again.outputs["said"]) in {"older\n", "newer\n"}
    assert node.text((await attempt(node, image, ADA, pull="always")).outputs["said"]) == "newer\n"
