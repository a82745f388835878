"""The job's own directory: laid out before the start, under another name until it is complete."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from perijove.model import Account, PerijoveError
from perijove_spawners.launcher import LaunchError
from perijove_spawners.protocol import Order
from perijove_spawners.store import CHUNK, Store

JOB = "job"
_UNFINISHED = ".job"


class StagingError(LaunchError):
    """What the job needs could not be laid out in its directory."""


class StagingFaultError(StagingError):
    """The node is at fault (its disk is full, say); another node or another time may do."""

    transient = True


def stage(folder: Path, order: Order, store: Store) -> None:
    """Lay out ``job/`` in the attempt's folder: script, ``input/``, ``output/``; all the account's.

    Until it is complete nobody but the agent can look into it, so no other process of the account can
    put links in the way. Safe to repeat.
    """
    try:
        if order.script is None and not order.inputs and not order.outputs:
            _make_empty(f"{folder}/{JOB}", order.account)
        else:
            _make_filled(folder, order, store)
    except PerijoveError as error:
        raise StagingError(f"an input could not be staged: {error}") from error
    except OSError as error:
        raise StagingFaultError(f"the job's directory could not be made: {error.strerror}") from error


def _make_empty(job: str, account: Account) -> None:
    # Most jobs need no more, and each directory made costs a short job as much as all that Python does.
    with contextlib.suppress(FileExistsError):
        os.mkdir(job, 0o700)  # noqa: PTH102
    _give(job, account)


def _make_filled(folder: Path, order: Order, store: Store) -> None:
    job = folder / JOB
    if job.exists():
        return
    fresh = folder / _UNFINISHED
    if fresh.exists():
        shutil.rmtree(fresh)
    fresh.mkdir(mode=0o700)
    _fill(fresh, order, store)
    _give(fresh, order.account)
    fresh.rename(job)


def _fill(job: Path, order: Order, store: Store) -> None:
    if order.script is not None:
        _write(job / "script", order.script.encode(), order.account, 0o700)
    for name in ("input", "output") if order.inputs else ("output",):
        (job / name).mkdir(mode=0o700)
        _give(job / name, order.account)
    for name, digest in order.inputs.items():
        _copy(store, digest, job / "input" / name, order.account)


def _copy(store: Store, digest: str, path: Path, account: Account) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as target, store.open(digest) as source:
        shutil.copyfileobj(source, target, CHUNK)
    _give(path, account)


def _write(path: Path, data: bytes, account: Account, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    _give(path, account)


def _give(path: Path | str, account: Account) -> None:
    if os.geteuid() == 0:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
