"""The job's own directory: laid out before the start, under another name until it is complete.

What lies in an attempt's folder for its job:

- ``job/``, the account's own: what processes and containers find at ``$PERIJOVE_JOB_DIR``;
- ``mounted/``, which only the agent may enter, for what a container sees elsewhere: ``mounted/input`` at
  ``/in``, and ``mounted/out/N`` at the N-th folder of outputs with absolute places. Other processes of the
  account cannot put a link in the way of what the engine mounts from here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from perijove.model import Account, PerijoveError, UnavailableError
from perijove_spawners.launcher import JOB_DIRECTORY, LaunchError, Mount
from perijove_spawners.node.ownership import give
from perijove_spawners.places import Place, folders, lies_in
from perijove_spawners.protocol import Order
from perijove_spawners.store import Store

JOB = "job"
INPUT_DIRECTORY = "/in"
"""Where a container finds its inputs."""
_MOUNTED = "mounted"
_UNFINISHED = ".job"


class StagingError(LaunchError):
    """What the job needs could not be laid out in its directory."""


class StagingFaultError(StagingError):
    """The node or the store is at fault (a disk is full, say); another node or another time may do."""

    transient = True


def files_account(order: Order) -> Account:
    """Whose the job's directory is while it runs."""
    return Account("root", 0, 0, "/root") if order.root else order.account


def give_job(folder: Path, account: Account) -> None:
    """All that lies in the attempt's folder for its job becomes the account's; ``OSError``."""
    outs = folder / _MOUNTED / "out"
    for path in (*(outs.iterdir() if outs.is_dir() else ()), folder / JOB):
        give(path, account.uid, account.gid)


def stage(folder: Path, order: Order, store: Store, *, containers: bool = False) -> None:
    """Lay out the attempt's folder: script, ``input/``, ``output/``, and what `containers` see elsewhere.

    Until it is complete nobody but the agent can look into it, so no other process of the account can
    put links in the way. Safe to repeat.
    """
    order = replace(order, account=files_account(order))
    try:
        if order.script is None and not order.inputs and not order.outputs:
            _make_empty(f"{folder}/{JOB}", order.account)
        else:
            _make_filled(folder, order, store, containers)
    except UnavailableError as error:
        raise StagingFaultError(f"an input could not be staged: {error}") from error
    except PerijoveError as error:
        raise StagingError(f"an input could not be staged: {error}") from error
    except OSError as error:
        said = error.strerror or error
        raise StagingFaultError(f"the job's directory could not be made: {said}") from error


def mounts_of(folder: Path, order: Order) -> tuple[Mount, ...]:
    """What a container mounts of what was staged."""
    found = []
    if order.inputs:
        source = f"{folder}/{_MOUNTED}/input"
        found += [Mount(source, at, read_only=True) for at in (INPUT_DIRECTORY, f"{JOB_DIRECTORY}/input")]
    for number, target in enumerate(folders(order.outputs.values())):
        found.append(Mount(f"{folder}/{_MOUNTED}/out/{number}", target))
    return tuple(found)


def outside(folder: Path, places: Iterable[str], place: Place) -> tuple[Path, tuple[str, ...]]:
    """Of an absolute place among `places`: the mounted folder on this node, and the way to it below that."""
    for number, target in enumerate(folders(places)):
        if lies_in(place.folder, target):
            return folder / _MOUNTED / "out" / str(number), place.parts[len(Path(target).parts) - 1 :]
    raise ValueError(f"{place} is in none of the places")


def descriptor_file(number: int) -> str:
    """In the job's directory, the file that is open as this file descriptor."""
    return f".fd{number}"


def _make_empty(job: str, account: Account) -> None:
    # Most jobs need no more, and each directory made costs a short job as much as all that Python does.
    with contextlib.suppress(FileExistsError):
        os.mkdir(job, 0o700)  # noqa: PTH102
    _give(job, account)


def _make_filled(folder: Path, order: Order, store: Store, containers: bool) -> None:
    job = folder / JOB
    if job.exists():
        return
    fresh, mounted = folder / _UNFINISHED, folder / _MOUNTED
    for left in (fresh, mounted):
        if left.exists():
            shutil.rmtree(left)
    fresh.mkdir(mode=0o700)
    _fill(fresh, order)
    inputs = fresh / "input"
    if containers and (order.inputs or folders(order.outputs.values())):
        mounted.mkdir(mode=0o700)
        _make_places(mounted, order)
        if order.inputs:
            inputs.mkdir(mode=0o700)  # something to mount on
            _give(inputs, order.account)
        inputs = mounted / "input"
    if order.inputs:
        inputs.mkdir(mode=0o755)
        inputs.chmod(0o755)
        for name, digest in order.inputs.items():
            _copy(store, name, digest, inputs / name)
    _give(fresh, order.account)
    fresh.rename(job)


def _fill(job: Path, order: Order) -> None:
    if order.script is not None:
        _write(job / "script", order.script.encode(), order.account, 0o700)
    (job / "output").mkdir(mode=0o700)
    _give(job / "output", order.account)


def _make_places(mounted: Path, order: Order) -> None:
    """The folders that a container mounts for absolute places, and in them those that the places lie in."""
    (mounted / "out").mkdir(mode=0o755)
    for number, target in enumerate(folders(order.outputs.values())):
        top = mounted / "out" / str(number)
        top.mkdir(mode=0o700)
        _give(top, order.account)
        for text in order.outputs.values():
            place = Place.parse(text)
            if place.absolute and lies_in(place.folder, target):
                below = top
                for part in Path(place.folder).relative_to(target).parts:
                    below /= part
                    if not below.exists():
                        below.mkdir(mode=0o700)
                        _give(below, order.account)


def _copy(store: Store, name: str, digest: str, path: Path) -> None:
    """One input. It stays the agent's, for all who get as far as here to read and for none to write."""
    try:
        store.copy_out(digest, path)
    except UnavailableError as error:
        raise StagingFaultError(f"input {name} could not be staged: {error}") from error
    except PerijoveError as error:
        raise StagingError(f"input {name} could not be staged: {error}") from error


def _write(path: Path, data: bytes, account: Account, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    _give(path, account)


def _give(path: Path | str, account: Account) -> None:
    if os.geteuid() == 0:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
