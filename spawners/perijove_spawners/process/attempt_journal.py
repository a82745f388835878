"""What the process launcher and its supervisors know of one attempt: a file with a line for each event.

The file is the truth; whatever else passes between launcher and supervisor is a hint to look at it. A line is
a word and JSON. Of the same word the last line counts:

``launch``     what to run; the first line. The launcher's.
``running``    supervisor, command, cgroup, boot. Written when the command has its number and before the
               user's program is executed: with it the program may have run, without it never did.
``failed``     why it could not be started; there may be another try.
``suspended``  whether it is frozen.
``limit``      its time limit in seconds, when that was changed; null for none.
``ended``      how it ended.

Who has the file locked decides about the start. One file, and not one for each event, because making a file
is what costs most of all that is done for a short job.

Nothing is synced: whatever was begun before a power failure is over after it. All that one can take away is
how a job ended in the seconds before, whose own files may then be lost too; it reads as cut down.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Mapping
from typing import Any

# Plain calls of os, not pathlib: a forked process pays for each page of memory it touches.

Record = dict[str, Any]


class Entries:
    """The journal as it was when it was read."""

    def __init__(self, text: bytes) -> None:
        self._last: dict[bytes, bytes] = {}
        self.failures = 0
        """How many tries to start it have failed."""
        # What follows the last line end was being written when the machine stopped.
        for line in text[: text.rfind(b"\n") + 1].split(b"\n"):
            word, blank, value = line.partition(b" ")
            if blank:
                self._last[word] = value
                self.failures += word == b"failed"

    def __contains__(self, word: str) -> bool:
        return word.encode() in self._last

    def get(self, word: str) -> Any:
        """The value of the last such line; None when there is none, or it is torn."""
        try:
            return json.loads(self._last.get(word.encode(), b"null"))
        except ValueError:
            return None


class AttemptJournal:
    """The journal of one attempt, there or not."""

    def __init__(self, path: str) -> None:
        self.path = path

    def create(self, launch: Mapping[str, Any]) -> None:
        """Begin it with its first line; one that is there stays as it is.

        Should this process be killed before the line is whole, or the line be lost with the power, nobody can
        tell any more whether the program ran: such a journal reads as one without ``launch``.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        with contextlib.suppress(FileExistsError):
            fd = os.open(self.path, flags, 0o600)
            try:
                _write(fd, "launch", launch)
            finally:
                os.close(fd)

    def read(self) -> Entries | None:
        """What is in it; None when nothing is known of the attempt."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            return Entries(_read_all(fd))
        finally:
            os.close(fd)

    def append(self, word: str, value: object) -> None:
        """Add a line; nothing happens when the journal has been removed."""
        try:
            fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            _write(fd, word, value)
        finally:
            os.close(fd)

    def claim(self) -> int | None:
        """Become the one who decides about the start; None while another is, or when there is no journal.

        The lock is kept by an open descriptor, and so ends with the process.
        """
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def remove(self) -> None:
        """Forget the attempt; idempotent."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)  # noqa: PTH108


def _write(fd: int, word: str, value: object) -> None:
    # A line end first as well: the line before may be torn.
    data = f"\n{word} {json.dumps(value)}\n".encode()
    while data:
        data = data[os.write(fd, data) :]


def _read_all(fd: int) -> bytes:
    data = b""
    while piece := os.read(fd, os.fstat(fd).st_size - len(data) + 1):
        data += piece
    return data
