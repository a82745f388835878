"""What a job leaves in its own directory, opened as what it is: a stranger's.

Links are not followed at any step, and only regular files that belong to the job's account are taken.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from perijove.model import Account
from perijove_spawners.node.staging import JOB
from perijove_spawners.store import Store

READ_LIMIT = 1 << 20
"""Bytes given out at once."""


class ForeignFileError(Exception):
    """It is there, but not a regular file of the job's account. The message continues a sentence."""


def open_file(folder: Path, account: Account, *parts: str) -> BinaryIO:
    """The file ``job/*parts`` of an attempt's folder.

    ``FileNotFoundError`` when there is none, :class:`ForeignFileError` when it is not to be trusted.
    """
    *directories, name = parts
    try:
        current = os.open(folder / JOB, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            for part in directories:
                following = os.open(
                    part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current
                )
                os.close(current)
                current = following
            # Opening a FIFO must not wait for its writer.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=current)
        finally:
            os.close(current)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ForeignFileError(f"cannot be opened safely ({error.strerror})") from error
    info = os.fstat(descriptor)
    if not stat.S_ISREG(info.st_mode) or info.st_uid != account.uid:
        os.close(descriptor)
        raise ForeignFileError("is not a regular file of the job's account")
    return os.fdopen(descriptor, "rb", buffering=0)


def read_display(folder: Path, account: Account, offset: int, limit: int) -> bytes:
    """At most `limit` bytes of ``display.jsonl`` from byte `offset`; nothing where there is none."""
    try:
        with open_file(folder, account, "display.jsonl") as file:
            return os.pread(file.fileno(), min(limit, READ_LIMIT), offset)
    except (FileNotFoundError, ForeignFileError):
        return b""


def take_outputs(
    folder: Path, account: Account, names: Sequence[str], store: Store
) -> tuple[dict[str, str], dict[str, str]]:
    """Take ``output/NAME`` of each name into the store: (name -> digest, name -> why it was not taken)."""
    taken: dict[str, str] = {}
    missing: dict[str, str] = {}
    for name in names:
        try:
            with open_file(folder, account, "output", name) as file:
                taken[name] = store.put(file).digest
        except FileNotFoundError:
            missing[name] = "was not written"
        except ForeignFileError as error:
            missing[name] = str(error)
        except Exception as error:  # stores of all makes raise what they like
            missing[name] = f"could not be kept: {error}"
    return taken, missing
