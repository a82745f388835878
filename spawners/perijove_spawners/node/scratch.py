"""Scratch space of jobs (``tmp_disk``): a file system of each attempt's own, gone at its end.

In the node's directory::

    scratch/12.1/image    the file system
    scratch/12.1/files    where it is mounted: $PERIJOVE_SCRATCH, in containers at /scratch

An agent that is killed leaves these to the next, which removes what belongs to no attempt that lives.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from perijove.model import Account, Attempt, OperatorError, format_size
from perijove.model.spec import MIB
from perijove_spawners.failpoints import reach
from perijove_spawners.launcher import SCRATCH_DIRECTORY, LaunchError, Mount
from perijove_spawners.node import filesystems
from perijove_spawners.node.filesystems import FileSystemError, Image

log = logging.getLogger(__name__)

FOLDER = "scratch"
_IMAGE, _FILES = "image", "files"
_TRIAL = ".trial"


class ScratchError(LaunchError):
    """The node could not make the space; another node or another time may do."""

    transient = True


@dataclass(frozen=True, slots=True)
class Scratch:
    """The scratch space of a node; its verbs block, and may be repeated at any point."""

    directory: Path
    """Its own, below the node's."""
    capacity: int = 0
    """Bytes to give out."""
    sparse: bool = False
    """Space is taken as it is written: then the disk may be full before a job's share is."""

    @property
    def units(self) -> int:
        """What the node announces, in units of :data:`~perijove.model.spec.MIB`."""
        return self.capacity // MIB

    def open(self, living: Collection[Attempt]) -> None:
        """Clear away what belongs to none of `living`; :class:`OperatorError` when there can be none here."""
        for name in _listed(self.directory):
            if name not in {str(attempt) for attempt in living}:
                self._clear(self.directory / name)
        if self.capacity:
            try:
                self._try()
            except (OSError, FileSystemError) as error:
                raise OperatorError(f"--scratch {format_size(self.capacity)}: {error}") from error

    def _try(self) -> None:
        if reason := filesystems.missing():
            raise FileSystemError(reason)
        self.directory.mkdir(exist_ok=True, mode=0o711)
        self.directory.chmod(0o711)
        own = Account("root", os.geteuid(), os.getegid(), "/")
        self._make(self.directory / _TRIAL, MIB, own)
        self._clear(self.directory / _TRIAL)

    def provide(self, attempt: Attempt, size: int, account: Account) -> None:
        """Have space for `attempt`, empty and the account's alone. :class:`ScratchError`."""
        if not self.capacity:
            raise ScratchError("this node gives out no scratch space")
        try:
            self._make(self.directory / str(attempt), size, account)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}:
                raise ScratchError(
                    f"the node has no room for {format_size(size)} of scratch space"
                ) from error
            raise ScratchError(f"the scratch space could not be made: {error.strerror}") from error
        except FileSystemError as error:
            raise ScratchError(f"the scratch space could not be made: {error}") from error

    def _make(self, folder: Path, size: int, account: Account) -> None:
        image = Image(folder / _IMAGE, folder / _FILES)
        if not image.mounted:
            folder.mkdir(exist_ok=True, mode=0o711)
            folder.chmod(0o711)
            image.at.mkdir(exist_ok=True, mode=0o700)
            image.make(size, account, sparse=self.sparse, lasting=False)
            reach("node.scratch-made")
            image.mount()
            reach("node.scratch-mounted")
        image.clear(account)

    def release(self, attempt: Attempt) -> None:
        """All of it goes, whatever is still open there."""
        self._clear(self.directory / str(attempt))

    def _clear(self, folder: Path) -> None:
        image = Image(folder / _IMAGE, folder / _FILES)
        try:
            image.unmount()
            reach("node.scratch-unmounted")
            # Not before: a mount that stayed would lose its files, one by one.
            shutil.rmtree(folder)
        except FileNotFoundError:
            pass
        except (OSError, FileSystemError) as error:
            log.error("scratch space %s stays until the agent is started again: %s", folder, error)


def place(folder: Path) -> Path:
    """The scratch space of the attempt whose folder that is, on the node."""
    return folder.parent.parent / FOLDER / folder.name / _FILES


def mount_of(folder: Path) -> Mount:
    """The same, as a container sees it."""
    return Mount(str(place(folder)), SCRATCH_DIRECTORY)


def _listed(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except FileNotFoundError:
        return []
