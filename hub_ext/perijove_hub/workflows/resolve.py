"""What references come to once the steps before have ended: values, files, lists of those.

Pure. What is in a file is asked of the scope; when it has not been read yet, :class:`Unread` names it, and
whoever reads it asks again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from perijove.model import Condition, Output, Reference, Step
from perijove_spawners.store import Manifest, is_tree

MOST = 100_000
"""Elements of the list of a mapped step."""
CONTENT_BYTES = 4 << 20
"""Of a file that is read as JSON."""
_DIGEST = re.compile(r"sha256(-tree)?:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class File:
    """A file or folder of the store, where a value could be."""

    digest: str
    size: int = 0
    name: str = ""
    """What it was called, for its suffix."""
    pickled: bool = False
    """What a function returned."""
    executable: bool = False
    claimed: bool = False
    """It was written as text, so it is to be asked whether it is the owner's."""

    @property
    def is_tree(self) -> bool:
        """Whether it is a folder."""
        return is_tree(self.digest)


class Files(list[Any]):
    """What a mapped step's instances made; a list of files also when it is empty."""


class Unread(Exception):  # noqa: N818 - a question, not a failure
    """The content of this digest is needed."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


class Unresolvable(Exception):  # noqa: N818 - says what about a reference is wrong
    """What a reference came to cannot be used as it is; the message is for the user."""


@dataclass(slots=True)
class Scope:
    """What is known where a reference stands."""

    parameters: Mapping[str, Any]
    outputs: Callable[[str, str], Any]
    """Step and output -> JSON, a :class:`File`, or, of a mapped step, a list."""
    contents: Mapping[str, Any] = field(default_factory=dict)
    """Digest -> the JSON in a file (its text, when it is none), or a folder's :class:`Manifest`."""
    item: Any = None
    index: int | None = None


def made(step: Step, name: str, output: Output) -> Any:
    """What an output is to those that refer to it: the value, where it has one, else the file."""
    if output.valued:
        return output.value
    return File(
        output.digest or "",
        output.size or 0,
        output.name or name,
        pickled=step.what == "function" and name == "result",
    )


def holds_files(step: Step, name: str) -> bool:
    """Whether an output is a file or folder by its declaration."""
    place = step.outputs.get(name)
    return step.what == "notebook" if place is None else not place.startswith("record:")


def value_of(reference: Reference, scope: Scope) -> Any:
    """What `reference` comes to. Raises :class:`Unread` and :class:`Unresolvable`."""
    match reference.kind:
        case "parameter":
            return scope.parameters[reference.parameter]
        case "index":
            return scope.index
        case "item":
            value = scope.item
        case _:
            value = scope.outputs(reference.step, reference.output)
    return value if reference.key is None else picked(value, reference.key, reference, scope)


def picked(value: Any, key: str, reference: Reference, scope: Scope) -> Any:
    """The part of `value` that ``[KEY]`` names."""
    if isinstance(value, File) and value.is_tree:
        files = files_of(value, scope)
        if key == "*":
            return Files(files)
        for one in files:
            if one.name == key:
                return one
        known = ", ".join(one.name for one in files[:10])
        raise Unresolvable(f"{reference}: there is no file {key}; there are: {known or 'none'}")
    if isinstance(value, File):
        value = content_of(value, scope)
    if isinstance(value, Mapping):
        if key == "*":
            return list(value.values())
        if key in value:
            return value[key]
        known = ", ".join(list(value)[:10])
        raise Unresolvable(f"{reference}: there is no {key}; there are: {known or 'none'}")
    if isinstance(value, list):
        if key == "*":
            return value
        if re.fullmatch(r"-?[0-9]{1,9}", key) and -len(value) <= int(key) < len(value):
            return value[int(key)]
        raise Unresolvable(f"{reference}: there is no element {key}; there are {len(value)}, from 0")
    raise Unresolvable(f"{reference}: {shown(value)} has no parts")


def files_of(folder: File, scope: Scope) -> list[File]:
    """The files of a folder, by path."""
    manifest: Manifest = _content(folder.digest, scope)
    return [File(one.digest, one.size, one.path, executable=one.executable) for one in manifest.entries]


def content_of(file: File, scope: Scope) -> Any:
    """The JSON in a file."""
    if file.pickled:
        raise Unresolvable("a function returned something that is no JSON; only other functions can take it")
    return _content(file.digest, scope)


def _content(digest: str, scope: Scope) -> Any:
    if digest not in scope.contents:
        raise Unread(digest)
    found = scope.contents[digest]
    if isinstance(found, Unresolvable):
        raise found
    return found


def parsed(data: bytes) -> Any:
    """What a file says: its JSON, else its text, without the newline at its end."""
    if len(data) > CONTENT_BYTES:
        return Unresolvable(f"a file of more than {CONTENT_BYTES >> 20} MiB is not read as a value")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return Unresolvable("the file is neither JSON nor text")
    try:
        return json.loads(text, parse_constant=_refused)
    except (ValueError, RecursionError):
        return text.rstrip("\n")


def _refused(name: str) -> Any:
    raise ValueError(name)


def elements(step: Step, scope: Scope) -> list[Any]:
    """The list that a mapped step runs over."""
    if isinstance(step.map, list):
        return step.map
    assert step.map is not None
    reference = Reference.parse(step.map)
    value = value_of(reference, scope)
    if isinstance(value, File):
        value = files_of(value, scope) if value.is_tree else content_of(value, scope)
    if not isinstance(value, list):
        raise Unresolvable(f"map: takes a list, and {reference} is {shown(value)}")
    if len(value) > MOST:
        raise Unresolvable(f"map: {reference} has {len(value)} elements; at most {MOST} can be run over")
    return value


def condition_of(step: Step) -> Condition | None:
    """When it runs."""
    return Condition.parse(step.when) if step.when is not None else None


def holds(condition: Condition, scope: Scope) -> bool:
    """Whether a step, or an instance of it, runs."""
    value = value_of(condition.reference, scope)
    if isinstance(value, File):
        value = content_of(value, scope) if not value.is_tree else files_of(value, scope)
    try:
        return condition.holds(value)
    except TypeError:
        wanted = json.dumps(condition.value)
        raise Unresolvable(
            f"when: {condition.reference} is {shown(value)}, which cannot be compared with {wanted}"
        ) from None


def per_element(condition: Condition) -> bool:
    """Whether it is asked for each element of a mapped step and not once."""
    return condition.reference.kind in {"item", "index"}


def claimed(text: Any) -> File | None:
    """The file that a text names by its digest."""
    if isinstance(text, str) and _DIGEST.fullmatch(text):
        return File(text, claimed=True)
    return None


def shown(value: Any) -> str:
    """A value in a message."""
    if isinstance(value, File):
        return "a folder" if value.is_tree else "a file"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a list of {len(value)}"
    if isinstance(value, Mapping):
        return "an object"
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
