"""What the notebook image stands on: a Python image of the engine's registry, else one made of packages."""

from __future__ import annotations

import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import docker
from docker.errors import APIError, ImageNotFound
from requests.exceptions import RequestException

from perijove.model import OperatorError

log = logging.getLogger(__name__)

REGISTRY_IMAGE = ("python", "3.12-slim")
LOCAL_IMAGE = "perijove-base"
PACKAGES = "bash,ca-certificates,git,openssh-client,procps,python3-minimal,python3-pip,python3-venv"
BUILD_SECONDS = 900


def find_base(client: docker.DockerClient) -> str:
    """The reference of a base image that is present on the engine now.

    Raises :class:`OperatorError` that says what to do when there is no way to get one.
    """
    repository, tag = REGISTRY_IMAGE
    local = f"{LOCAL_IMAGE}:{_release().get('VERSION_CODENAME', 'stable')}"
    for reference in (f"{repository}:{tag}", local):
        if _present(client, reference):
            return reference
    try:
        log.info("pulling %s:%s", repository, tag)
        for _ in client.api.pull(repository, tag=tag, stream=True, decode=True):
            pass
        if _present(client, f"{repository}:{tag}"):
            return f"{repository}:{tag}"
    except (APIError, RequestException) as error:
        log.info("the engine's registry does not serve %s:%s: %s", repository, tag, error)
    _import_packages(client, local)
    return local


def _import_packages(client: docker.DockerClient, reference: str) -> None:
    """A root file system of the host's own release, made by mmdebstrap(1)."""
    program = _mmdebstrap()
    suite = _release().get("VERSION_CODENAME")
    if suite is None:
        raise OperatorError(
            "no base image: the registry is out of reach, and this system is not Debian or Ubuntu"
        )
    log.info("making a base image of %s's packages", suite)
    components = ["--components=main,universe"] if _release().get("ID") == "ubuntu" else []
    with tempfile.TemporaryDirectory(prefix="perijove-base-") as scratch:
        tar = Path(scratch) / "base.tar"
        command = [
            program,
            "--quiet",
            "--variant=minbase",
            *components,
            f"--include={PACKAGES}",
            suite,
            str(tar),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
        if done.returncode:
            raise OperatorError(f"mmdebstrap could not make a base image:\n{done.stderr.strip()[-2000:]}")
        repository, _, tag = reference.partition(":")
        client.api.import_image_from_file(str(tar), repository=repository, tag=tag)


def _mmdebstrap() -> str:
    if (program := shutil.which("mmdebstrap")) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "update", "-qq"], check=False, capture_output=True)
        subprocess.run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "mmdebstrap"],
            check=False,
            capture_output=True,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
        program = shutil.which("mmdebstrap")
    if program is None:
        raise OperatorError(
            "no base image: the engine's registry is out of reach, and there is no mmdebstrap to make one; "
            "run: apt-get install mmdebstrap"
        )
    return program


def _present(client: docker.DockerClient, reference: str) -> bool:
    try:
        client.images.get(reference)
    except ImageNotFound:
        return False
    return True


def _release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}
