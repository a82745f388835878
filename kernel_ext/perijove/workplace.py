"""Where the submitting process stands, and what of that a job is to share: image, directory, interpreter."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from perijove.client import AsyncClient

PLAIN_LAUNCHERS = frozenset({"process", "memory"})
"""Launchers that run on the node as it is, and not in an image."""


def place(
    fields: Mapping[str, Any], launchers: Iterable[str], env: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """`fields` of a spec with image and working directory filled in from where this process is.

    A notebook in a container sends its jobs to the same image. The working directory goes along when the job
    will find it: always where plain processes are all there is, else when it lies in the home.
    """
    env = os.environ if env is None else env
    placed = dict(fields)
    image = env.get("PERIJOVE_IMAGE")
    if image and "image" not in placed and "launcher" not in placed:
        placed["image"] = image
    if "cwd" not in placed and (directory := _shared_directory(placed, launchers, env)):
        placed["cwd"] = directory
    return placed


def _shared_directory(
    fields: Mapping[str, Any], launchers: Iterable[str], env: Mapping[str, str]
) -> str | None:
    try:
        return shared_directory(Path.cwd(), fields, launchers, env)
    except OSError:
        return None


def shared_directory(
    here: Path, fields: Mapping[str, Any], launchers: Iterable[str], env: Mapping[str, str]
) -> str | None:
    """`here`, if a job of `fields` will find it; else None."""
    known = {fields["launcher"]} if "launcher" in fields else set(launchers)
    if known and known <= PLAIN_LAUNCHERS and "image" not in fields:
        return str(here)
    home = Path(env.get("HOME") or Path.home())
    for inside in (home, home.resolve()):
        if here.is_relative_to(inside):
            return str(here)
    return None


async def interpreter(fields: Mapping[str, Any], client: AsyncClient) -> str:
    """The Python to run in a job of `fields`: this one where the job sees it, else the image's ``python``."""
    own = os.environ.get("PERIJOVE_IMAGE")
    if image := fields.get("image"):
        return sys.executable if image == own else "python"
    launcher = fields.get("launcher") or await _default_launcher(client)
    return sys.executable if launcher is None or launcher in PLAIN_LAUNCHERS else "python"


async def _default_launcher(client: AsyncClient) -> str | None:
    known = client.connection.launchers
    if known and set(known) <= PLAIN_LAUNCHERS:
        return known[0]
    site = await client.site()
    if default := site.get("default_launcher"):
        return str(default)
    offered = site.get("launchers") or []
    names = [str(item["name"] if isinstance(item, dict) else item) for item in offered]
    return names[0] if names else None
