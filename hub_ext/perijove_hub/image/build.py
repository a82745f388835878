"""Builds the notebook image on a Docker Engine, through its API."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, BuildError, DockerException, ImageNotFound

from perijove.model import OperatorError
from perijove.version import __version__
from perijove_hub.image.base import find_base
from perijove_hub.image.context import checkout, inputs_digest, write_context

log = logging.getLogger(__name__)

REPOSITORY = "perijove-notebook"
INPUTS_LABEL = "org.perijove.inputs"
SILENCE_SECONDS = 600
"""Longest the engine may say nothing during a build."""


def build_image(*, rebuild: bool = False, say: Callable[[str], object] = log.info) -> str:
    """Have ``perijove-notebook:latest`` on the engine, made from this checkout; returns its reference.

    Nothing is done when the image was made from the same inputs. Raises :class:`OperatorError`.
    """
    reference = f"{REPOSITORY}:latest"
    source = checkout()
    inputs = inputs_digest(source)
    try:
        client = docker.from_env(timeout=SILENCE_SECONDS)
        client.ping()
    except DockerException as error:
        raise OperatorError(f"there is no Docker Engine to build the notebook image on: {error}") from error
    with contextlib.closing(client):
        if not rebuild and _inputs_of(client, reference) == inputs:
            say(f"the image {reference} is up to date")
            return reference
        try:
            _build(client, source, inputs, say)
        except (BuildError, APIError) as error:
            raise OperatorError(f"the notebook image could not be built: {_tail(error)}") from error
    return reference


def _build(client: docker.DockerClient, source: Path, inputs: str, say: Callable[[str], object]) -> None:
    base = find_base(client)
    say(f"building {REPOSITORY}:latest on {base}; this takes a minute or two the first time")
    with tempfile.TemporaryDirectory(prefix="perijove-image-") as scratch:
        write_context(Path(scratch), source)
        image, _ = client.images.build(
            path=scratch,
            tag=f"{REPOSITORY}:latest",
            buildargs={"BASE": base, "INPUTS": inputs},
            rm=True,
            forcerm=True,
        )
    image.tag(REPOSITORY, tag=__version__.replace("+", "-"))


def _inputs_of(client: docker.DockerClient, reference: str) -> str | None:
    try:
        labels: dict[str, str] = client.images.get(reference).labels
    except ImageNotFound:
        return None
    return labels.get(INPUTS_LABEL)


def _tail(error: BuildError | APIError) -> str:
    """The last lines of the build's own output: that is where the cause is."""
    lines: list[Any] = [line.get("stream", "") for line in getattr(error, "build_log", [])]
    return f"{error}\n{''.join(lines)[-2000:]}".strip()
