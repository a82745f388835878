"""From a workflow as it was written to one that any service can run: what lies here becomes digests."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from perijove.documents import load
from perijove.model.errors import FieldError, InvalidSpecError, UserError
from perijove.model.parameters import parameter_values
from perijove.model.workflow import Step, Workflow
from perijove.workplace import shared_directory

if TYPE_CHECKING:
    from perijove.client import AsyncClient
    from perijove.runs import AsyncRun
    from perijove.site import Document

AT_ONCE = 8
"""Imports that go on at the same time."""
_URLS = ("http:", "https:", "s3:")


class Built(Protocol):
    """A workflow with what belongs to it: what :class:`perijove.Workflow` is."""

    @property
    def model(self) -> Workflow:
        """The workflow itself."""

    @property
    def folder(self) -> Path:
        """What relative paths in it are relative to."""

    @property
    def contents(self) -> Mapping[str, bytes]:
        """Pickles by digest."""


Written = str | os.PathLike[str] | Workflow | Built
"""A workflow as a file, as a model, or as it was built in Python."""


async def submit(
    client: AsyncClient,
    workflow: Written,
    parameters: Mapping[str, Any] | None = None,
    folder: str | os.PathLike[str] | None = None,
    **how: Any,
) -> AsyncRun:
    """Import what `workflow` names and start a run of it; `how` as :meth:`AsyncClient.submit_workflow` takes.

    `folder`: what relative paths in it are relative to; by default the file's, else the current one.
    """
    document, given = await _ready(client, workflow, parameters, folder)
    return await client.submit_workflow(document, given, **how)


async def plan(
    client: AsyncClient,
    workflow: Written,
    parameters: Mapping[str, Any] | None = None,
    folder: str | os.PathLike[str] | None = None,
    **how: Any,
) -> Document:
    """The same without starting it: what would run, and why."""
    document, given = await _ready(client, workflow, parameters, folder)
    return await client.plan_workflow(document, given, **how)


async def _ready(
    client: AsyncClient,
    workflow: Written,
    parameters: Mapping[str, Any] | None,
    folder: str | os.PathLike[str] | None,
) -> tuple[Document, dict[str, Any]]:
    contents: Mapping[str, bytes] = {}
    if isinstance(workflow, str | os.PathLike):
        folder = folder or Path(workflow).parent
        workflow = load(workflow)
    elif not isinstance(workflow, Workflow):
        folder, contents, workflow = folder or workflow.folder, workflow.contents, workflow.model
    given = parameter_values(workflow.parameters, parameters or {})
    document = await frozen(client, workflow, folder or ".")
    await asyncio.gather(*(client.upload(data) for data in contents.values()))
    return document, given


async def frozen(client: AsyncClient, workflow: Workflow, folder: str | os.PathLike[str] = ".") -> Document:
    """The document of `workflow` with digests for paths and URLs, and each step where its files are.

    A step that has the home and names no directory runs in the notebook's folder, or in `folder`, where its
    job will find that. :class:`InvalidSpecError` names what cannot be read.
    """
    imports = _Imports(client, _absolute(folder))
    steps = await asyncio.gather(*(imports.step(name, step) for name, step in workflow.steps.items()))
    if imports.errors:
        raise InvalidSpecError(errors=imports.errors)
    document = workflow.model_dump(mode="json", exclude_unset=True)
    document["steps"] = dict(zip(workflow.steps, steps, strict=True))
    document.pop("defaults", None)  # each step has them already
    return document


def _absolute(folder: str | os.PathLike[str]) -> Path:
    return Path(folder).absolute()


@dataclass
class _Imports:
    """What was imported so far, each thing once."""

    client: AsyncClient
    folder: Path
    errors: list[FieldError] = field(default_factory=list)
    _done: dict[str, asyncio.Task[str]] = field(default_factory=dict)
    _limit: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def step(self, name: str, step: Step) -> Document:
        document = step.model_dump(mode="json", exclude_unset=True)
        for key, place in step.inputs.items():
            document["inputs"][key] = await self._input(f"steps.{name}.inputs.{key}", place)
        if step.notebook is not None and not step.notebook.startswith("sha256:"):
            path = self._path(step.notebook)
            document["notebook"] = await self._taken(f"steps.{name}.notebook", f"file:{path}", self._file)
        return {**document, **self._placed(step)}

    async def _input(self, at: str, place: Any) -> Any:
        if isinstance(place, list):
            return [await self._input(f"{at}.{index}", part) for index, part in enumerate(place)]
        if isinstance(place, str):
            kind = place.partition(":")[0]
            if kind in {"file", "dir"}:
                path = self._path(place.partition(":")[2])
                return await self._taken(at, f"{kind}:{path}", self._file if kind == "file" else self._tree)
            if place.startswith(_URLS):
                return await self._taken(at, place, self._url)
        return place

    async def _taken(self, at: str, place: str, take: Callable[[str], Awaitable[str]]) -> str:
        async def taking() -> str:
            async with self._limit:
                return await take(place)

        if place not in self._done:
            self._done[place] = asyncio.create_task(taking())
        try:
            return await asyncio.shield(self._done[place])
        except OSError as error:
            self.errors.append(FieldError(at, place, f"cannot be read: {error.strerror or error}"))
        except UserError as error:
            self.errors.append(FieldError(at, place, str(error)))
        return place

    async def _file(self, place: str) -> str:
        path = place.removeprefix("file:")
        if await asyncio.to_thread(os.path.isdir, path):
            raise IsADirectoryError(errno.EISDIR, "it is a folder: write dir: before it", path)
        return await self.client.upload(Path(path))

    async def _tree(self, place: str) -> str:
        path = place.removeprefix("dir:")
        if not await asyncio.to_thread(os.path.isdir, path):
            raise NotADirectoryError(errno.ENOTDIR, "it is no folder", path)
        return await self.client.upload(Path(path))

    async def _url(self, place: str) -> str:
        return await self.client.fetch_url(place)

    def _path(self, text: str) -> Path:
        return self.folder / Path(text).expanduser()

    def _placed(self, step: Step) -> Document:
        """Image and directory of where this process is, where the step names none; as jobs have them."""
        fields: Document = {}
        image = os.environ.get("PERIJOVE_IMAGE")
        if image and step.image is None and step.launcher is None:
            fields["image"] = image
        if step.cwd is None and not step.sealed and any(each.name == "home" for each in step.volumes):
            here = self._path(step.notebook).parent if step.notebook else self.folder
            given = {key: getattr(step, key) for key in ("launcher", "image") if getattr(step, key)}
            placed = {**fields, **given}
            if shared := shared_directory(here, placed, self.client.connection.launchers, os.environ):
                fields["cwd"] = shared
        return fields
