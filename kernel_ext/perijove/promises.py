"""What is known only while a workflow runs, in Python: ``prep["table"]``, ``w.parameters.lr``."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from perijove.model.errors import FieldError, InvalidSpecError
from perijove.model.parameters import is_json
from perijove.model.places import Condition, Reference, mark


class Promise:
    """A value or file that a step will have made, a parameter, or the element of a mapped step.

    Give it to other steps: as an argument, as an input, in a text (``f"--lr={w.parameters.lr}"``), or
    compared (``fit["loss"] < 0.1``) as a condition. ``promise["key"]`` is a part of it.
    """

    def __init__(self, reference: Reference) -> None:
        self.reference = reference

    def __getitem__(self, key: str | int) -> Promise:
        if self.reference.kind not in {"output", "item"} or self.reference.key is not None:
            raise TypeError(f"{self.reference} names a part already; parts of parts cannot be named")
        return Promise(replace(self.reference, key=str(key)))

    def __str__(self) -> str:
        return f"${{{{ {self.reference} }}}}"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __repr__(self) -> str:
        return f"<Promise {self.reference}>"

    def __hash__(self) -> int:
        return hash(self.reference)

    def __eq__(self, other: object) -> Any:
        return self._compared("==", other)

    def __ne__(self, other: object) -> Any:
        return self._compared("!=", other)

    def __lt__(self, other: Any) -> When:
        return self._compared("<", other)

    def __le__(self, other: Any) -> When:
        return self._compared("<=", other)

    def __gt__(self, other: Any) -> When:
        return self._compared(">", other)

    def __ge__(self, other: Any) -> When:
        return self._compared(">=", other)

    def __invert__(self) -> When:
        return When(Condition(self.reference, negated=True))

    def _compared(self, operator: Any, value: Any) -> When:
        if not is_json(value):
            raise TypeError(f"{self.reference} can be compared with JSON only, not with {value!r}")
        return When(Condition(self.reference, operator, value))

    def __bool__(self) -> NoReturn:
        raise TypeError(f"{self.reference} is known only when the workflow runs; give a step when=, or use ~")

    def __iter__(self) -> Iterator[NoReturn]:
        raise TypeError(f"{self.reference} is known only when the workflow runs; run over it with map")


class When:
    """A condition for ``when=``; ``~`` negates it."""

    def __init__(self, condition: Condition) -> None:
        self.condition = condition

    def __invert__(self) -> When:
        return When(replace(self.condition, negated=not self.condition.negated))

    def __str__(self) -> str:
        return str(self.condition)

    def __repr__(self) -> str:
        return f"<When {self.condition}>"

    def __bool__(self) -> NoReturn:
        raise TypeError(f"{self.condition} is known only when the workflow runs; give it to a step as when=")


class Makes(ABC):
    """What may stand for the one thing that it makes."""

    @property
    @abstractmethod
    def promise(self) -> Promise:
        """That thing; ``TypeError`` when it makes none or several."""


def reference_of(value: Any) -> str | None:
    """The reference that `value` stands for: of a promise, or of a step what it returns; else None."""
    if isinstance(value, Promise):
        return str(value.reference)
    return str(value.promise.reference) if isinstance(value, Makes) else None


def argument(value: Any) -> Any:
    """An argument as a workflow has it; ``TypeError`` when it is no JSON."""
    if (reference := reference_of(value)) is not None:
        return {"from": reference}
    if isinstance(value, Mapping):
        if mark(value) is not None and not has_promises(value):
            return {"value": _json(value)}
        return {_name(key): argument(part) for key, part in value.items()}
    if isinstance(value, list | tuple | range):
        return [argument(part) for part in value]
    return _json(value)


def _json(value: Any) -> Any:
    if not is_json(value):
        raise TypeError(f"{value!r} is no JSON")
    return json.loads(json.dumps(value))


def _name(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{key!r}: the names in an object are texts")
    return key


def has_promises(value: Any) -> bool:
    """Whether something in `value` is known only later."""
    if reference_of(value) is not None:
        return True
    if isinstance(value, Mapping):
        return any(has_promises(part) for part in value.values())
    return isinstance(value, list | tuple) and any(has_promises(part) for part in value)


def text(value: Any) -> str:
    """A word of a command: texts, paths, numbers, promises."""
    if (reference := reference_of(value)) is not None:
        return f"${{{{ {reference} }}}}"
    if isinstance(value, bool) or not isinstance(value, str | int | float | Path):
        raise InvalidSpecError(
            errors=[FieldError("command", repr(value), "must be a text, a path, a number or a step's output")]
        )
    return str(value)


def input_place(value: Any) -> Any:
    """Where an input comes from: a text as the document has it, a path, a promise, or a list of those."""
    if (reference := reference_of(value)) is not None:
        return reference
    if isinstance(value, Path):
        return f"{'dir' if value.is_dir() else 'file'}:{value}"
    if isinstance(value, list | tuple):
        return [input_place(part) for part in value]
    if isinstance(value, str) or mark(value) == "value":
        return value
    return {"value": _json(value)}
