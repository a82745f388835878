"""Workflows written in Python."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from pydantic import ValidationError

from perijove import documents
from perijove.model.errors import FieldError, InvalidSpecError
from perijove.model.parameters import Parameter, parameter
from perijove.model.places import Reference
from perijove.model.validation import field_errors, parse_workflow
from perijove.model.workflow import Step, laid_under
from perijove.model.workflow import Workflow as Model
from perijove.pickling import digest_of, pickled
from perijove.promises import Promise, argument, has_promises, text
from perijove.shortform import document
from perijove.steps import OPTIONS, Parameters, StepHandle, options_of
from perijove.version1 import to_version1

if TYPE_CHECKING:
    from perijove.site import Document
    from perijove.sync import Client
    from perijove.sync_runs import Run


class Workflow:
    """A workflow built in Python: steps, and what each takes from others.

    >>> with Workflow("fit", lr=0.1) as w:
    ...     prep = w.notebook("prep.ipynb")
    ...     fits = w.map("fit.ipynb", prep["seeds"], seed=w.item, lr=w.parameters.lr)
    ...     w.notebook("report.ipynb", losses=fits["loss"])
    >>> run = w.submit(lr=0.2)

    `parameters` are given with their defaults, or as :class:`~perijove.model.Parameter`; those whose name is
    taken here, in the mapping `parameters`. `defaults` are options that all steps have. Relative paths count
    from `folder`, by default the current one.
    """

    def __init__(
        self,
        name: str = "workflow",
        *,
        description: str = "",
        defaults: Mapping[str, Any] | None = None,
        fail_fast: bool = False,
        folder: str | Path | None = None,
        parameters: Mapping[str, Any] | None = None,
        **more_parameters: Any,
    ) -> None:
        self.folder = Path(folder) if folder is not None else Path.cwd()
        self.contents: dict[str, bytes] = {}
        """Pickled functions and objects, by digest."""
        self.fields: dict[str, dict[str, Any]] = {}
        """The fields of each step, by its name."""
        given = {**(parameters or {}), **more_parameters}
        self._document: dict[str, Any] = {
            "name": name,
            "description": description,
            "parameters": {key: _parameter(value) for key, value in given.items()},
            "defaults": dict(defaults or {}),
            "fail_fast": fail_fast,
        }
        self.parameters = Parameters(given)
        self.item = Promise(Reference("item"))
        """In a mapped step: the element of its list; ``w.item["lr"]`` is a field of it."""
        self.index = Promise(Reference("index"))
        """In a mapped step: the element's number, from 0."""

    def __enter__(self) -> Workflow:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.check()

    # steps

    def run(self, *command: Any, script: str | None = None, **options: Any) -> StepHandle:
        """A program in a container or on a node: ``w.run("python", "fit.py", prep["table"])``.

        A file among its words becomes the path where the step finds it. `script` is the text of one, of which
        the words are the arguments. `options` are fields of a step: see the reference of the document.
        """
        words = [text(word) for word in command]
        if script is not None:
            fields: dict[str, Any] = {"script": script, **({"args": words} if words else {})}
            return self._add("script", fields, options)
        if not words:
            options = {"entrypoint": "image", **options}
        first = words[0].rpartition("/")[2] if words else str(options.get("image", "run")).rpartition("/")[2]
        return self._add(first, {"command": words} if words else {}, options)

    def notebook(self, path: str | Path, /, **parameters_and_options: Any) -> StepHandle:
        """A notebook with parameters, run by papermill. What it records are outputs, too.

        Keywords that name no option of a step are its parameters; others go into ``parameters={...}``.
        """
        options = {key: value for key, value in parameters_and_options.items() if key in OPTIONS}
        given = {key: value for key, value in parameters_and_options.items() if key not in OPTIONS}
        given = {**given.pop("parameters", {}), **given}
        name = re.sub(r"^sha256:.*", "notebook", Path(path).stem)
        fields: dict[str, Any] = {"notebook": str(path)}
        if given:
            fields["parameters"] = {key: self._plain(f"parameters.{key}", v) for key, v in given.items()}
        return self._add(name, fields, options)

    def call(self, function: Callable[..., Any], /, *args: Any, **kwargs_and_options: Any) -> StepHandle:
        """A call of a Python function; what it returns is the output ``result``.

        Keywords are arguments where the function takes them by name, and options of the step elsewhere;
        ``options={...}`` holds options that it takes itself. Outputs of other steps arrive as values, files
        as paths.
        """
        kwargs, options = self._sorted(function, args, kwargs_and_options)
        name = getattr(function, "__name__", "call").strip("<>")
        fields: dict[str, Any] = {"function": self._kept(name, function)}
        if args:
            fields["args"] = [self._argument(f"args.{place}", value) for place, value in enumerate(args)]
        if kwargs:
            fields["parameters"] = {key: self._argument(f"parameters.{key}", v) for key, v in kwargs.items()}
        return self._add(name, fields, options)

    def map(self, what: Callable[..., Any] | str | Path, over: Any, /, *args: Any, **more: Any) -> StepHandle:
        """A function or notebook, run for each element of `over`: a list, or a promise of one.

        A function gets the element as its first argument; a notebook what it is told by ``w.item``. Any step
        can be run so with the option ``map=``.
        """
        if callable(what):
            return self.call(what, self.item, *args, map=over, **more)
        if args:
            raise TypeError("a notebook takes its parameters by name: seed=w.item")
        return self.notebook(what, map=over, **more)

    @overload
    def step(self, function: Callable[..., Any], /) -> Callable[..., StepHandle]: ...

    @overload
    def step(self, /, **options: Any) -> Callable[[Callable[..., Any]], Callable[..., StepHandle]]: ...

    def step(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """As a decorator: calls of the function are steps. ``@w.step`` or ``@w.step(cpus=2)``."""

        def decorated(function: Callable[..., Any]) -> Callable[..., StepHandle]:
            @functools.wraps(function)
            def called(*args: Any, **kwargs: Any) -> StepHandle:
                own = {**options, **kwargs.pop("options", {})}
                return self.call(function, *args, options=own, **kwargs)

            return called

        return decorated if function is None else decorated(function)

    def _sorted(
        self, function: Callable[..., Any], args: Sequence[Any], given: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Keywords that are arguments of `function`, and options."""
        options = dict(given.pop("options", {}))
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):
            known: set[str] | None = None
        else:
            takes = signature.parameters.values()
            known = {
                each.name for each in takes if each.kind in {each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD}
            }
            if args:  # those that are filled by position
                known -= set(list(signature.parameters)[: len(args)])
        kwargs = {k: v for k, v in given.items() if k not in OPTIONS or (known is not None and k in known)}
        options |= {k: v for k, v in given.items() if k not in kwargs}
        if known is not None:
            try:
                signature.bind(*args, **kwargs)
            except TypeError as error:
                name = getattr(function, "__name__", "function")
                raise InvalidSpecError(errors=[FieldError(name, "", f"{error}: {name}{signature}")]) from None
        return kwargs, options

    def _plain(self, field: str, value: Any) -> Any:
        try:
            return argument(value)
        except TypeError as error:
            message = f"a notebook's parameters are JSON: {error}"
            raise InvalidSpecError(errors=[FieldError(field, "", message)]) from None

    def _argument(self, field: str, value: Any) -> Any:
        """JSON as it is, everything else as a pickle; tuples and sets stay what they are."""
        if has_promises(value):
            if isinstance(value, Mapping):
                return {key: self._argument(field, part) for key, part in value.items()}
            if isinstance(value, list | tuple):
                return [self._argument(field, part) for part in value]
            return argument(value)
        if _stays_json(value):
            return argument(value)
        return {"pickle": self._kept(field, value)}

    def _kept(self, name: str, value: Any) -> str:
        data = pickled(name, value)
        digest = digest_of(data)
        self.contents[digest] = data
        return digest

    def _add(self, name: str, fields: dict[str, Any], options: dict[str, Any]) -> StepHandle:
        chosen = options.pop("name", None)
        name = str(chosen) if chosen is not None else self._free(name)
        if name in self.fields:
            raise InvalidSpecError(errors=[FieldError(f"steps.{name}", "", "there is a step of this name")])
        fields = {**fields, **options_of(options)}
        self.check_step(name, fields)
        self.fields[name] = fields
        return StepHandle(self, name)

    def _free(self, name: str) -> str:
        stem = re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:100].strip("-") or "step"
        number = 2
        found = stem
        while found in self.fields:
            found, number = f"{stem}-{number}", number + 1
        return found

    def check_step(self, name: str, fields: dict[str, Any]) -> None:
        """Refuse it where it was written; the whole is checked again at the end."""
        try:
            step = Step.model_validate(laid_under(self._document["defaults"], fields))
        except ValidationError as error:
            found = [_below(name, each) for each in field_errors(error, Step)]
            raise InvalidSpecError(errors=found) from None
        for other in step.needs():
            if other not in self.fields:
                raise InvalidSpecError(
                    errors=[FieldError(f"steps.{name}", "", f"there is no step {other} (yet)")]
                )

    @property
    def model(self) -> Model:
        """The workflow as data; :class:`~perijove.InvalidSpecError` names what is wrong with it."""
        return parse_workflow({**self._document, "steps": self.fields})

    def check(self) -> Workflow:
        """Raise :class:`~perijove.InvalidSpecError` unless it could be submitted."""
        self.model  # noqa: B018 - building it is the check
        return self

    @property
    def document(self) -> dict[str, Any]:
        """Its document, as YAML and JSON have it."""
        return document(self.model)

    def to_yaml(self) -> str:
        """As YAML, for ``perijove run``. Functions are named by digest, and sent by :meth:`submit` only."""
        return documents.to_yaml(self.model)

    def to_json(self) -> str:
        """As JSON, likewise."""
        return documents.to_json(self.model)

    def to_v1(self) -> dict[str, Any]:
        """As a document of version 1 of the container build system."""
        return to_version1(self.model)

    def submit(self, parameters: Mapping[str, Any] | None = None, /, **how_and_parameters: Any) -> Run:
        """Start a run: ``w.submit(lr=0.2, cache="refresh")``.

        Keywords that are ``cache``, ``hold``, ``priority``, ``project``, ``fail_fast``, ``labels`` or
        ``client`` say how; others are parameters of the workflow.
        """
        client, given, how = self._call(parameters, how_and_parameters)
        return client.run_workflow(self, given, **how)

    def run_and_wait(self, parameters: Mapping[str, Any] | None = None, /, **how_and_parameters: Any) -> Run:
        """Start a run and wait for its end; :class:`~perijove.JobFailedError` when it does not succeed."""
        run = self.submit(parameters, **how_and_parameters)
        run.result()
        return run

    def explain(
        self, parameters: Mapping[str, Any] | None = None, /, **how_and_parameters: Any
    ) -> list[Document]:
        """What a run would do now: of each step the run whose result it would take, or why it would run."""
        client, given, how = self._call(parameters, how_and_parameters)
        return client.explain_workflow(self, given, **how)

    def _call(
        self, parameters: Mapping[str, Any] | None, given: dict[str, Any]
    ) -> tuple[Client, dict[str, Any], dict[str, Any]]:
        from perijove import default_client

        how = {key: given.pop(key) for key in list(given) if key in _HOW}
        client = how.pop("client", None) or default_client()
        return client, {**(parameters or {}), **given}, how

    def __repr__(self) -> str:
        return f"<Workflow {self._document['name']!r}: {', '.join(self.fields) or 'no steps'}>"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        if not self.fields:
            return {"text/plain": repr(self)}
        from perijove.run_display import workflow_bundle

        return workflow_bundle(self.model)


_HOW = frozenset({"cache", "hold", "priority", "project", "fail_fast", "labels", "client"})


def _parameter(value: Any) -> Any:
    if isinstance(value, Parameter):
        return value
    found = parameter(value if not isinstance(value, Mapping) else None)
    return {"type": "object", "default": dict(value)} if isinstance(value, Mapping) else found


def _stays_json(value: Any) -> bool:
    """Whether a function gets the same from the JSON of `value` as from its pickle."""
    if isinstance(value, dict):
        return all(type(key) is str and _stays_json(part) for key, part in value.items())
    if isinstance(value, list):
        return all(_stays_json(part) for part in value)
    if isinstance(value, float):
        return value == value and abs(value) != float("inf")
    return value is None or type(value) in {str, int, bool}


def _below(name: str, error: FieldError) -> FieldError:
    return FieldError(f"steps.{name}.{error.field}".removesuffix("."), error.value, error.message)
