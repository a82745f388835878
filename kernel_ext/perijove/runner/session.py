"""The part of a checkpoint that runs in the kernel: variables of the notebook to a file, and back.

Modules are kept by name and imported again. Functions and classes that cells defined are kept by value
(cloudpickle), and the functions have the notebook's variables for their globals again, as before.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import cloudpickle

from perijove.runner.names import needed
from perijove.runner.surroundings import START, restore, surroundings

CHUNK = 1 << 20


class NotSavedError(Exception):
    """The session cannot be saved so that the cells below would run as if it had never ended."""


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: Any, namespace: dict[str, Any]) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self._namespace = namespace
        # cloudpickle would give the functions globals of their own, and a later cell that changes a
        # variable would not change it for them.
        self.globals_ref[id(namespace)] = namespace

    def persistent_id(self, value: Any) -> str | None:
        return "namespace" if value is self._namespace else None

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, io.TextIOWrapper):
            # cloudpickle would keep a copy of what is in the file.
            raise pickle.PicklingError("an open file")
        return super().reducer_override(value)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, namespace: dict[str, Any]) -> None:
        super().__init__(file)
        self._namespace = namespace

    def persistent_load(self, key: str) -> Any:
        if key != "namespace":
            raise pickle.UnpicklingError(f"no {key} here")
        return self._namespace


class _Hashing:
    """A file of which the digest is known once it is written."""

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self.sha256.update(view)
        if self._file is not None:
            self._file.write(view)
        return len(view)


def save(target: str, names: Sequence[str], later: Sequence[str], replies: str) -> None:
    """Write the session to the file `target`, and what became of it to the file `replies`, as JSON.

    `names`: the variables to keep, beside modules, functions and classes; all when empty. `later`: the code
    that runs after it. The reply has ``digest``, ``left_out`` (names) and ``reads``, or ``refused``.
    """
    try:
        reply = _save(Path(target), names, later)
    except NotSavedError as error:
        reply = {"refused": str(error)}
    except Exception as error:  # pickling runs whatever classes define
        reply = {"refused": f"{type(error).__name__}: {error}"}
    if "refused" in reply:
        Path(target).unlink(missing_ok=True)
    Path(replies).write_text(json.dumps(reply))


def _save(target: Path, names: Sequence[str], later: Sequence[str]) -> dict[str, Any]:
    namespace = _namespace()
    chosen, left_out = _chosen(namespace, names)
    state = surroundings()
    with target.open("xb") as file:
        try:
            hashing = _written(file, state, chosen, namespace)
        except Exception:
            bad = _unpicklable(chosen, namespace)
            left_out |= bad
            file.seek(0)
            file.truncate()
            hashing = _written(file, state, {name: chosen[name] for name in chosen.keys() - bad}, namespace)
        file.flush()
        os.fsync(file.fileno())
    if lost := sorted(needed(later) & left_out):
        raise NotSavedError(_why_lost(lost, namespace, bool(names)))
    return {
        "digest": hashing.sha256.hexdigest(),
        "left_out": sorted(left_out),
        "reads": START.unchanged_reads(),
    }


def _written(
    file: BinaryIO, state: dict[str, Any], values: dict[str, Any], namespace: dict[str, Any]
) -> _Hashing:
    hashing = _Hashing(file)
    # A pickle of its own: variables may need the state, such as the directory, to be unpickled.
    cloudpickle.dump(state, hashing, protocol=pickle.HIGHEST_PROTOCOL)
    _Pickler(hashing, namespace).dump(values)
    return hashing


def _chosen(namespace: dict[str, Any], names: Sequence[str]) -> tuple[dict[str, Any], set[str]]:
    """What is to be kept, and the names of what is not."""
    if absent := [name for name in names if name not in namespace]:
        raise NotSavedError(f"# save: {absent[0]}: there is no such name")
    own = {name: value for name, value in namespace.items() if not START.is_foreign(name)}
    if not names:
        return own, set()
    code = types.ModuleType | types.FunctionType | type
    chosen = {name: value for name, value in own.items() if name in names or isinstance(value, code)}
    chosen.update({name: namespace[name] for name in names})
    return chosen, own.keys() - chosen.keys()


def _unpicklable(values: dict[str, Any], namespace: dict[str, Any]) -> set[str]:
    bad = set()
    for name, value in values.items():
        try:
            _Pickler(_Hashing(None), namespace).dump(value)
        except Exception:
            bad.add(name)
    return bad


def _why_lost(lost: Sequence[str], namespace: dict[str, Any], named: bool) -> str:
    what = ", ".join(f"{name} ({type(namespace[name]).__name__})" for name in lost)
    if named:
        return f"cells below use {what}, which the line # save: leaves out or which cannot be pickled"
    return f"cells below use {what}, which cannot be pickled; make it in a cell tagged always"


def load(source: str, digest: str, job_directory: str, replies: str) -> None:
    """Bring back the session of the file `source`, whose SHA-256 must be `digest`.

    `job_directory`: that of the attempt that saved it; paths below it become paths of this one's. What
    became of it is written to the file `replies`: ``{}`` or ``refused``.
    """
    try:
        _load(Path(source), digest, job_directory)
        reply = {}
    except Exception as error:  # unpickling runs whatever classes define
        reply = {"refused": f"{type(error).__name__}: {error}"}
    Path(replies).write_text(json.dumps(reply))


def _load(source: Path, digest: str, job_directory: str) -> None:
    namespace = _namespace()
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(file.fileno()).st_uid != os.geteuid():
            raise PermissionError(f"{source} belongs to somebody else")
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            raise ValueError(f"{source} is damaged")
        file.seek(0)
        swap = _swap(job_directory, os.environ.get("PERIJOVE_JOB_DIR", ""))
        before = surroundings()
        state = pickle.load(file)  # noqa: S301 - the owner's own, of the digest that the owner noted
        try:
            restore({**state, "cwd": swap(state["cwd"])})
            values = _Unpickler(file, namespace).load()
        except BaseException:
            restore(before)
            raise
        namespace.update({name: swap(value) for name, value in values.items()})


def _swap(old: str, new: str) -> Callable[[Any], Any]:
    """Paths in one attempt's directory -> in another's."""

    def swapped(value: Any) -> Any:
        if isinstance(value, PurePath) and old and value.is_relative_to(old):
            return type(value)(new) / value.relative_to(old)
        if type(value) is str and old and (value == old or value.startswith(f"{old}/")):
            return new + value.removeprefix(old)
        return value

    return swapped


def _namespace() -> dict[str, Any]:
    namespace: dict[str, Any] = sys.modules["__main__"].__dict__
    return namespace
