"""The agent's side of warm jobs: it brings them calls, and reads what became of them.

A warm job (:mod:`perijove.runner.pool`) is a stranger's process: it may answer nothing, anything, or without
end. Its socket is opened without following links and must be its account's, what it answers is small and has
a deadline, and its journal is read as any file of a job is, in pieces. Nothing is kept here between two
calls, so an agent that is killed loses nothing.
"""

from __future__ import annotations

import array
import asyncio
import base64
import json
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from perijove.model import Account, Attempt, PerijoveError, ReasonCode, UnavailableError
from perijove_spawners.launcher import LaunchError
from perijove_spawners.node.attempts import Attempts
from perijove_spawners.node.jobfiles import ForeignFileError, open_file
from perijove_spawners.node.life import Life
from perijove_spawners.node.secrets import SecretFolders
from perijove_spawners.node.staging import JOB
from perijove_spawners.protocol import Answers
from perijove_spawners.store import CHUNK, Store

JOURNAL, SOCKET, FOLDER = "pool.jsonl", "pool.sock", "pool"
"""As the runner has them, which lives in the job's image and may be of another version."""
PIECE = 4 << 20
"""Bytes of a journal that are read at once; no line is as long."""
ANSWER = 4 << 20
"""Bytes that the job may answer at most."""
PATIENCE = 10.0
"""Seconds that it has to answer, on top of those that it was told to wait."""
_FILES = 64
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 0.2


class SilentJobError(LaunchError):
    """The warm job did not answer, or not what it should have; it may have taken the calls."""

    transient = True


class _UnstagedError(Exception):
    """A file cannot be brought, now or later."""

    def __init__(self, digest: str, message: str) -> None:
        super().__init__(message)
        self.digest = digest


class Pools:
    """The warm jobs of a node."""

    def __init__(
        self, attempts: Attempts, lives: Mapping[Attempt, Life], store: Store, secrets: SecretFolders
    ) -> None:
        self._attempts, self._lives, self._store, self._secrets = attempts, lives, store, secrets

    async def compute(
        self, attempt: Attempt, message: bytes, contents: Sequence[str], offset: int | None, wait: float = 0.0
    ) -> Answers:
        """See :meth:`perijove_spawners.protocol.NodeCalls.compute`."""
        life = self._lives.get(attempt)
        folder, account = await self._place(attempt, life)
        ended = life is None or life.ended.is_set()
        missing: tuple[str, ...] = ()
        if life is not None and not ended:
            if not life.started:
                raise LaunchError(f"{attempt} has not started")
            try:
                missing = await self._tell(life, folder, account, message, contents, wait)
            except _UnstagedError as error:
                return Answers((), offset or 0, end=False, unstaged={error.digest: str(error)})
        if offset is None:
            return Answers((), 0, end=ended, missing=missing)
        answers = await asyncio.to_thread(self._answers, folder, account, offset, ended)
        hidden = self._secrets.mask(attempt).hidden_in(list(answers.lines))
        return replace(answers, missing=missing, lines=tuple(hidden))

    async def _place(self, attempt: Attempt, life: Life | None) -> tuple[Path, Account]:
        if life is not None:
            return life.folder.path, life.order.account
        folder = self._attempts.folder(attempt)
        taken = (await asyncio.to_thread(folder.read)).taken
        if taken is None:
            raise LaunchError(f"nothing is known of {attempt}")
        return folder.path, taken.order.account

    # what it is told

    async def _tell(
        self,
        life: Life,
        folder: Path,
        account: Account,
        message: bytes,
        contents: Sequence[str],
        wait: float,
    ) -> tuple[str, ...]:
        """Send it files and the request; which files it misses."""
        try:
            async with asyncio.timeout(wait + PATIENCE):
                for i in range(0, len(contents), _FILES):
                    some = contents[i : i + _FILES]
                    with ExitStack() as stack:
                        files = [await asyncio.to_thread(self._file, stack, folder, one) for one in some]
                        keep = json.dumps({"contents": list(some)}).encode()
                        await _ask(life, folder, account, keep, files)
                answer = await _ask(life, folder, account, message)
        except TimeoutError:
            raise SilentJobError(f"{life.attempt} does not answer") from None
        except (OSError, ValueError, RecursionError) as error:
            raise SilentJobError(f"{life.attempt} does not answer as it should: {error}") from None
        missing = answer.get("missing", [])
        if not isinstance(missing, list) or not all(isinstance(one, str) for one in missing):
            raise SilentJobError(f"{life.attempt} does not answer as it should")
        return tuple(missing)

    def _file(self, stack: ExitStack, folder: Path, digest: str) -> int:
        """A copy of a file of the store without a name, which the job may read and nobody else can."""
        try:
            copy = stack.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
            with self._store.open(digest) as source:
                while data := source.read(CHUNK):
                    copy.write(data)
            copy.seek(0)
        except UnavailableError as error:
            raise LaunchError(f"an input could not be staged: {error}") from error
        except PerijoveError as error:
            raise _UnstagedError(digest, f"an input could not be staged: {error}") from error
        return copy.fileno()

    # what it answers

    def _answers(self, folder: Path, account: Account, offset: int, ended: bool) -> Answers:
        try:
            with open_file(folder, account, JOURNAL) as file:
                data = os.pread(file.fileno(), PIECE, offset)
        except FileNotFoundError:
            data = b""
        except ForeignFileError as error:
            raise LaunchError(f"{JOURNAL} {error}") from error
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and len(data) == PIECE:
            raise LaunchError(f"{JOURNAL} has a line of more than {PIECE} bytes")
        lines = tuple(
            self._kept(folder, account, line) for text in whole.splitlines() if (line := _parsed(text))
        )
        return Answers(lines, offset + len(whole), end=ended and len(data) < PIECE)

    def _kept(self, folder: Path, account: Account, line: dict[str, Any]) -> dict[str, Any]:
        """The line, its result in the store if it has one that is no value."""
        # Only what comes through here is the user's own.
        line = {name: value for name, value in line.items() if name not in {"digest", "size"}}
        try:
            if isinstance(data := line.pop("data", None), str):
                stored = self._store.put([base64.b64decode(data, validate=True)])
            elif isinstance(name := line.pop("file", None), str):
                if "/" in name:
                    raise ForeignFileError("is not in its folder")
                with open_file(folder, account, FOLDER, name) as file:
                    stored = self._store.put(file)
            else:
                return line
        except UnavailableError as error:
            raise LaunchError(f"a result could not be kept: {error}") from error
        except (PerijoveError, ForeignFileError, OSError, ValueError) as error:
            lost = {
                "reason": ReasonCode.OUTPUT_MISSING.value,
                "error": f"its result could not be kept: {error}",
            }
            return {**line, **lost}
        return {**line, "digest": stored.digest, "size": stored.size}


async def _ask(
    life: Life, folder: Path, account: Account, message: bytes, files: Sequence[int] = ()
) -> dict[str, Any]:
    """The job's answer to one request; OSError, ValueError or RecursionError when there is none."""
    loop, pause = asyncio.get_running_loop(), _FIRST_PAUSE
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as link:
            link.setblocking(False)
            try:
                await _connect(link, folder, account)
            except (FileNotFoundError, ConnectionRefusedError):
                # It may not listen yet.
                if life.ended.is_set():
                    raise
                await asyncio.sleep(pause)
                pause = min(1.5 * pause, _LONGEST_PAUSE)
                continue
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", files))] if files else []
            link.sendmsg([len(message).to_bytes(4, "big")], rights)
            await loop.sock_sendall(link, message)
            answer = await _received(link, int.from_bytes(await _received(link, 4), "big"))
            found: Any = json.loads(answer)
            if not isinstance(found, dict):
                raise ValueError("an answer is an object")
            return found


async def _received(link: socket.socket, size: int) -> bytes:
    if size > ANSWER:
        raise ValueError(f"an answer of {size} bytes")
    loop, data = asyncio.get_running_loop(), b""
    while len(data) < size:
        piece = await loop.sock_recv(link, size - len(data))
        if not piece:
            raise ConnectionResetError("it closed the connection")
        data += piece
    return data


async def _connect(link: socket.socket, folder: Path, account: Account) -> None:
    """Connect to ``job/pool.sock``: that very socket, of that very account, whatever is put in its place."""
    directory = os.open(folder / JOB, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        entry = os.open(SOCKET, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        info = os.fstat(entry)
        if not stat.S_ISSOCK(info.st_mode) or info.st_uid != account.uid:
            raise ValueError(f"{SOCKET} is not a socket of its account")
        # Also short enough: an address has 108 bytes (unix(7)).
        await asyncio.get_running_loop().sock_connect(link, f"/proc/self/fd/{entry}")
    finally:
        os.close(entry)
    # Who listens: pid, uid, gid (unix(7), SO_PEERCRED).
    _, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != account.uid:
        raise ValueError("another account listens")


def _parsed(text: bytes) -> dict[str, Any] | None:
    """A line; None for one that is none, as a torn one before a loss of power."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("call"), str) else None
