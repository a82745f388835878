"""Logs of ended attempts, in the attempts' own folders."""

from __future__ import annotations

import os

from perijove_spawners.launcher import Stream
from perijove_spawners.node.attempts import Folder
from perijove_spawners.node.engine import Engine, persist
from perijove_spawners.node.jobfiles import READ_LIMIT
from perijove_spawners.protocol import LogStream

STREAMS: tuple[Stream, ...] = ("stdout", "stderr")


async def keep_logs(engine: Engine, folder: Folder) -> None:
    """Copy what an ended attempt wrote from its engine into its folder, unless it lies there already."""
    for stream in STREAMS:
        path = f"{folder.base}/{stream}"
        # No file is made for a log in which nothing is.
        if os.access(path, os.F_OK) or not (data := await _piece(engine, folder, stream, 0)):
            continue
        partial = f"{folder.base}/.{stream}"
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            while data:
                file.write(data)
                data = await _piece(engine, folder, stream, file.tell())
        os.rename(partial, path)  # noqa: PTH104


async def _piece(engine: Engine, folder: Folder, stream: Stream, offset: int) -> bytes:
    return await persist(
        lambda: engine.launcher.logs(folder.attempt, stream, offset=offset, limit=READ_LIMIT),
        f"{folder.attempt}: logs",
    )


def read_kept(folder: Folder, stream: LogStream, offset: int, limit: int) -> bytes:
    """At most `limit` bytes of a log in the attempt's own folder."""
    try:
        with (folder.path / stream).open("rb", buffering=0) as file:
            return os.pread(file.fileno(), min(limit, READ_LIMIT), offset)
    except FileNotFoundError:
        return b""
