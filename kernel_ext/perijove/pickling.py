"""Pickles whose bytes depend on what is pickled alone: the same function, the same digest after a restart.

cloudpickle alone puts into a pickle where the source lay (IPython gives each cell a path with the kernel's
number), random identities of classes, and sets in the order of their hashes, which differ between processes.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any

import cloudpickle
from cloudpickle import cloudpickle as engine

from perijove.model.errors import FieldError, InvalidSpecError

PROTOCOL = 5


class _InOrder:
    """Stands for a frozen set in a pickle."""

    def __init__(self, members: frozenset[Any]) -> None:
        self.members = sorted(members, key=lambda member: (type(member).__name__, repr(member)))

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return frozenset, (self.members,)


class _Globals(dict[int, dict[str, Any]]):
    """What functions find as their module's own names: not where its file lies."""

    def setdefault(self, key: int, default: Any = None) -> dict[str, Any]:
        if key not in self:
            self[key] = {"__name__": "__main__"}
        return self[key]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=PROTOCOL)
        self.globals_ref = _Globals()
        self.classes: list[type] = []

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, CodeType):
            obj = _placeless(obj)
            reduced = engine._code_reduce(obj)
            return (reduced[0], tuple(_ordered(part) for part in reduced[1]))
        if isinstance(obj, type) and obj not in self.classes:
            self.classes.append(obj)
        return super().reducer_override(obj)


def _placeless(code: CodeType) -> CodeType:
    """`code` as if its source were a file of its own; lines of a traceback count from its beginning."""
    return code.replace(co_filename=f"<{code.co_name.strip('<>')}>", co_firstlineno=1)


def _ordered(part: Any) -> Any:
    if isinstance(part, frozenset):
        return _InOrder(part)
    if isinstance(part, tuple):
        return tuple(_ordered(each) for each in part)
    return part


def pickled(name: str, value: Any) -> bytes:
    """`value` as a pickle that cloudpickle reads; :class:`InvalidSpecError` when it cannot be one."""
    try:
        data, classes = _dumped(value)
        own = [cls for cls in classes if engine._should_pickle_by_reference(cls) is False]
        if not own:
            return data
        with _identified(own, ""):
            data, _ = _dumped(value)
        # Two classes of one name and different bodies must not be taken for each other where both are loaded.
        with _identified(own, hashlib.sha256(data).hexdigest()):
            return _dumped(value)[0]
    except Exception as error:
        text = f"cannot be pickled and sent: {error}"
        raise InvalidSpecError(errors=[FieldError(name, type(value).__name__, text)]) from error


def _dumped(value: Any) -> tuple[bytes, list[type]]:
    file = io.BytesIO()
    pickler = _Pickler(file)
    pickler.dump(value)
    return file.getvalue(), pickler.classes


@contextmanager
def _identified(classes: list[type], salt: str) -> Iterator[None]:
    """Give classes without a module identities that follow from their names and `salt`."""
    known = engine._DYNAMIC_CLASS_TRACKER_BY_CLASS
    before = {cls: known.get(cls) for cls in classes}
    for cls in classes:
        known[cls] = hashlib.sha256(f"{salt} {cls.__module__}.{cls.__qualname__}".encode()).hexdigest()[:32]
    try:
        yield
    finally:
        for cls, identity in before.items():
            if identity is None:
                known.pop(cls, None)
            else:
                known[cls] = identity


def digest_of(data: bytes) -> str:
    """The name of `data` in the store."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
