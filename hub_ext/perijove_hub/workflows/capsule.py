"""Capsules: a run as one zip file, with its records, its code and, when asked for, the data it began with.

Equal runs make equal files: members are in order and bear no time. Values of variables that look secret are
left out.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

from perijove.model import ResultRecord, Run, TooLargeError, Workflow, format_size
from perijove.model.capsules import (
    DOCUMENT_BYTES,
    INDEX,
    README,
    RECORDS,
    WORKFLOW,
    CapsuleContent,
    CapsuleIndex,
)
from perijove.model.places import mark
from perijove_hub.workflows.record import shareable, without_secrets
from perijove_spawners.store import Manifest, is_tree

_DIGEST = re.compile(r"sha256(?:-tree)?:[0-9a-f]{64}")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can give
_PIECE = 1 << 20
_TEXT = """This is a run of a workflow, packed by Perijove.

{workflow}  the workflow; its files are named by their digests
{records}   for each step what went in and came out, on what machine it ran and what it used
{index}   the run, and which file here holds which digest
code/          notebooks and functions
contents/      further files, when they were packed too

To run it again and see whether the same comes out: perijove rerun FILE.zip
"""


@dataclass(frozen=True, slots=True)
class Source:
    """Where contents come from. `size` answers None for what is gone, or not the owner's to hand on."""

    size: Callable[[str], int | None]
    tree: Callable[[str], Manifest]
    open: Callable[[str], BinaryIO]


def documents(run: Run, workflow: Workflow, records: Iterable[ResultRecord]) -> dict[str, bytes]:
    """The JSON of a capsule by name, without its index. :class:`TooLargeError` for what nobody could read."""
    plain = workflow.model_dump(mode="json", exclude_unset=True)
    plain.pop("defaults", None)  # each step has them
    for name, step in workflow.steps.items():
        if step.env:
            plain["steps"][name]["env"] = without_secrets(step.env)
    listed = [shareable(one).model_dump(mode="json", exclude_defaults=True) for one in records]
    made = {WORKFLOW: _json(plain), RECORDS: _json(listed)}
    made[README] = _TEXT.format(workflow=WORKFLOW, records=RECORDS, index=INDEX).encode()
    for name, content in made.items():
        if len(content) > DOCUMENT_BYTES:
            raise TooLargeError(f"{name} would be larger than {format_size(DOCUMENT_BYTES)}")
    return made


def contents(
    workflow: Workflow, parameters: Mapping[str, Any], source: Source, *, data: bool, limit: int
) -> dict[str, CapsuleContent]:
    """All that the workflow names, by digest; what goes in has a place there.

    Code goes in always, other files with `data`. :class:`TooLargeError` when that is more than `limit` bytes.
    """
    code = code_files(workflow)
    named = {*_digests(workflow.model_dump(mode="json")), *_digests(dict(parameters)), *code}
    found: dict[str, CapsuleContent] = {}
    for digest in sorted(named):
        size = source.size(digest)
        within = size is not None and (data or digest in code)
        found[digest] = CapsuleContent(size=size, path=code.get(digest, _member(digest)) if within else None)
        if within and is_tree(digest):
            for entry in source.tree(digest).entries:
                path = code.get(entry.digest, _member(entry.digest))
                found[entry.digest] = CapsuleContent(size=entry.size, path=path)
    total = sum(one.size or 0 for one in found.values() if one.path is not None)
    if total > limit:
        advice = "; leave out the data" if data else ""
        raise TooLargeError(
            f"a capsule may hold {format_size(limit)} of files, and this run has {format_size(total)}{advice}"
        )
    return dict(sorted(found.items()))


def write(
    target: IO[bytes],
    run: Run,
    made: Mapping[str, bytes],
    found: Mapping[str, CapsuleContent],
    open_file: Callable[[str], BinaryIO],
) -> None:
    """Write the zip. `made` is from :func:`documents`, `found` from :func:`contents`."""
    index = CapsuleIndex(run=run.model_copy(update={"workflow": None}), contents=dict(found))
    listed = {INDEX: _json(index.model_dump(mode="json", exclude_defaults=True)), **made}
    members = {one.path: digest for digest, one in found.items() if one.path is not None}
    write_zip(target, listed, members, open_file)


def write_zip(
    target: IO[bytes],
    made: Mapping[str, bytes],
    members: Mapping[str, str],
    open_file: Callable[[str], BinaryIO],
) -> None:
    """Write a zip of `made` and of the files whose digests `members` says, the same each time."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in made.items():
            archive.writestr(_info(name), content)
        for path, digest in sorted(members.items()):
            with open_file(digest) as source, archive.open(_info(path), "w", force_zip64=True) as member:
                while piece := source.read(_PIECE):
                    member.write(piece)


def code_files(workflow: Workflow) -> dict[str, str]:
    """Digest -> file, of the notebooks, functions and pickled arguments of a workflow."""
    return dict(_code(workflow))


def _code(workflow: Workflow) -> Iterator[tuple[str, str]]:
    """Digests of notebooks, functions and pickled arguments, and what their files are called."""
    for name, step in workflow.steps.items():
        if step.notebook is not None and _DIGEST.fullmatch(step.notebook):
            yield step.notebook, f"code/{name}.ipynb"
        if step.function is not None:
            yield step.function, f"code/{name}.pkl"
        for pickle in _pickles([step.args, step.parameters]):
            yield pickle, _member(pickle)


def _pickles(value: Any) -> Iterator[str]:
    match mark(value):
        case "pickle":
            yield value["pickle"]
        case None:
            parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
            for part in parts:
                yield from _pickles(part)


def _digests(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield from _DIGEST.findall(value)
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _digests(part)
    elif isinstance(value, list):
        for part in value:
            yield from _digests(part)


def _member(digest: str) -> str:
    return "contents/" + digest.rpartition(":")[2]


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True).encode()


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.create_system = 3  # Unix, whatever this is
    info.external_attr = 0o100644 << 16
    return info
