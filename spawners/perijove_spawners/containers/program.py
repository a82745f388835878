"""What a container runs: the job's command, or the image's own program with it; with files opened before."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
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
    """Whether a shell in the image opens files before the program, or reads variables: engines cannot."""
    return bool(launch.stdin or launch.descriptors or launch.secrets)


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
    text = f'{_variables(launch.secrets)}exec "$0" "$@" {" ".join(opened)}'
    return {"Entrypoint": [SHELL, "-c", text.rstrip(), *words], "Cmd": []}


_READ = """perijove_() { perijove_value=
while IFS= read -r perijove_line; do perijove_value=$perijove_value$perijove_line'
'; done <"$1" || exit 126
perijove_value=$perijove_value$perijove_line; }
"""
"""Reads a file as it is with nothing but the shell itself: images need no other program."""


def _variables(secrets: Mapping[str, str]) -> str:
    """The shell's text that makes variables of files, so that the engine knows no value."""
    if not secrets:
        return ""
    each = [
        f'perijove_ {shlex.quote(path)}; export {variable}="$perijove_value"\n'
        for variable, path in secrets.items()
    ]
    return f"{_READ}{''.join(each)}unset -f perijove_; unset perijove_value perijove_line\n"
