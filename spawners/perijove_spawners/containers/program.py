"""What a container runs: the job's command, or the image's own program with it; with files opened before."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from perijove_spawners.launcher import Launch

SHELL = "/bin/sh"


@dataclass(frozen=True, slots=True)
class OwnProgram:
    """What an image runs by itself: its ``ENTRYPOINT`` and ``CMD``."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def needs_shell(launch: Launch) -> bool:
    """Whether a shell in the image opens files before the program: engines have no other way."""
    return bool(launch.stdin or launch.descriptors)


def program(launch: Launch, own: OwnProgram) -> dict[str, Any]:
    """The fields ``Entrypoint`` and ``Cmd`` of a container that has an image with `own`.

    Without ``entrypoint: image`` that of the image is not run: a job's command is all there is.
    """
    words = launch.command
    if launch.entrypoint:
        words = (*own.entrypoint, *(launch.command or own.command))
    if not needs_shell(launch):
        return {"Entrypoint": list(words) or None, "Cmd": []}
    opened = [f"<{shlex.quote(launch.stdin)}"] if launch.stdin else []
    opened += [f"{number}>>{shlex.quote(path)}" for number, path in launch.descriptors.items()]
    return {"Entrypoint": [SHELL, "-c", f'exec "$0" "$@" {" ".join(opened)}', *words], "Cmd": []}
