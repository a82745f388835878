"""A step with what its references came to: texts, inputs, arguments; and the job that it then is.

Pure: contents that have to be in the store before the job can start are handed back with their digests.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import PurePosixPath
from typing import Any

from perijove.model import JobOptions, JobSpec, Kind, Reference, Step
from perijove.model.places import filled, mark, references, templates
from perijove.model.validation import parse_spec
from perijove.model.workflow import IMPLICIT
from perijove_hub.jobs.orders import RUNNER
from perijove_hub.workflows.resolve import File, Files, Scope, Unresolvable, claimed, files_of, value_of
from perijove_spawners.store import Entry, Manifest

FUNCTION, CALL = "function.pkl", "call.json"
NOTEBOOK, PARAMETERS = "notebook.ipynb", "parameters.json"
_OPTIONS = frozenset(JobOptions.model_fields)
_SUFFIX = re.compile(r"(\.[A-Za-z0-9]{1,8}){1,2}$")
_WHOLE = re.compile(r"\$\{\{([^{}]*+)\}\}")
_OPEN = "${{"


@dataclass(slots=True)
class Filled:
    """What one instance of a step runs, with nothing left open. Paths are ``${{ input:NAME }}``."""

    inputs: dict[str, str] = field(default_factory=dict)
    """All files that it is given: name -> digest."""
    declared: dict[str, str] = field(default_factory=dict)
    """Those of ``inputs`` and of templates; arguments name their files themselves."""
    texts: dict[str, Any] = field(default_factory=dict)
    """``command``, ``script``, ``args``, ``env``: those that held references."""
    args: list[Any] = field(default_factory=list)
    """Of a function, as ``call.json`` has them; of a script, texts."""
    parameters: dict[str, Any] = field(default_factory=dict)
    """Of a function or notebook, likewise."""
    image: str | None = None
    literals: dict[str, bytes] = field(default_factory=dict)
    """Contents of files that the store may not have."""
    folders: dict[str, Manifest] = field(default_factory=dict)
    """Likewise of folders."""
    claimed: set[str] = field(default_factory=set)
    """Digests that were written as text: only the owner's may be used."""


class Filling:
    """Fills in one instance. Methods raise :class:`Unread` and :class:`Unresolvable`."""

    def __init__(self, step: Step, scope: Scope) -> None:
        self.step, self.scope = step, scope
        self.made = Filled()

    def run(self) -> Filled:
        """All of it."""
        step, made = self.step, self.made
        for name, place in step.inputs.items():
            self._stage(name, self._place(place), made.declared)
        for name in ("command", "script", "env"):
            given = getattr(step, name)
            if given and (text := self._texts(given)) != given:
                made.texts[name] = text
        if step.what == "script":
            made.args = self._texts(step.args)
        else:
            made.args = [self.argument(one, f"arg-{i}") for i, one in enumerate(step.args)]
        made.parameters = {name: self.argument(one, name) for name, one in step.parameters.items()}
        made.image = self._image()
        return made

    # ---- inputs

    def _place(self, place: Any) -> Any:
        """What an input's place comes to."""
        if isinstance(place, list):
            return Files([self._place(part) for part in place])
        if isinstance(place, Mapping):
            return place["value"]
        if (file := claimed(place)) is not None:
            return file
        value = value_of(Reference.parse(place), self.scope)
        return claimed(value) or value

    def _stage(self, name: str, value: Any, among: dict[str, str]) -> str:
        """Have `value` as an input of that name; its digest."""
        digest = self.made.inputs[name] = among[name] = self._digest(value)
        return digest

    def _digest(self, value: Any) -> str:
        if isinstance(value, File):
            if value.claimed:
                self.made.claimed.add(value.digest)
            return value.digest
        if isinstance(value, Files) or has_files(value):
            return self._folder(value)
        return self._literal(text_of(value).encode())

    def _literal(self, content: bytes) -> str:
        digest = f"sha256:{sha256(content).hexdigest()}"
        self.made.literals[digest] = content
        return digest

    def _folder(self, values: list[Any]) -> str:
        entries: list[Entry] = []
        for i, value in enumerate(_flat(values)):
            value = claimed(value) or value
            if not isinstance(value, File):
                content = text_of(value).encode()
                entries.append(Entry(str(i), self._literal(content), len(content)))
                continue
            if value.claimed:
                self.made.claimed.add(value.digest)
            name = f"{i}-{PurePosixPath(value.name).name}" if value.name else str(i)
            if value.is_tree:
                inner = files_of(value, self.scope)
                entries += [Entry(f"{name}/{f.name}", f.digest, f.size, f.executable) for f in inner]
            else:
                entries.append(Entry(name, value.digest, value.size, value.executable))
        try:
            manifest = Manifest.of(entries)
        except ValueError as error:
            raise Unresolvable(str(error)) from None
        self.made.folders[manifest.digest] = manifest
        return manifest.digest

    # ---- texts

    def _texts(self, value: Any) -> Any:
        if isinstance(value, str):
            return filled(value, self._text) if _OPEN in value else value
        if isinstance(value, Mapping):
            return {name: self._texts(text) for name, text in value.items()}
        return [self._texts(text) for text in value]

    def _text(self, reference: Reference) -> str:
        """A value as text; of a file the place where the node puts its path."""
        value = value_of(reference, self.scope)
        if not (isinstance(value, File | Files) or has_files(value)):
            return text_of(value)
        name = self._named(_label(reference), value)
        self._stage(name, value, self.made.declared)
        return f"${{{{ input:{name} }}}}"

    def _named(self, label: str, value: Any) -> str:
        """The name of an input that nobody named: `label` with the file's suffix, and unlike all others."""
        suffix = _SUFFIX.search(value.name) if isinstance(value, File) and not value.is_tree else None
        ending = suffix[0] if suffix and not label.endswith(suffix[0]) else ""
        label, digest = label[:150], self._digest(value)
        name, number = f"{label}{ending}", 1
        while name in self.step.inputs or self.made.inputs.get(name, digest) != digest:
            number += 1
            name = f"{label}-{number}{ending}"
        return name

    # ---- arguments

    def argument(self, value: Any, label: str) -> Any:
        """An argument with ``{"value": JSON}``, ``{"pickle": NAME}``, ``{"path": NAME}`` only."""
        match mark(value):
            case "from":
                reference = Reference.parse(value["from"])
                return self._given(value_of(reference, self.scope), _label(reference))
            case "pickle":
                return self._given(File(value["pickle"], pickled=True, claimed=True), label)
            case "value":
                return value
        if isinstance(value, str):
            return self._textual(value)
        if isinstance(value, Mapping):
            return self._object(value, label)
        if isinstance(value, list):
            return [self.argument(part, f"{label}-{i}") for i, part in enumerate(value)]
        return value

    def _object(self, value: Mapping[str, Any], label: str) -> dict[str, Any]:
        if len(value) == 1 and "path" in value:  # it would be taken for a mark by the runner
            if any(True for _ in references(value)):
                raise Unresolvable(f'{label}: an object whose only name is "path" can hold no references')
            return {"value": dict(value)}
        return {name: self.argument(part, f"{label}-{name}") for name, part in value.items()}

    def _textual(self, text: str) -> Any:
        """A text that is one template is what that comes to, of its own type."""
        if _OPEN not in text:
            return text
        if match := _WHOLE.fullmatch(text):
            reference = Reference.parse(match[1].strip())
            return self._given(value_of(reference, self.scope), _label(reference))
        for reference in templates(text):
            value = value_of(reference, self.scope)
            if isinstance(value, File) or has_files(value):
                raise Unresolvable(f"{reference} is a file; give it as an argument of its own")
        return {"value": filled(text, lambda reference: text_of(value_of(reference, self.scope)))}

    def _given(self, value: Any, label: str) -> Any:
        if isinstance(value, list) and has_files(value):
            return [self._given(part, f"{label}-{i}") for i, part in enumerate(value)]
        if not isinstance(value, File):
            return {"value": value}
        if value.pickled and self.step.what != "function":
            raise Unresolvable(
                f"{label}: a function returned something that is no JSON; only functions take it"
            )
        name = self._named(label, value)
        self.made.inputs[name] = value.digest
        return {"pickle": name} if value.pickled else {"path": name}

    def _image(self) -> str | None:
        image = self.step.image
        if image is None or not image.startswith("jobs:"):
            return image
        value = value_of(Reference.parse(image), self.scope)
        if not isinstance(value, File) or value.is_tree:
            raise Unresolvable(f"image: {image} is no file; a Docker or OCI archive is one")
        return f"archive:{value.digest}"


def fill(step: Step, scope: Scope) -> Filled:
    """`step` with all its references replaced."""
    return Filling(step, scope).run()


def has_files(value: Any) -> bool:
    """Whether a list holds files, at any depth."""
    return isinstance(value, list) and any(isinstance(part, File) or has_files(part) for part in value)


def text_of(value: Any) -> str:
    """A value in a text or file: texts as they are, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def _flat(values: list[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found += _flat(value) if isinstance(value, list) and (has_files(value) or not value) else [value]
    return found


def _label(reference: Reference) -> str:
    text = f"{reference.step}-{reference.output}" if reference.step else reference.kind
    if reference.kind == "parameter":
        text = reference.parameter
    if reference.key not in {None, "*"}:
        text += f"-{reference.key}"
    return re.sub(r"[^\w.+-]", "_", text).lstrip(".+-") or "input"


# ---- what the key is made of


def by_digest(value: Any, inputs: Mapping[str, str]) -> Any:
    """An argument with the digests of its files where their names are."""
    if isinstance(value, list):
        return [by_digest(part, inputs) for part in value]
    if not isinstance(value, Mapping):
        return value
    if len(value) == 1:
        [(kind, what)] = value.items()
        if kind == "value":
            return value
        if kind in {"pickle", "path"}:
            return {kind: inputs[what]}
    return {name: by_digest(part, inputs) for name, part in value.items()}


def ingredients_of(made: Filled) -> dict[str, Any]:
    """What :func:`perijove_hub.workflows.keys.ingredients` takes of one instance."""
    return {
        **made.texts,
        "inputs": made.declared,
        "args": [by_digest(one, made.inputs) for one in made.args],
        "parameters": {name: by_digest(one, made.inputs) for name, one in made.parameters.items()},
    }


# ---- the job


def base_of(step: Step) -> dict[str, Any]:
    """Fields of the job that all instances have in common, as JSON."""
    fields = step.model_dump(mode="json", exclude_unset=True, include=set(_OPTIONS))
    fields |= {"kind": Kind.STEP.value, "outputs": dict(step.outputs)}
    if (name := IMPLICIT.get(step.what)) is not None:
        kept = "result.pkl" if step.what == "function" else NOTEBOOK
        fields["outputs"][name] = f"file:{kept}"
    if step.what == "command":
        fields["command"] = step.command
        if step.entrypoint == "image":
            fields["entrypoint"] = "image"
    elif step.what == "script":
        fields["script"] = step.script
    else:
        fields["command"] = [*RUNNER, "step" if step.what == "function" else "notebook"]
    if step.stdin is not None:
        fields["stdin"] = step.stdin
    return fields


def unmarked(value: Any) -> Any:
    """Arguments for a notebook, which knows of marks ``{"path": NAME}`` only: JSON as it is."""
    if isinstance(value, Mapping):
        if len(value) == 1 and "value" in value:
            return value["value"]
        return {name: unmarked(part) for name, part in value.items()}
    return [unmarked(part) for part in value] if isinstance(value, list) else value


def call_of(made: Filled) -> dict[str, Any]:
    """The content of a function's ``call.json``."""
    return {"args": made.args, "kwargs": made.parameters}


def spec_of(step: Step, base: Mapping[str, Any], made: Filled, **more: Any) -> JobSpec:
    """The job of an instance. `made` is given what the runner reads, too; `more` are further fields.

    :class:`InvalidSpecError` when what was filled in cannot be a job's.
    """
    inputs = made.inputs
    fields = {**base, **made.texts, **more}
    if step.what == "function":
        inputs = {**inputs, FUNCTION: step.function or "", CALL: _kept(made, call_of(made))}
    elif step.what == "notebook":
        inputs = {**inputs, NOTEBOOK: step.notebook or "", PARAMETERS: _kept(made, unmarked(made.parameters))}
    elif made.args:
        fields["args"] = made.args
    if isinstance(step.entrypoint, list):
        fields["command"] = [*step.entrypoint, *fields["command"]]
    if made.image is not None:
        fields["image"] = made.image
    return parse_spec({**fields, "inputs": inputs})


def _kept(made: Filled, value: Any) -> str:
    content = json.dumps(value).encode()
    digest = f"sha256:{sha256(content).hexdigest()}"
    made.literals[digest] = content
    return digest
