"""Capsules on this side: reading one without trusting it, running it again, and comparing what comes out."""

from __future__ import annotations

import asyncio
import json
import os
import re
import tempfile
import zipfile
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError

from perijove.model.capsules import (
    DOCUMENT_BYTES,
    INDEX,
    MEMBERS,
    README,
    RECORDS,
    VERSION,
    WORKFLOW,
    CapsuleIndex,
)
from perijove.model.errors import UserError
from perijove.model.runs import ResultRecord, StepRun
from perijove.model.validation import parse_workflow
from perijove.model.workflow import Workflow

if TYPE_CHECKING:
    from perijove.client import AsyncClient
    from perijove.runs import AsyncRun

Verdict = Literal["same", "differs", "missing", "new", "not compared"]
HIDDEN = "(hidden)"
"""What a capsule has in place of the value of a variable that looked secret."""
_PIECE = 1 << 20
_SMALL, _RATIO = 64 << 20, 200
"""A member of so many bytes may be packed as well as it can be; a larger one only so well."""
_DIGEST = re.compile(r"sha256(?:-tree)?:[0-9a-f]{64}")
_SITE = ("node", "partition", "reservation", "constraints", "project")
"""Fields of a step that name things of the installation that it ran on."""
_records: TypeAdapter[list[ResultRecord]] = TypeAdapter(list[ResultRecord])


@dataclass(frozen=True, slots=True)
class Capsule:
    """A run that was read from a file. Contents are compared with their digests when they are taken out."""

    path: Path
    index: CapsuleIndex
    workflow: Workflow
    records: list[ResultRecord]

    @property
    def missing(self) -> list[str]:
        """Digests that the workflow names and the capsule does not hold."""
        return [digest for digest, one in self.index.contents.items() if one.path is None]


@dataclass(frozen=True, slots=True)
class Row:
    """One thing of a step, as it was and as it is now."""

    step: str
    what: str
    before: str
    after: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Rerun:
    """A capsule that was run again."""

    run: AsyncRun
    rows: list[Row] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether all that could be compared is the same."""
        return all(row.verdict in {"same", "not compared"} for row in self.rows)


def read_capsule(path: str | os.PathLike[str]) -> Capsule:
    """Read `path`; :class:`UserError` says why it is no capsule, or none to be trusted."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(Path(path), archive)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise UserError(f"{path}: is no capsule: {error}") from None


def _read(path: Path, archive: zipfile.ZipFile) -> Capsule:
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(names) > MEMBERS or len(set(names)) != len(names):
        raise UserError(f"{path}: is no capsule: it has names twice, or more than {MEMBERS}")
    if lacking := {INDEX, WORKFLOW, RECORDS} - set(names):
        raise UserError(f"{path}: is no capsule: it has no {min(lacking)}")
    try:
        index = CapsuleIndex.model_validate_json(_document(archive, INDEX))
        if index.version != VERSION:
            raise UserError(f"{path}: version {index.version} of capsules; this Perijove reads {VERSION}")
        records = _records.validate_json(_document(archive, RECORDS))
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: is no capsule: {at}: {first['msg']}") from None
    sizes = {one.path: one.size for one in index.contents.values() if one.path is not None}
    for member in members:
        if member.filename in sizes and member.file_size != sizes[member.filename]:
            raise UserError(f"{path}: {member.filename} is not as large as the index says")
        if member.file_size > max(_SMALL, _RATIO * member.compress_size):
            raise UserError(f"{path}: {member.filename} unpacks to more than {_RATIO} times its size")
        if member.filename not in {*sizes, INDEX, WORKFLOW, RECORDS, README}:
            raise UserError(f"{path}: {member.filename[:80]!r} is not in its index")
    if lost := set(sizes) - set(names):
        raise UserError(f"{path}: {min(lost)} is in its index and not there")
    return Capsule(path, index, parse_workflow(_document(archive, WORKFLOW).decode()), records)


def _document(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > DOCUMENT_BYTES:
        raise UserError(f"{name} is too large")
    # zipfile reads no more than the size that the member gives, and checks its CRC
    return archive.read(name)


# Running it again


async def rerun(
    client: AsyncClient,
    capsule: Capsule,
    *,
    inputs: Mapping[str, str | os.PathLike[str]] | None = None,
    force: bool = False,
    env: Mapping[str, str] | None = None,
    on_run: Callable[[AsyncRun], Awaitable[None]] | None = None,
) -> Rerun:
    """Run `capsule` where `client` is, and compare what comes out.

    `inputs`: ``STEP/NAME`` -> a file here, for what the capsule does not hold. A file that is not what the
    digest says is refused, unless `force`; then the changed one is used. `env` has the values of hidden
    variables; none is taken from this process, since somebody else's code would see it. `on_run` is called
    with the run when it has begun.
    """
    with tempfile.TemporaryDirectory() as folder:
        changed = await _bring(client, capsule, inputs or {}, force, Path(folder))
    document = prepared(capsule, env or {})
    if changed:
        document = json.loads(_substituted(json.dumps(document), changed))
    parameters = json.loads(_substituted(json.dumps(capsule.index.run.parameters), changed))
    run = await client.submit_workflow(document, parameters, cache="refresh")
    if on_run is not None:
        await on_run(run)
    async for _ in run.changes():
        pass
    await run.refresh()
    records = await _records_of(client, run.id)
    return Rerun(run, [*compared(capsule, run.steps, records)])


def prepared(capsule: Capsule, env: Mapping[str, str]) -> dict[str, Any]:
    """The capsule's workflow as another installation can run it.

    Each step has the image that it ran in, and nothing that only that installation has: nodes, partitions,
    folders. :class:`UserError` for variables whose values are hidden and not in `env`.
    """
    document = capsule.workflow.model_dump(mode="json", exclude_unset=True)
    document.pop("defaults", None)
    ran = {record.step.partition("[")[0]: record for record in reversed(capsule.records) if record.job}
    for name, step in document["steps"].items():
        for field_name in _SITE:
            step.pop(field_name, None)
        record = ran.get(name)
        image = step.get("image") or (record.image if record else None)
        if image:
            step["image"] = image
            step.pop("launcher", None)
        elif record is not None and record.job is not None and record.job.launcher:
            step["launcher"] = record.job.launcher
        if step.get("cwd") and not Path(step["cwd"]).is_dir():
            del step["cwd"]
        for variable, value in step.get("env", {}).items():
            if value == HIDDEN:
                if variable not in env:
                    advice = f"give it with --env {variable}=VALUE"
                    raise UserError(f"step {name}: {variable} is hidden in the capsule; {advice}")
                step["env"][variable] = env[variable]
    return document


async def _bring(
    client: AsyncClient,
    capsule: Capsule,
    inputs: Mapping[str, str | os.PathLike[str]],
    force: bool,
    folder: Path,
) -> dict[str, str]:
    """Upload what the capsule holds and what was given beside it; old digest -> new one, of what changed."""
    changed: dict[str, str] = {}
    held = capsule.index.contents
    given = {_named_input(capsule.workflow, name): Path(path) for name, path in inputs.items()}
    await _all_there(client, capsule, given)
    for digest, one in held.items():
        source, where = given.get(digest), str(given.get(digest))
        if source is None and one.path is not None and not _is_tree(digest):
            source, where = folder / "member", f"{capsule.path}: {one.path}"
            await asyncio.to_thread(_take_out, capsule.path, one.path, source)
        if source is None:
            continue
        uploaded = await _uploaded(client, source)
        if uploaded != digest:
            if not force:
                raise UserError(f"{where} is not what was run then: its digest differs; --force takes it")
            changed[digest] = uploaded
    for digest, one in held.items():
        if _is_tree(digest) and one.path is not None and digest not in given:
            await _bring_tree(client, capsule, digest, one.path, changed, folder)
    return changed


async def _all_there(client: AsyncClient, capsule: Capsule, given: Mapping[str, Path]) -> None:
    """Raise :class:`UserError` when a file is neither in the capsule nor given nor there already."""
    needed = _needed(capsule)
    lost = [digest for digest in capsule.missing if digest not in given and digest in needed]
    if not lost:
        return
    answer = await client.request_json("POST", "/files/missing", body={"digests": lost})
    if answer["missing"]:
        named = sorted(_name_of(capsule.workflow, digest) for digest in answer["missing"])
        raise UserError(
            f"the capsule does not hold {', '.join(named[:10])}; give them with --input STEP/NAME=PATH"
        )


async def _bring_tree(
    client: AsyncClient, capsule: Capsule, digest: str, member: str, changed: dict[str, str], folder: Path
) -> None:
    await asyncio.to_thread(_take_out, capsule.path, member, folder / "tree")
    listed = json.loads(_substituted((folder / "tree").read_text(), changed))
    answer = await client.request_json("POST", "/files/tree", body=listed)
    if answer["digest"] != digest:
        changed[digest] = str(answer["digest"])


async def _records_of(client: AsyncClient, run: int) -> list[ResultRecord]:
    found: list[ResultRecord] = []
    after: Any = None
    while True:
        page = await client.request_json("GET", f"/workflows/{run}/record", {"after": after})
        found += _records.validate_python(page["records"])
        after = page.get("next")
        if after is None:
            return found


def _needed(capsule: Capsule) -> set[str]:
    """Digests that stand where a file is taken; elsewhere they are only text."""
    fields = ("inputs", "args", "parameters", "map", "notebook", "function", "image")
    steps = [{name: getattr(step, name) for name in fields} for step in capsule.workflow.steps.values()]
    text = json.dumps([steps, capsule.index.run.parameters])
    return set(_DIGEST.findall(text))


def _take_out(archive: Path, member: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(member) as source, target.open("wb") as file:
            while piece := source.read(_PIECE):
                file.write(piece)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(f"{archive}: {member} is damaged: {error}") from None


async def _uploaded(client: AsyncClient, path: Path) -> str:
    try:
        return await client.upload(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None


def _is_tree(digest: str) -> bool:
    return digest.startswith("sha256-tree:")


def _substituted(text: str, changed: Mapping[str, str]) -> str:
    return _DIGEST.sub(lambda match: changed.get(match[0], match[0]), text)


def _named_input(workflow: Workflow, name: str) -> str:
    """The digest of ``STEP/NAME``."""
    step, _, key = name.partition("/")
    known = {f"{s}/{n}": p for s, one in workflow.steps.items() for n, p in one.inputs.items()}
    place = known.get(f"{step}/{key}")
    if not isinstance(place, str) or not _DIGEST.fullmatch(place):
        names = ", ".join(one for one, p in known.items() if isinstance(p, str) and _DIGEST.fullmatch(p))
        raise UserError(f"the capsule has no input {name}; it has: {names or 'none'}")
    return place


def _name_of(workflow: Workflow, digest: str) -> str:
    names = [
        f"{s}/{n}" for s, one in workflow.steps.items() for n, p in one.inputs.items() if digest in str(p)
    ]
    return names[0] if names else digest[:19]


# Comparing


def compared(
    capsule: Capsule, steps: Mapping[str, StepRun], records: Iterable[ResultRecord]
) -> Iterator[Row]:
    """How each step's state, outputs, values and image are now, beside what they were."""
    now = {record.step: record for record in records}
    before = {record.step: record for record in capsule.records}
    for label, old in before.items():
        step, new = steps.get(label), now.get(label)
        if step is None or new is None:
            yield Row(label, "step", old.status, "", "missing")
            continue
        yield _row(label, "status", _good(old.status), _good(new.status))
        yield from _outputs(label, old, new, notebook=_is_notebook(capsule.workflow, label))
        if old.image_digest and new.image_digest and old.image_digest != new.image_digest:
            yield Row(label, "image", _short(old.image_digest), _short(new.image_digest), "not compared")
    for label in now:
        if label not in before:
            yield Row(label, "step", "", now[label].status, "new")


def _outputs(label: str, old: ResultRecord, new: ResultRecord, *, notebook: bool) -> Iterator[Row]:
    for name in dict.fromkeys([*old.outputs, *new.outputs]):
        one, other = old.outputs.get(name), new.outputs.get(name)
        if one is None or other is None:
            shown = one or other
            assert shown is not None
            text = _short(shown.digest or _json(shown.value))
            yield Row(label, name, text if one else "", text if other else "", "missing" if one else "new")
        elif one.valued and other.valued:
            yield _row(label, name, _json(one.value), _json(other.value))
        elif notebook and name == "notebook":
            # It says when each cell ran.
            yield Row(label, name, _short(one.digest or ""), _short(other.digest or ""), "not compared")
        else:
            yield _row(label, name, one.digest or "", other.digest or "")
    for name in dict.fromkeys([*old.values, *new.values]):
        if name not in old.outputs and name not in new.outputs:
            before, after = (_json(one.values[name]) if name in one.values else "" for one in (old, new))
            yield _row(label, name, before, after)


def _row(step: str, what: str, before: str, after: str) -> Row:
    return Row(step, what, _short(before), _short(after), "same" if before == after else "differs")


def _good(status: str) -> str:
    return "ok" if status == "cached" else status


def _is_notebook(workflow: Workflow, label: str) -> bool:
    step = workflow.steps.get(label.partition("[")[0])
    return step is not None and step.notebook is not None


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _short(text: str) -> str:
    text = re.sub(r"(sha256(?:-tree)?:[0-9a-f]{12})[0-9a-f]{52}", r"\1", text)
    return text if len(text) <= 80 else f"{text[:79]}…"
