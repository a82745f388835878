"""The values that fields of a JobSpec hold: what each accepts, and its short form that people write.

Whatever has a short form (``1:100:3%5``, ``a100:2``) has it as its ``str()``, and reads it back.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from perijove.model.quantities import parse_duration, parse_size

NAME_LENGTH = 200
ENV_BYTES = 128 * 1024
"""All of a job's environment together; Linux's own limit for one string (execve(2))."""
ARGUMENT_LENGTH = 128 * 1024 - 1
SCRIPT_BYTES = 1024 * 1024
ARRAY_SIZE = 100_000
MAX_TASK = 10**12 - 1
MAX_ID = 2**63 - 1
MAX_GPUS = 1024

# Rust's regex language (pydantic's), kept to what Python's `re` and JSON Schema read the same way.
TEXT = r"^[^\x00]*$"
LINE = r"^[^\x00-\x1f\x7f-\x9f]*$"
IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_]*$"
_WORD = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
WORD = rf"^{_WORD}$"
FILE_NAME = r"^[\w][\w.+-]{0,199}$"
DIGEST = r"^sha256(-tree)?:[0-9a-f]{64}$"
IMAGE = r"^[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}$"

PATTERNS: dict[str, str] = {
    TEXT: "must not contain the NUL character",
    LINE: "must be one line without control characters",
    IDENTIFIER: "must consist of letters, digits and _, and not begin with a digit",
    WORD: "must consist of letters, digits and . _ -, begin with a letter or digit, at most 64 characters",
    FILE_NAME: "must be a plain file name (letters, digits and . _ + -) of at most 200 characters",
    DIGEST: "must be sha256: (of a folder, sha256-tree:) and 64 hexadecimal digits",
    IMAGE: "must be the name of a container image, such as python:3.12-slim",
}
"""Pattern -> what would be accepted, for people."""
FORMS: dict[str, str] = {
    "ArrayRange": "must be start:end or start:end:step, then %N for at most N at once: 1:100:3%5",
    "Dependency": "must be a job id or after:ID, afterok:ID, afterany:ID, afternotok:ID; 12_7 is a member",
    "GpuRequest": "must be a number, a model, or model:number, then @SIZE for the least memory: a100:2@40G",
    "RetryCause": "must be failure, node, oom, time, or exit:CODE",
    "SecretPlace": "must be file, env, or env:VARIABLE",
    "SignalRequest": "must be SIGNAL@TIME-BEFORE-THE-END, for example USR1@5m",
    "VolumeRequest": "must be NAME, NAME:ro or NAME:rw, with a name from the site's list of volumes",
}
"""Class -> how its short form is written, for people."""


def _plain_number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


def _fits_a_directory(name: str) -> str:
    if len(name.encode()) > 255:  # NAME_MAX, limits.h
        raise ValueError("must have at most 255 bytes")
    return name


def _is_json(parameters: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(parameters, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise ValueError("must be JSON: text, finite numbers, true, false, null, lists and objects") from None
    return parameters


_ARRAY = re.compile(
    r"([0-9]{1,12})[:-]([0-9]{1,12})(?::([1-9][0-9]{0,11}))?(?:%([1-9][0-9]{0,11}))?", re.ASCII
)
_DEPENDENCY = re.compile(
    r"(?:(after|afterok|afterany|afternotok):)?([1-9][0-9]{0,18})(?:_([0-9]{1,12}))?", re.ASCII
)
_GPUS = re.compile(
    rf"(?:(?P<number>[0-9]{{1,9}})|(?![0-9]*(?:@|$))(?P<model>{_WORD})(?::(?P<count>[0-9]{{1,9}}))?)"
    r"(?:@(?P<memory>[0-9][0-9.]*[A-Za-z]*))?"
)
_SIGNAL = re.compile(r"(?:SIG)?(?P<signal>[A-Z][A-Z0-9]{1,9})@(?P<before>[0-9a-z.:-]{1,20})")
_RETRY = re.compile(r"failure|node|oom|time|exit:(?P<code>[0-9]{1,3})")
_VOLUME = re.compile(rf"({_WORD})(?::(ro|rw))?")

Whole = Annotated[int, BeforeValidator(_plain_number)]
Real = Annotated[float, BeforeValidator(_plain_number)]
Text = Annotated[str, StringConstraints(pattern=TEXT)]
Argument = Annotated[str, StringConstraints(pattern=TEXT, max_length=ARGUMENT_LENGTH)]
Title = Annotated[str, StringConstraints(max_length=NAME_LENGTH, strip_whitespace=True, pattern=LINE)]
Line = Annotated[str, StringConstraints(max_length=255, pattern=LINE)]
Path = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=LINE)]
Identifier = Annotated[str, StringConstraints(pattern=IDENTIFIER, max_length=256)]
Word = Annotated[str, StringConstraints(pattern=WORD)]
FileName = Annotated[str, StringConstraints(pattern=FILE_NAME), AfterValidator(_fits_a_directory)]
Digest = Annotated[str, StringConstraints(pattern=DIGEST)]
Size = Annotated[int, BeforeValidator(parse_size)]
Duration = Annotated[float, BeforeValidator(parse_duration)]
ImageRef = Annotated[str, StringConstraints(pattern=IMAGE)]


def _factor(value: Any) -> Any:
    """``2x`` as well as ``2``."""
    if isinstance(value, str):
        try:
            return float(value.strip().removesuffix("x"))
        except ValueError:
            raise ValueError("must be a factor such as 2x or 1.5") from None
    return _plain_number(value)


Factor = Annotated[float, BeforeValidator(_factor), Field(gt=1, le=100, allow_inf_nan=False)]
Parameters = Annotated[dict[Identifier, Any], AfterValidator(_is_json)]


class DependencyType(StrEnum):
    """Slurm's words (sbatch(1), ``--dependency``)."""

    AFTER = "after"
    AFTEROK = "afterok"
    AFTERANY = "afterany"
    AFTERNOTOK = "afternotok"


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Dependency(_Value):
    """Another job that this one waits for; written ``afterok:12``, ``12``, or ``12_7`` for a member."""

    type: DependencyType = DependencyType.AFTEROK
    job: Annotated[Whole, Field(ge=1, le=MAX_ID)]
    task: Annotated[Whole, Field(ge=0, le=MAX_TASK)] | None = None
    """Of an array, only this member."""

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if not 0 < value <= MAX_ID:
                raise ValueError(FORMS["Dependency"])
            return {"job": value}
        if not isinstance(value, str):
            return value
        match = _DEPENDENCY.fullmatch(value.strip())
        if not match:
            raise ValueError(FORMS["Dependency"])
        task = int(match[3]) if match[3] else None
        return {"type": match[1] or "afterok", "job": int(match[2]), "task": task}

    @property
    def label(self) -> str:
        """The job it names, as people write it."""
        return str(self.job) if self.task is None else f"{self.job}_{self.task}"

    def __str__(self) -> str:
        return f"{self.type}:{self.label}"


class ArrayRange(_Value):
    """Task numbers of an array, written ``start:end[:step][%limit]`` (or ``start-end:step`` as in Slurm).

    ``end`` is included when the steps reach it and never overshot.
    """

    start: Annotated[Whole, Field(ge=0, le=MAX_TASK)]
    end: Annotated[Whole, Field(ge=0, le=MAX_TASK)]
    step: Annotated[Whole, Field(ge=1, le=MAX_TASK)] = 1
    limit: Annotated[Whole, Field(ge=1, le=MAX_TASK)] | None = None
    """So many members at once at most (sbatch(1), ``--array``, ``%``)."""

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = _ARRAY.fullmatch(value.strip())
        if not match:
            raise ValueError(FORMS["ArrayRange"])
        start, end, step, limit = match.groups()
        some = int(limit) if limit else None
        return {"start": int(start), "end": int(end), "step": int(step or 1), "limit": some}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"the end ({self.end}) must not be before the start ({self.start})")
        if len(self.tasks) > ARRAY_SIZE:
            raise ValueError(f"must have at most {ARRAY_SIZE} tasks, has {len(self.tasks)}")
        return self

    @property
    def tasks(self) -> range:
        """The task numbers."""
        return range(self.start, self.end + 1, self.step)

    def __str__(self) -> str:
        limit = f"%{self.limit}" if self.limit else ""
        return f"{self.start}:{self.end}:{self.step}{limit}"


class GpuRequest(_Value):
    """How many devices, of which model and size; written ``2``, ``a100``, ``a100:2``, ``2@40G``."""

    count: Annotated[Whole, Field(ge=0, le=MAX_GPUS)] = 0
    model: Word | None = None
    """A part of the model's name."""
    memory: Size | None = None
    """Bytes that each device has at least."""

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        model, count, memory = None, value, None
        if isinstance(value, str):
            match = _GPUS.fullmatch(value.strip())
            if not match:
                raise ValueError(FORMS["GpuRequest"])
            model, count = match["model"], int(match["number"] or match["count"] or 1)
            memory = match["memory"]
        elif not isinstance(value, int) or isinstance(value, bool):
            return value
        if not 0 <= count <= MAX_GPUS:
            raise ValueError(f"must be between 0 and {MAX_GPUS}")
        return {"model": model, "count": count, "memory": memory}

    def __str__(self) -> str:
        number = f"{self.model}:{self.count}" if self.model else str(self.count)
        return number if self.memory is None else f"{number}@{self.memory}"


class SignalRequest(_Value):
    """A warning before the time limit, written ``USR1@5m`` (sbatch(1), ``--signal``)."""

    signal: Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9]{1,9}$")]
    """Its name without SIG: USR1, USR2, TERM, INT, HUP."""
    before: Annotated[Duration, Field(ge=1)]
    """Seconds before the end."""

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = _SIGNAL.fullmatch(value.strip())
        if not match:
            raise ValueError(FORMS["SignalRequest"])
        return match.groupdict()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.signal not in WARNINGS:
            raise ValueError(f"the signal must be one of {', '.join(WARNINGS)}")
        return self

    def __str__(self) -> str:
        return f"{self.signal}@{repr(self.before).removesuffix('.0')}s"


WARNINGS = ("USR1", "USR2", "TERM", "INT", "HUP")
"""Signals that may warn a job."""


class RetryCause(_Value):
    """An end worth another try; written ``node``, ``oom``, ``time``, ``failure``, ``exit:75``."""

    cause: Literal["failure", "node", "oom", "time", "exit"]
    """``failure``: any; ``node``: lost with its node; ``oom``: out of memory; ``time``: the time limit."""
    code: Annotated[Whole, Field(ge=1, le=255)] | None = None
    """The exit code meant by ``exit``."""

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = _RETRY.fullmatch(value.strip())
        if not match:
            raise ValueError(FORMS["RetryCause"])
        code = match["code"]
        return {"cause": "exit" if code else value.strip(), "code": int(code) if code else None}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.cause == "exit") != (self.code is not None):
            raise ValueError(FORMS["RetryCause"])
        return self

    def __str__(self) -> str:
        return f"exit:{self.code}" if self.cause == "exit" else self.cause


class VolumeRequest(_Value):
    """A volume of the administrator's list by name, written ``data`` or ``data:ro``."""

    name: Word
    read_only: bool = False

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = _VOLUME.fullmatch(value.strip())
        if not match:
            raise ValueError(FORMS["VolumeRequest"])
        return {"name": match[1], "read_only": match[2] == "ro"}

    def __str__(self) -> str:
        return f"{self.name}:ro" if self.read_only else self.name


class SecretPlace(_Value):
    """How a job gets a secret: as a file, or as a variable; written ``file``, ``env``, ``env:VARIABLE``."""

    place: Literal["file", "env"] = "file"
    """``file``: ``$PERIJOVE_SECRETS/NAME``, readable by the job alone."""
    variable: Identifier | None = None
    """Its name in the environment; the secret's own when not given."""

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        place, _, variable = value.partition(":")
        if place not in {"file", "env"} or (variable and place == "file") or value.endswith(":"):
            raise ValueError(FORMS["SecretPlace"])
        return {"place": place, "variable": variable or None}

    def __str__(self) -> str:
        return f"{self.place}:{self.variable}" if self.variable else self.place
