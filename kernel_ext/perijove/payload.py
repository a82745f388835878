"""Work to be sent along with a job: a cell, a function, a notebook, as files and a command."""

from __future__ import annotations

import asyncio
import json
import keyword
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perijove.model.errors import FieldError, InvalidSpecError, TooLargeError
from perijove.model.places import output_places
from perijove.model.quantities import format_size
from perijove.workplace import interpreter, place

if TYPE_CHECKING:
    from perijove.client import AsyncClient
    from perijove.handle import AsyncJob


@dataclass(frozen=True, slots=True)
class Payload:
    """What ``python -m perijove.runner`` is to run."""

    arguments: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the spec that hold unless the user says otherwise."""

    async def submit(self, client: AsyncClient, fields: Mapping[str, Any]) -> AsyncJob:
        """Upload the files and submit, with the spec's other `fields`."""
        placed = place({**self.defaults, **fields}, client.connection.launchers)
        python, *digests = await asyncio.gather(
            interpreter(placed, client), *(_upload(client, name, data) for name, data in self.files.items())
        )
        return await client.submit(
            {
                **placed,
                "command": [python, "-m", "perijove.runner", *self.arguments],
                "inputs": {**placed.get("inputs", {}), **dict(zip(self.files, digests, strict=True))},
                "outputs": {
                    **output_places(placed.get("outputs", {})),
                    **output_places(self.outputs),
                },
            }
        )


def cell_payload(code: str, variables: Mapping[str, Any], outputs: Sequence[str] = ()) -> Payload:
    """A cell with the variables it is given and the names it is to send back."""
    check_names("in", variables)
    check_names("out", outputs)
    files = {
        "cell.py": code.encode(),
        **{f"{name}.pkl": _pickled(name, value) for name, value in variables.items()},
    }
    arguments = ["cell"]
    for name in outputs:
        arguments += ["--out", name]
    return Payload(tuple(arguments), files, tuple(f"{name}.pkl" for name in outputs), {"name": "cell"})


def function_payload(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Payload:
    """A call of a function; what it returns comes back."""
    name = getattr(function, "__name__", "function")
    data = _pickled(name, (function, tuple(args), dict(kwargs)))
    return Payload(("function",), {"function.pkl": data}, ("result.pkl",), {"name": name.strip("<>")})


def notebook_payload(path: Path, parameters: Mapping[str, Any]) -> Payload:
    """A notebook as it is now, with parameters; its executed form is the output ``notebook.ipynb``."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidSpecError(
            errors=[FieldError("notebook", str(path), f"cannot be read: {error.strerror}")]
        ) from error
    return notebook_content_payload(content, parameters, path.name)


def notebook_content_payload(content: bytes, parameters: Mapping[str, Any], name: str) -> Payload:
    """The same for a notebook that is not a file."""
    files = {"notebook.ipynb": content}
    if parameters:
        files["parameters.json"] = json.dumps(dict(parameters)).encode()
    return Payload(("notebook",), files, ("notebook.ipynb",), {"name": name, "kind": "notebook"})


def check_names(option: str, names: Sequence[str] | Mapping[str, Any]) -> None:
    """Raise :class:`InvalidSpecError` unless all are names that a file can bear."""
    wrong = [
        name for name in names if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name)
    ]
    if wrong:
        text = "must be Python names in plain ASCII, separated by commas"
        raise InvalidSpecError(errors=[FieldError(option, name, text) for name in wrong])


def _pickled(name: str, value: Any) -> bytes:
    import cloudpickle

    try:
        data: bytes = cloudpickle.dumps(value)
    except Exception as error:
        text = f"cannot be pickled and sent: {error}"
        raise InvalidSpecError(errors=[FieldError(name, type(value).__name__, text)]) from error
    return data


async def _upload(client: AsyncClient, name: str, data: bytes) -> str:
    try:
        return await client.upload(data)
    except TooLargeError as error:
        raise TooLargeError(
            f"{name.removesuffix('.pkl')} is {format_size(len(data))} once pickled ({error});"
            " save it to a file in your home and read it in the job"
        ) from error
