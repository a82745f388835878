"""Runs a function step of a workflow: a pickled function, and its arguments as JSON with marks."""

from __future__ import annotations

import json
import math
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perijove.runner.directory import JobDirectory, RunnerError
from perijove.runner.display import DisplayLog, captured

FUNCTION, CALL = "function.pkl", "call.json"
VALUE_BYTES = 64 << 10
"""A result that is JSON of at most so many bytes is recorded as a value, too."""
DEPTH = 50


@dataclass(frozen=True, slots=True)
class Inputs:
    """How an argument's marks are looked up: ``{"pickle": NAME}`` and ``{"path": NAME}``."""

    load: Callable[[str], Any]
    path: Callable[[str], Path]

    def argument(self, given: Any) -> Any:
        """An argument with its marks replaced; ``{"value": JSON}`` stands for just that JSON."""
        if isinstance(given, list):
            return [self.argument(part) for part in given]
        if not isinstance(given, Mapping):
            return given
        if len(given) == 1:
            [(mark, what)] = given.items()
            if mark == "value":
                return what
            if mark == "pickle":
                return self.load(what)
            if mark == "path":
                return str(self.path(what))
        return {name: self.argument(part) for name, part in given.items()}

    def arguments(self, call: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Those of a call, ``{"args": [...], "kwargs": {...}}``."""
        args = [self.argument(one) for one in call.get("args", ())]
        return args, {name: self.argument(one) for name, one in call.get("kwargs", {}).items()}


def run_step(directory: JobDirectory, log: DisplayLog) -> int:
    """Call ``input/function.pkl`` as ``input/call.json`` says; returns the job's exit code.

    What it returns is ``output/result.pkl``, and recorded as the value ``result`` when it is JSON.
    """
    function = directory.load(directory.input(FUNCTION))
    with captured(log):
        try:
            args, kwargs = _inputs(directory).arguments(_call(directory))
            value = function(*args, **kwargs)
        except RunnerError:
            raise
        except Exception as error:
            log.failure(type(error).__name__, str(error), "".join(traceback_of(error)).splitlines())
            return 1
        except SystemExit as leaving:
            if code := exit_code(leaving):
                return code
            value = None
        directory.dump("result", value)
        if (text := json_of(value)) is not None:
            _record(directory, text)
    return 0


def traceback_of(error: BaseException) -> list[str]:
    """Its lines, without the runner's own frame, which comes first and tells nothing."""
    first = error.__traceback__.tb_next if error.__traceback__ else None
    return traceback.format_exception(type(error), error, first)


def exit_code(leaving: SystemExit) -> int:
    """What a process would end with that raised it; a text is printed."""
    code = leaving.code
    if code is None or isinstance(code, int):
        return (code or 0) & 0xFF
    print(code, file=sys.stderr)
    return 1


def json_of(value: Any) -> str | None:
    """`value` as JSON of at most VALUE_BYTES; None unless reading it back gives the very same.

    So no tuple, no NumPy number, no key that is not a text, neither NaN nor an infinity (RFC 8259), and not
    what a database refuses, as values that jobs record: NUL in a text, more than DEPTH levels.
    """
    if not _is_json(value, DEPTH):
        return None
    text = json.dumps(value)
    return text if len(text) <= VALUE_BYTES else None


def _is_json(value: Any, depth: int) -> bool:
    kind = type(value)
    if kind is str:
        return _is_text(value)
    if kind is float:
        return math.isfinite(value)
    if kind is int:
        # What other readers of JSON take for the same number (RFC 7493, section 2.2).
        return bool(abs(value) < 1 << 53)
    if kind is list:
        return depth > 0 and all(_is_json(part, depth - 1) for part in value)
    if kind is dict:
        parts = value.items()
        return depth > 0 and all(
            type(name) is str and _is_text(name) and _is_json(part, depth - 1) for name, part in parts
        )
    return value is None or kind is bool


def _is_text(text: str) -> bool:
    if "\0" in text:
        return False
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _call(directory: JobDirectory) -> dict[str, Any]:
    try:
        found: Any = json.loads(directory.input(CALL).read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunnerError(f"{CALL} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RunnerError(f"{CALL} must be an object with args and kwargs")
    return found


def _inputs(directory: JobDirectory) -> Inputs:
    return Inputs(load=lambda name: directory.load(directory.input(name)), path=directory.input)


def _record(directory: JobDirectory, text: str) -> None:
    with directory.output(".recorded.jsonl").open("a", encoding="utf-8") as file:
        file.write(f'{{"name": "result", "value": {text}}}\n')
