"""What jobs ask for and the lists of a site let them have: images, environments, volumes, a display."""

from __future__ import annotations

import os
import secrets
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import pytest_asyncio
from registry import put_image, small_image
from tests.conftest import absent

from .test_escape import BOSS, UIDS, Site, opened

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]

WHO = ["/bin/sh", "-c", "read -r mark < /mark; echo $mark"]
"""Says the mark of an image made by the test."""


@dataclass
class Listed:
    """A site whose policy lists images of a registry and folders of its node."""

    site: Site
    host: str
    digests: dict[str, str]
    usual: str
    """The site's default image, which has more than a shell."""

    async def run(self, *command: str, user: str = "alice", **more: Any) -> tuple[dict[str, Any], str]:
        """A job to its end, and what it wrote."""
        http = self.site.users[user]
        spec = {"cpu": 0.1, "memory": "64M", "volumes": [], **more, "command": list(command)}
        answer = await http.post("/jobs", json=spec)
        assert answer.status_code == 201, answer.text
        return await self.site.ended(user, answer.json()["id"])

    async def refused(self, field: str, **spec: Any) -> str:
        """What is said of the field for which the job is refused."""
        answer = await self.site.users["alice"].post("/jobs", json={"command": ["true"], **spec})
        assert answer.status_code == 422, answer.text
        [error] = answer.json()["errors"]
        assert error["field"] == field
        return str(error["message"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def listed(test_image: str, docker_url: str, registry: str) -> AsyncIterator[Listed]:
    if os.geteuid() != 0:
        absent("only root runs jobs of several accounts")
    names = ("ours", "cobol", "pinned")
    digests = {
        name: put_image(docker_url, f"{registry}/rules/{name}:1", small_image(name), {}) for name in names
    }
    old = os.umask(0o022)
    async with opened("docker", test_image, docker_url) as site:
        for folder in ("scratch", "books"):
            (site.state.parent / folder).mkdir()
            os.chown(site.state.parent / folder, UIDS["alice"], UIDS["alice"])
        policy = f"""
        projects: {{genomics: {{members: [alice]}}}}
        images:
          ours: {{image: "{registry}/rules/ours:1", projects: [genomics], default: true}}
          cobol: {{image: "{registry}/rules/cobol:1", runenv: COBOL-42, features: {{NX: 2020}}}}
        allowed_images: ["{registry}/rules/pinned@{digests["pinned"]}"]
        volumes:
          scratch: {{source: {site.state.parent}/scratch, target: /scratch}}
          books: {{source: {site.state.parent}/books, target: /books, read_only: true}}
          lost: {{source: {site.state.parent}/lost, target: /lost}}
        grants: {{gui: [alice]}}
        """
        headers = {"Content-Type": "text/yaml"}
        answer = await site.users[BOSS].put("/policy", content=policy, headers=headers)
        assert answer.status_code == 200, answer.text
        yield Listed(site, registry, digests, test_image)
    os.umask(old)
    api: Any = docker.APIClient(base_url=docker_url)
    for image in api.images():
        if any(name.startswith(f"{registry}/rules/") for name in image.get("RepoDigests") or []):
            api.remove_image(image["Id"], force=True)


async def test_a_job_that_names_no_image_runs_in_the_default_of_its_project(listed: Listed) -> None:
    job, said = await listed.run(*WHO, project="genomics")
    image = f"{listed.host}/rules/ours"
    assert (said, job["spec"]["image"]) == ("ours\n", f"{image}:1")
    assert job["image_manifest"] == f"{image}@{listed.digests['ours']}"
    job, said = await listed.run("test", "!", "-e", "/mark", user="bob")
    assert (job["state"], job["spec"]["image"]) == ("succeeded", listed.usual), job["reason"]
    assert job["image_digest"]
    assert job["image_manifest"] is None


async def test_an_image_by_its_digest_may_be_allowed_and_its_tag_not(listed: Listed) -> None:
    image = f"{listed.host}/rules/pinned"
    assert "not on this site's list" in await listed.refused("image", image=f"{image}:1")
    other = f"{image}@{listed.digests['cobol']}"
    assert "not on this site's list" in await listed.refused("image", image=other)
    job, said = await listed.run(*WHO, image=f"{image}@{listed.digests['pinned']}")
    assert said == "pinned\n", job["reason"]


async def test_a_runenv_is_run_in_the_image_that_holds_it(listed: Listed) -> None:
    assert "COBOL" in await listed.refused("runenv", runenv="COBOL-43")
    job, said = await listed.run(*WHO, runenv="COBOL", require=["NX-2020"])
    assert said == "cobol\n", job["reason"]
    assert job["image_manifest"] == f"{listed.host}/rules/cobol@{listed.digests['cobol']}"


async def test_a_volume_that_is_missing_on_the_node_is_named_and_its_path_is_not(listed: Listed) -> None:
    job, _ = await listed.run("true", volumes=["lost"])
    assert (job["state"], job["reason"]["code"]) == ("failed", "JobLaunchFailure")
    message = job["reason"]["message"]
    assert message == "volume lost cannot be had on node n1: it is not there, or no directory"


@pytest.mark.parametrize(
    ("volume", "writes"),
    [("scratch", True), ("scratch:ro", False), ("books", False), ("books:rw", False)],
)
async def test_a_volumes_mode_is_lowered_and_never_raised(listed: Listed, volume: str, writes: bool) -> None:
    folder, file = volume.partition(":")[0], volume.replace(":", "-")
    job, _ = await listed.run("touch", f"/{folder}/{file}", image=listed.usual, volumes=[volume])
    assert (job["state"] == "succeeded") is writes, job["reason"]
    assert (listed.site.state.parent / folder / file).exists() is writes


# ---- a display

ASK = """
import os, socket, struct, sys
with open(os.environ["XAUTHORITY"], "rb") as file:
    entry, fields = file.read()[2:], []
while entry and len(fields) < 4:
    size = int.from_bytes(entry[:2], "big")
    fields.append(entry[2 : 2 + size])
    entry = entry[2 + size :]
name, cookie = fields[2:]
padded = lambda text: text + bytes(-len(text) % 4)
order = b"l" if sys.byteorder == "little" else b"B"
server = socket.socket(socket.AF_UNIX)
server.connect("/tmp/.X11-unix/X" + os.environ["DISPLAY"].lstrip(":"))
server.sendall(struct.pack("=sxHHHHxx", order, 11, 0, len(name), len(cookie)) + padded(name) + padded(cookie))
print({0: "failed", 1: "success", 2: "authenticate"}[server.recv(1)[0]])
"""
"""An X client's first request and the first byte of the answer (X Window System Protocol, chapter 8)."""
LOOK = "import os; print(sorted(os.listdir('/tmp')), os.environ.get('XAUTHORITY'))"


def authority(cookie: bytes) -> bytes:
    """A file of one cookie, for whatever host and display (Xau(3))."""
    fields = (b"", b"", b"MIT-MAGIC-COOKIE-1", cookie)
    return struct.pack(">H", 0xFFFF) + b"".join(struct.pack(">H", len(one)) + one for one in fields)


@contextmanager
def display(folder: Path) -> Iterator[str]:
    """An X server of this machine with a display of its own, for whom has the cookie; its ``DISPLAY``."""
    if not shutil.which("Xvfb"):
        absent("Xvfb is not installed")
    (folder / "cookies").write_bytes(authority(COOKIE))
    mine, its = os.pipe()
    argv = ["Xvfb", "-displayfd", str(its), "-auth", str(folder / "cookies"), "-nolisten", "tcp"]
    with subprocess.Popen(argv, pass_fds=[its], stderr=subprocess.DEVNULL) as server, os.fdopen(mine) as said:
        os.close(its)
        try:
            number = said.readline().strip()
            assert number, "Xvfb did not start"
            yield f":{number}"
        finally:
            server.terminate()


COOKIE = secrets.token_bytes(16)


async def test_whom_it_is_granted_opens_windows_on_the_node_and_nobody_else(
    listed: Listed, tmp_path: Path
) -> None:
    with display(tmp_path) as number:
        home = listed.site.home("alice")
        job_of_hers: dict[str, Any] = {"env": {"DISPLAY": number}, "image": listed.usual, "volumes": ["home"]}
        granted = {**job_of_hers, "gui": True}
        (home / ".Xauthority").write_bytes(authority(COOKIE))
        os.chown(home / ".Xauthority", UIDS["alice"], UIDS["alice"])
        job, said = await listed.run("python3", "-c", ASK, **granted)
        assert said == "success\n", job["reason"]
        # who is not let in sees neither server nor cookies
        job, said = await listed.run("python3", "-c", LOOK, **job_of_hers)
        assert said == "[] None\n", job["reason"]
        spec = {"command": ["true"], **granted}
        answer = await listed.site.users["bob"].post("/jobs", json=spec)
        assert [error["field"] for error in answer.json()["errors"]] == ["gui"], answer.text
        # a cookie is needed, too
        (home / ".Xauthority").write_bytes(authority(bytes(16)))
        job, said = await listed.run("python3", "-c", ASK, **granted)
        assert said == "failed\n", job["reason"]
    job, _ = await listed.run("true", **granted)
    assert "there is no X server" in job["reason"]["message"]
