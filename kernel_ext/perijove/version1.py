"""Version 1 of the container build system: a list of jobs in containers. Read, and written, without loss.

What it has no word for stands under the key ``perijove``, of a job or of the whole; what it has words for and
nodes cannot do yet is refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from perijove.model.errors import FieldError, InvalidSpecError
from perijove.model.places import STEP, Reference, filled, literal, templates
from perijove.model.validation import field_errors, parse_workflow
from perijove.model.values import Argument, Path, Real, Text, Whole
from perijove.model.workflow import Step, Workflow, laid_under
from perijove.shortform import document, short

KEY = "perijove"
"""Of what version 1 has no word for."""
_DIGEST = r"sha256:[0-9a-f]{64}"
_NAME = r"^[A-Za-z0-9_.-]{1,200}$"
_INPUT = re.compile(rf"{_DIGEST}|jobs:.+|file:.+|https:.+#sha256=[0-9a-f]{{64}}", re.S)
_OUTPUT = re.compile(r"fd:[1-9]|(?:file|dir|glob):/.+")
_UNSUPPORTED = (
    "requires.cpuid",
    "requires.net_bandwidth",
    "requires.mpi",
    "runtime.runtime",
    "runtime.seccomp",
)


def _input(text: str) -> str:
    if not _INPUT.fullmatch(text):
        raise ValueError("must be sha256:DIGEST, jobs:ID/OUTPUT, file:PATH or https:...#sha256=DIGEST")
    return text


def _output(text: str) -> str:
    if not _OUTPUT.fullmatch(text):
        raise ValueError("must be fd:NUMBER (1 is standard output), file:/PATH, dir:/PATH or glob:/PATTERN")
    return text


def _none(value: Any) -> Any:
    return {} if value == [] else value


_Name = Annotated[str, StringConstraints(pattern=_NAME)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Requires(_Strict):
    cores: Real | None = None
    memory_bytes: Whole | None = None
    gpu: Whole | None = None
    tmpdisk_bytes: Whole | None = None
    arch: str | None = None
    cpuid: list[str] | None = None
    net_bandwidth: Real | None = None
    mpi: dict[str, Any] | None = None


class _Supervisor(_Strict):
    timeout_s: Real | None = None


class _Runtime(_Strict):
    runtime: str | None = None
    seccomp: Any = None


class _Job(_Strict):
    id: Annotated[str, StringConstraints(pattern=rf"^{STEP}$")] | None = None
    kind: Literal["container", "vm", "baremetal"] = "container"
    container: Annotated[str, StringConstraints(min_length=1, max_length=512)] | None = None
    command: list[Argument] | None = None
    entrypoint: list[Argument] | None = None
    cwd: Path | None = None
    env: list[Text] = Field(default_factory=list)
    inputs: Annotated[dict[_Name, Annotated[str, AfterValidator(_input)]], BeforeValidator(_none)] = Field(
        default_factory=dict
    )
    outputs: Annotated[dict[_Name, Annotated[str, AfterValidator(_output)]], BeforeValidator(_none)] = Field(
        default_factory=dict
    )
    stdin: str | None = None
    net: bool = False
    requires: _Requires = _Requires()
    supervisor: _Supervisor = _Supervisor()
    runtime: _Runtime = _Runtime()
    cache: bool | None = None
    perijove: dict[str, Any] = Field(default_factory=dict)


class _Dag(_Strict):
    version: Literal[1]
    jobs: Annotated[list[_Job], Field(min_length=1)]
    perijove: dict[str, Any] = Field(default_factory=dict)


def is_version1(data: Mapping[str, Any]) -> bool:
    """Whether `data` is meant to be one: a native workflow has neither of these."""
    return "version" in data or "jobs" in data


def from_version1(data: Mapping[str, Any]) -> Workflow:
    """The workflow that a document of version 1 describes; :class:`InvalidSpecError` names what is wrong."""
    try:
        dag = _Dag.model_validate(data)
    except ValidationError as error:
        raise InvalidSpecError(errors=field_errors(error, _Dag)) from None
    if errors := list(_wrong(dag)):
        raise InvalidSpecError(errors=errors)
    names = [_name(index, job) for index, job in enumerate(dag.jobs)]
    steps = {name: _fields(job) for name, job in zip(names, dag.jobs, strict=True)}
    try:
        return parse_workflow({**dag.perijove, "steps": steps})
    except InvalidSpecError as error:
        raise InvalidSpecError(errors=[_renamed(each, names) for each in error.errors]) from None


def _wrong(dag: _Dag) -> Iterator[FieldError]:
    ids = Counter(_name(index, job) for index, job in enumerate(dag.jobs))
    for index, job in enumerate(dag.jobs):
        at = f"jobs.{index}"
        if ids[_name(index, job)] > 1:
            yield FieldError(f"{at}.id", repr(job.id), "another job has this id")
        if job.kind != "container":
            yield FieldError(f"{at}.kind", job.kind, "is not supported; only container is")
        for path in _UNSUPPORTED:
            group, _, field = path.partition(".")
            if getattr(getattr(job, group), field) is not None:
                yield FieldError(f"{at}.{path}", "", "is not supported")
        if job.container is None and "image" not in job.perijove:
            yield FieldError(f"{at}.container", "", "is required")
        if job.entrypoint == [] and not job.command:
            yield FieldError(f"{at}.command", "", "is required when the entrypoint is empty")
        if "steps" in dag.perijove:
            yield FieldError(f"{KEY}.steps", "", "the steps are the jobs")
        yield from _wrong_env(at, job)


def _wrong_env(at: str, job: _Job) -> Iterator[FieldError]:
    seen: set[str] = set()
    for place, text in enumerate(job.env):
        name, equals, _ = text.partition("=")
        if not equals or not name:
            yield FieldError(f"{at}.env.{place}", "", "must be written NAME=VALUE")
        elif name in seen:
            yield FieldError(f"{at}.env.{place}", name, "another one has this name")
        seen.add(name)


def _name(index: int, job: _Job) -> str:
    return job.id or str(job.perijove.get("id") or f"#{index}")


def _renamed(error: FieldError, names: list[str]) -> FieldError:
    """`error` of a step as one of the job it was made from."""
    for index, name in enumerate(names):
        rest = error.field.removeprefix(f"steps.{name}")
        if rest != error.field and rest[:1] in {"", "."}:
            field, _, more = rest.removeprefix(".").partition(".")
            field = ".".join(filter(None, [_WORDS.get(field, field), more]))
            return FieldError(f"jobs.{index}.{field}".removesuffix("."), error.value, error.message)
    return error


_WORDS = {
    "image": "container",
    "cpu": "requires.cores",
    "memory": "requires.memory_bytes",
    "gpus": "requires.gpu",
    "tmp_disk": "requires.tmpdisk_bytes",
    "constraints": "requires.arch",
    "time_limit": "supervisor.timeout_s",
    "sealed": "net",
}


def _fields(job: _Job) -> dict[str, Any]:
    """The fields of the step that `job` describes."""
    fields: dict[str, Any] = {"sealed": not job.net}
    if job.net:
        fields["volumes"] = []
    if job.container is not None:
        digest = re.fullmatch(_DIGEST, job.container)
        fields["image"] = f"archive:{job.container}" if digest else job.container
    fields |= _what(job)
    if job.env:
        fields["env"] = {name: literal(value) for name, _, value in (text.partition("=") for text in job.env)}
    for name in ("cwd", "inputs", "outputs", "stdin", "cache"):
        if (value := getattr(job, name)) is not None and value != {}:
            fields[name] = value
    wanted = job.requires
    numbers = {"cpu": wanted.cores, "memory": wanted.memory_bytes, "gpus": wanted.gpu}
    numbers |= {"tmp_disk": wanted.tmpdisk_bytes, "time_limit": job.supervisor.timeout_s}
    fields |= {name: value for name, value in numbers.items() if value is not None}
    if wanted.arch is not None:
        fields["constraints"] = {"arch": wanted.arch}
    extension = {_ALIASES.get(name, name): value for name, value in job.perijove.items() if name != "id"}
    return {**fields, **extension}


_ALIASES = {"cpus": "cpu", "time": "time_limit"}


def _what(job: _Job) -> dict[str, Any]:
    """As in OCI's image configuration: the command is given to the entrypoint, the image's by default."""
    command = [literal(text) for text in job.command or ()]
    if job.entrypoint is None:
        return {"entrypoint": "image", **({"command": command} if command else {})}
    if job.entrypoint and command:
        return {"entrypoint": job.entrypoint, "command": command}
    return {"command": command or [literal(text) for text in job.entrypoint]}


def to_version1(workflow: Workflow) -> dict[str, Any]:
    """`workflow` as a document of version 1, which :func:`from_version1` makes the same workflow of."""
    whole = document(workflow)
    whole.pop("steps")
    if whole["name"] == Workflow.model_fields["name"].default:
        whole.pop("name")
    jobs = [
        _job(index, name, step, workflow.defaults)
        for index, (name, step) in enumerate(workflow.steps.items())
    ]
    return {"version": 1, "jobs": jobs, **({KEY: whole} if whole else {})}


def _job(index: int, name: str, step: Step, defaults: Mapping[str, Any]) -> dict[str, Any]:
    job = _words(step)
    more: dict[str, Any] = {}
    if not name.startswith("#"):
        job = {"id": name, **job}
    elif name != f"#{index}":
        more["id"] = name
    more |= _difference(step, _read_back(job, defaults))
    if step.image is None:
        more["image"] = None
    return {**job, **({KEY: more} if more else {})}


def _read_back(job: dict[str, Any], defaults: Mapping[str, Any]) -> Step | None:
    """What a reader would make of `job` alone; None when that would not be accepted."""
    try:
        return Step.model_validate(laid_under(defaults, _fields(_Job.model_validate(job))))
    except ValidationError:
        return None


def _difference(step: Step, back: Step | None) -> dict[str, Any]:
    return {
        name: short(name, value)
        for name in Step.model_fields
        if (back is None or getattr(back, name) != getattr(step, name))
        and not (name == "volumes" and step.sealed)
        for value in [getattr(step, name)]
    }


def _words(step: Step) -> dict[str, Any]:
    """What version 1 has words for."""
    job: dict[str, Any] = {}
    if step.image is not None:
        archive = re.fullmatch(rf"archive:({_DIGEST})", step.image)
        job["container"] = archive[1] if archive else step.image
    if step.command is not None and not any(_has_references(text) for text in step.command):
        job["command"] = [_literal(text) for text in step.command]
    if isinstance(step.entrypoint, list):
        job["entrypoint"] = step.entrypoint
    elif step.entrypoint is None and "command" in job:
        job["entrypoint"] = []
    if step.cwd is not None:
        job["cwd"] = step.cwd
    if env := [f"{name}={_literal(value)}" for name, value in step.env.items() if not _has_references(value)]:
        job["env"] = env
    if inputs := {name: place for name, place in step.inputs.items() if _fits(name, place, _INPUT)}:
        job["inputs"] = inputs
    if outputs := {name: place for name, place in step.outputs.items() if _fits(name, place, _OUTPUT)}:
        job["outputs"] = outputs
    if step.stdin in inputs:
        job["stdin"] = step.stdin
    if not step.sealed:
        job["net"] = True
    job |= _requirements(step)
    if step.cache is not None:
        job["cache"] = step.cache
    return job


def _requirements(step: Step) -> dict[str, Any]:
    wanted: dict[str, Any] = {}
    for name, word in (("cpu", "cores"), ("memory", "memory_bytes"), ("tmp_disk", "tmpdisk_bytes")):
        if (value := getattr(step, name)) != Step.model_fields[name].default:
            wanted[word] = value
    if step.gpus.count and step.gpus.model is None and step.gpus.memory is None:
        wanted["gpu"] = step.gpus.count
    if "arch" in step.constraints:
        wanted["arch"] = step.constraints["arch"]
    found: dict[str, Any] = {"requires": wanted} if wanted else {}
    if step.time_limit is not None:
        found["supervisor"] = {"timeout_s": step.time_limit}
    return found


def _fits(name: str, place: Any, form: re.Pattern[str]) -> bool:
    return bool(re.fullmatch(_NAME, name)) and isinstance(place, str) and bool(form.fullmatch(place))


def _has_references(text: str) -> bool:
    return next(templates(text), None) is not None


def _literal(text: str) -> str:
    def none(reference: Reference) -> str:
        raise AssertionError(reference)

    return filled(text, none)
