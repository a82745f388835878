"""A registry of images that wants a password, and a small image with a shell to put into it."""

from __future__ import annotations

import io
import re
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import httpx
from waiting import wait_until

SHELL = Path("/bin/sh")


@contextmanager
def guarded_registry(folder: Path, address: str, users: Mapping[str, str]) -> Iterator[str]:
    """A registry at ``host:port`` for `users` (name -> password) alone; needs docker-registry, htpasswd."""
    for name, password in users.items():
        flags = "-Bi" if (folder / "htpasswd").exists() else "-Bci"
        argv = ["htpasswd", flags, str(folder / "htpasswd"), name]
        subprocess.run(argv, input=password.encode(), check=True, capture_output=True)
    (folder / "config.yml").write_text(f"""\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: '{address}'}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
""")
    argv = ["docker-registry", "serve", str(folder / "config.yml")]
    with (folder / "log").open("wb") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        try:
            wait_until(lambda: _asks_for_a_password(address), "the start of docker-registry", 60)
            yield address
        finally:
            process.terminate()


def _asks_for_a_password(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/v2/", timeout=5).status_code == 401
    except httpx.TransportError:
        return False


def free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def can_run() -> bool:
    """Whether this machine has what such a registry needs."""
    return bool(shutil.which("docker-registry") and shutil.which("htpasswd"))


def small_image(mark: str) -> bytes:
    """The files of an image with nothing but a shell and the file ``/mark``."""
    listed = subprocess.run(["ldd", str(SHELL)], check=True, capture_output=True, text=True).stdout
    needed = [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in (SHELL, *needed):
            tar.add(path.resolve(), arcname=str(path).lstrip("/"), filter=_executable)
        member = tarfile.TarInfo("mark")
        member.size, member.mode = len(mark), 0o644
        tar.addfile(member, io.BytesIO(mark.encode()))
    return archive.getvalue()


def _executable(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode = 0o755
    return member


def put_image(docker_url: str, image: str, files: bytes, login: Mapping[str, str]) -> str:
    """Put an image with these files into its registry, and nowhere else; the digest that it has there."""
    api: Any = docker.APIClient(base_url=docker_url, timeout=120)
    repository, _, tag = image.rpartition(":")
    api.import_image_from_data(files, repository=repository, tag=tag)
    try:
        lines = list(api.push(repository, tag, auth_config=dict(login), stream=True, decode=True))
        digests = [line["aux"]["Digest"] for line in lines if "Digest" in line.get("aux", {})]
        assert digests, lines
        return str(digests[0])
    finally:
        api.remove_image(image)
