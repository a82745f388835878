"""The launcher's end of its supervisor: start it, tell it what to run, see it go.

The other end, and what it is for: :mod:`.supervisor`.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import perijove_spawners
from perijove.model import Attempt
from perijove_spawners.launcher import EngineError
from perijove_spawners.process.attempt_journal import Record

HELLO_TIMEOUT = 30.0


def interpreter(code: str, *args: str) -> list[str]:
    """The command that runs `code` with the standard library and this package alone, in 10 ms.

    In UTF-8 mode whatever the agent's locale is, so that arguments and environment arrive as they were given.
    """
    root = Path(perijove_spawners.__file__).resolve().parent.parent
    start = f"import sys; sys.path.append({str(root)!r}); {code}"
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", start, *args]


class SupervisorProcess:
    """A supervisor for what this launcher starts; when it has died, the next message starts another."""

    def __init__(self, directory: Path, group: str, within: str | None) -> None:
        self._directory = directory
        self._options = (group, within or "")
        self._socket: socket.socket | None = None
        self._lock = asyncio.Lock()

    async def open(self) -> Record:
        """Start it and learn what it can give to jobs; :class:`EngineError` when it does not come up."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        code = "from perijove_spawners.process.supervisor import main; main(*sys.argv[1:])"
        with theirs, (self._directory / "supervisors.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: ASYNC220 -- 2 ms, once per agent
                interpreter(code, str(theirs.fileno()), str(self._directory), *self._options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": os.defpath},
                pass_fds=[theirs.fileno()],
                # So that Ctrl-C in the agent's terminal does not reach it.
                start_new_session=True,
            )
        self._socket = ours
        # It forks the supervisor and ends.
        await asyncio.to_thread(process.wait)
        try:
            async with asyncio.timeout(HELLO_TIMEOUT):
                hello = await asyncio.get_running_loop().sock_recv(ours, 65536)
            abilities: Record = json.loads(hello)
        except (TimeoutError, OSError, ValueError) as error:
            await self.close()
            log_path = self._directory / "supervisors.log"
            raise EngineError(f"the supervisor did not come up; see {log_path}") from error
        return abilities

    async def send(self, attempt: Attempt) -> None:
        """Have `attempt` started. That may be lost: look, and send again."""
        async with self._lock:
            if self._socket is None:
                await self.open()
            assert self._socket is not None
            try:
                await asyncio.get_running_loop().sock_sendall(self._socket, f"{attempt} ".encode())
            except OSError:
                await self.close()

    async def close(self) -> None:
        """Let it end with its last job."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
