"""Why a step ran: its ingredients beside those of the latest result of the same step."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from difflib import SequenceMatcher
from typing import Any, Literal

from perijove.model import Cause, CauseKind
from perijove.model.places import mark
from perijove_hub.workflows.keys import VERSION, Ingredients
from perijove_hub.workflows.record import SECRET

SizeOf = Callable[[str], int | None]
"""Digest -> bytes, where known."""
_SHOWN = 200
_LINES = 20
_LINE = 80
_MAGIC = re.compile(r"get_ipython\(\)\.(run_line_magic|system)\((?:'(\w+)', )?'((?:[^'\\])*)'\)")
_SINGLE: dict[str, tuple[CauseKind, str]] = {
    "image": (CauseKind.IMAGE, "image"),
    "platform": (CauseKind.PLATFORM, "platform"),
    "kind": (CauseKind.COMMAND, "what it runs"),
    "command": (CauseKind.COMMAND, "command"),
    "script": (CauseKind.COMMAND, "script"),
    "entrypoint": (CauseKind.COMMAND, "entrypoint"),
    "cwd": (CauseKind.COMMAND, "cwd"),
    "stdin": (CauseKind.COMMAND, "stdin"),
    "function": (CauseKind.FUNCTION, "function"),
    "outputs": (CauseKind.OUTPUTS, "outputs"),
    "sealed": (CauseKind.ENVIRONMENT, "sealed"),
    "network": (CauseKind.ENVIRONMENT, "network"),
    "user": (CauseKind.ENVIRONMENT, "user"),
    "volumes": (CauseKind.ENVIRONMENT, "volumes"),
    "secrets": (CauseKind.ENVIRONMENT, "secrets"),
}


def causes(
    after: Ingredients,
    before: Ingredients | None,
    *,
    cached: bool = True,
    mode: str = "use",
    equal: Literal["", "expired", "failed"] = "",
    size_of: SizeOf | None = None,
) -> list[Cause]:
    """Why a step with the ingredients `after` runs.

    `before` are those of the latest run of the same step (same owner, workflow and label), `cached` whether
    the step takes results at all, `mode` the run's (``use``, ``refresh``, ``off``), `equal` what became of a
    run with the same key whose result cannot be taken. Never empty.
    """
    found = list(_not_taken(cached, mode))
    if before is not None:
        found += differences(after, before, size_of)
    elif not equal and not found:
        found.append(Cause(kind=CauseKind.FIRST, message="nothing like it has run before"))
    if found:
        return found
    if equal == "failed":
        return [Cause(kind=CauseKind.FAILED, message="an equal step ran, and failed")]
    return [Cause(kind=CauseKind.EXPIRED, message="an equal step ran; its result is no longer in the store")]


def _not_taken(cached: bool, mode: str) -> Iterator[Cause]:
    if not cached:
        message = "results of equal steps are not taken: the step is not sealed and does not say cache: true"
        yield Cause(kind=CauseKind.UNCACHED, message=message)
    elif mode == "off":
        yield Cause(kind=CauseKind.UNCACHED, message="the workflow was started without the cache")
    elif mode == "refresh":
        yield Cause(kind=CauseKind.REFRESHED, message="the workflow was started to run everything again")


def differences(after: Ingredients, before: Ingredients, size_of: SizeOf | None = None) -> list[Cause]:
    """What differs, in the order of `explain`: image, code, parameters, inputs, the rest."""
    if before.get("version", VERSION) != after.get("version", VERSION):
        message = "this version of Perijove counts other things among what determines a result"
        return [Cause(kind=CauseKind.PLATFORM, name="version", message=message)]
    found = [
        _changed(kind, name, before.get(name), after.get(name), label)
        for name, (kind, label) in _SINGLE.items()
        if before.get(name) != after.get(name)
    ]
    found += _cells(before.get("code") or {}, after.get("code") or {})
    for kind, part in ((CauseKind.PARAMETER, "parameters"), (CauseKind.ENVIRONMENT, "env")):
        found += _named(kind, part, before, after)
    found += _arguments(before.get("args") or [], after.get("args") or [])
    old, new = before.get("inputs") or {}, after.get("inputs") or {}
    for name in sorted({*old, *new}):
        if old.get(name) != new.get(name):
            texts = [_content(side.get(name), size_of) for side in (old, new)]
            found.append(_told(CauseKind.INPUT, name, f"input {name}", *texts))
    return found


_WORDS = {CauseKind.PARAMETER: "parameter", CauseKind.ENVIRONMENT: "variable"}


def _named(kind: CauseKind, part: str, before: Ingredients, after: Ingredients) -> Iterator[Cause]:
    old, new = before.get(part) or {}, after.get(part) or {}
    for name in sorted({*old, *new}):
        if name in old and name in new and _same(old[name], new[name]):
            continue
        texts = [_text(side[name]) if name in side else None for side in (old, new)]
        if kind is CauseKind.ENVIRONMENT and SECRET.search(name):
            texts = [text and "(not shown)" for text in texts]
        yield _told(kind, name, f"{_WORDS[kind]} {name}", *texts)


def _arguments(old: list[Any], new: list[Any]) -> Iterator[Cause]:
    for i in range(max(len(old), len(new))):
        texts = [_text(side[i]) if i < len(side) else None for side in (old, new)]
        if i < len(old) and i < len(new) and _same(old[i], new[i]):
            continue
        yield _told(CauseKind.PARAMETER, str(i + 1), f"argument {i + 1}", *texts)


def _cells(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Cause]:
    """Cells are numbered from 1 among those with code; a removed one by where it was."""
    found = []
    if before.get("kernel", "") != after.get("kernel", "") and before and after:
        found.append(_changed(CauseKind.ENVIRONMENT, "kernel", before["kernel"], after["kernel"], "kernel"))
    old, new = ([_written(cell) for cell in side.get("cells", ())] for side in (before, after))
    for what, i, i_end, j, j_end in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if what == "equal":
            continue
        both = min(i_end - i, j_end - j)
        for k in range(both):
            ours, theirs = _hunk(old[i + k], new[j + k])
            found.append(_cell(j + k + 1, ours, theirs, "changed"))
        found += [_cell(k + 1, None, _cut(new[k]), "is new") for k in range(j + both, j_end)]
        found += [_cell(k + 1, _cut(old[k]), None, "was removed") for k in range(i + both, i_end)]
    return found


def _cell(number: int, before: str | None, after: str | None, what: str) -> Cause:
    message, sides = f"cell {number} {what}", [side for side in (before, after) if side is not None]
    if all("\n" not in side and len(side) <= _LINE for side in sides):
        message += ": " + " -> ".join(side.strip() or "nothing" for side in sides)
    return Cause(kind=CauseKind.CELL, name=str(number), before=before, after=after, message=message)


def _written(cell: Mapping[str, Any]) -> str:
    """A cell's code as people write it, its tags before it."""
    tags = "".join(f"[{tag}] " for tag in cell.get("tags", ()))
    return (tags + "\n" if tags else "") + str(cell.get("code", ""))


def _magic(call: re.Match[str]) -> str:
    return f"!{call[3]}" if call[1] == "system" else f"%{call[2]} {call[3]}".rstrip()


def _hunk(before: str, after: str) -> tuple[str, str]:
    """The lines in which two texts differ, without those that they begin and end with alike."""
    old, new = before.split("\n"), after.split("\n")
    head = 0
    while head < min(len(old), len(new)) and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < min(len(old), len(new)) - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    return _cut("\n".join(old[head : len(old) - tail])), _cut("\n".join(new[head : len(new) - tail]))


def _cut(text: str) -> str:
    lines = [_MAGIC.sub(_magic, line)[:_SHOWN] for line in text.split("\n")]
    more = [f"... {len(lines) - _LINES} lines more"] if len(lines) > _LINES else []
    return "\n".join(lines[:_LINES] + more)


def _changed(kind: CauseKind, name: str, before: Any, after: Any, label: str) -> Cause:
    if name == "script" and before and after:
        old, new = _hunk(before, after)
        return Cause(kind=kind, name=name, before=old, after=new, message="the script changed")
    return _told(kind, name, label, *(_text(side) if side else None for side in (before, after)))


def _told(kind: CauseKind, name: str, label: str, before: str | None, after: str | None) -> Cause:
    if before is None:
        message = f"{label} is new: {after}"
    elif after is None:
        message = f"{label} is gone; it was {before}"
    else:
        message = f"{label} changed: {before} -> {after}"
    return Cause(kind=kind, name=name, before=before, after=after, message=message)


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: for Python 1 is True."""
    return bool(one == other) and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _text(value: Any) -> str:
    """A value of the ingredients, shortened, with the marks of `keys.exact` taken off."""
    if isinstance(value, str):
        text = value if value.isprintable() and value else json.dumps(value, ensure_ascii=False)
        return _short(text)
    plain = _bare(value)
    if mark(plain) == "value":
        plain = plain["value"]
    return _short(json.dumps(plain, ensure_ascii=False))


def _bare(value: Any) -> Any:
    if isinstance(value, Mapping):
        if list(value) == ["number"]:
            return json.loads(value["number"])
        if list(value) == ["value"]:
            inner = value["value"]
            escaped = isinstance(inner, Mapping)
            return {name: _bare(part) for name, part in inner.items()} if escaped else _bare(inner)
        return {name: _bare(part) for name, part in value.items()}
    return [_bare(part) for part in value] if isinstance(value, list) else value


def _short(text: str) -> str:
    text = re.sub(r"(sha256(?:-tree)?:[0-9a-f]{12})[0-9a-f]{52}", r"\1", text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _content(value: Any, size_of: SizeOf | None) -> str | None:
    if value is None:
        return None
    size = size_of(value) if size_of and isinstance(value, str) else None
    return _text(value) + (f" ({size:,} bytes)" if size is not None else "")
