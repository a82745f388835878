"""Checkpoints of notebooks on disk: what is kept below a cell, and when it may be used again.

They lie in the owner's home, ``~/.cache/perijove/checkpoints``, so that they outlive the attempt::

    KEY.json        the SHA-256 of what follows in it, then a checkpoint as JSON
    blobs/SHA256    variables of the session (:mod:`perijove.runner.session`), files of ``output``

Each is written under another name first, so that what is there is whole; it is verified all the same
before it is used. KEY is the digest of all that determines the state behind a cell: its code and that of all
code cells above, parameters, inputs, image, kernel.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from perijove.runner.surroundings import stamp_of

FORMAT = 1
DAYS = 7.0
"""After this long without use a checkpoint is removed."""
LARGEST = 20 << 30
"""Bytes that all checkpoints of an owner may have; the oldest go first."""


class UnsafeError(Exception):
    """The place of checkpoints is not the owner's alone, or cannot be written."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """All that was there when a cell had ended."""

    cell: int
    """Its index."""
    at: float
    session: str
    """SHA-256 of the session's blob."""
    job: str
    """The job's directory, as it was in that attempt."""
    cells: list[dict[str, Any]]
    """Outputs, execution count and times of the cells up to it."""
    left_out: list[str] = field(default_factory=list)
    """Variables that there were and that are not in it."""
    reads: dict[str, list[int]] = field(default_factory=dict)
    """Files that the cells had read, with size and time of change."""
    recorded: str = ""
    """What the job had recorded (``output/.recorded.jsonl``)."""
    files: list[dict[str, Any]] = field(default_factory=list)
    """Files of ``output``: ``path``, ``digest``, ``mode``."""

    def changed_read(self) -> str:
        """A file read above that is not as it was then; empty when all are."""
        return next((path for path, stamp in self.reads.items() if stamp_of(path) != stamp), "")


def keys(cells: Sequence[str], ingredients: Mapping[str, Any]) -> list[str]:
    """Of each code cell's source the key of a checkpoint behind it.

    `ingredients`: what else determines the state; JSON.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, ingredients], sort_keys=True).encode())
    found = []
    for source in cells:
        lines = "\n".join(line.rstrip() for line in source.strip().splitlines())
        digest.update(hashlib.sha256(lines.encode("utf-8", "surrogatepass")).digest())
        found.append(digest.hexdigest())
    return found


def digest_of_inputs(folder: Path, but: Iterable[str]) -> dict[str, str]:
    """Of each file below `folder` its SHA-256, without those named `but`."""
    found = {}
    for path in sorted(_files(folder)):
        name = str(path.relative_to(folder))
        if name not in but:
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def default_folder() -> Path:
    """Where this owner's checkpoints are."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "perijove" / "checkpoints"


class Checkpoints:
    """Those of one owner, in `folder`; :class:`UnsafeError` when it cannot be made or is not theirs alone."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.blobs = folder, folder / "blobs"
        for each in (folder, self.blobs):
            try:
                each.mkdir(parents=True, exist_ok=True, mode=0o700)
                status = each.lstat()
            except OSError as error:
                raise UnsafeError(f"{each} cannot be made: {error.strerror}") from error
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise UnsafeError(f"{each} can be written by others")

    def keep(self, key: str, checkpoint: Checkpoint) -> None:
        """Write `checkpoint`; its blobs are there."""
        content = json.dumps(asdict(checkpoint)).encode()
        partial = self.partial()
        with partial.open("xb") as file:
            file.write(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / f"{key}.json")

    def partial(self) -> Path:
        """A name for what is being written."""
        return self.folder / f".{secrets.token_hex(8)}.partial"

    def keep_blob(self, written: Path, digest: str) -> None:
        """Take the file `written`, of that SHA-256, in."""
        written.chmod(0o600)
        written.replace(self.blobs / digest)

    def keep_file(self, path: Path) -> str:
        """A copy of `path`; its SHA-256."""
        partial = self.partial()
        with path.open("rb") as source, partial.open("xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        with partial.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.keep_blob(partial, digest)
        return digest

    def find(self, key: str) -> Checkpoint | None:
        """The checkpoint of `key`; None when there is none. ``ValueError`` says why one may not be used."""
        path = self.folder / f"{key}.json"
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if os.fstat(file.fileno()).st_uid != os.geteuid():
                raise ValueError("it belongs to somebody else")
            head, _, content = file.read().partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != head:
            raise ValueError("it is damaged")
        found = Checkpoint(**json.loads(content))
        for digest in (found.session, *(each["digest"] for each in found.files)):
            self._verify(digest)
        if changed := found.changed_read():
            raise ValueError(f"{changed} was changed since")
        os.utime(path)
        return found

    def _verify(self, digest: str) -> None:
        path = self.blobs / digest
        try:
            with path.open("rb") as file:
                right = hashlib.file_digest(file, "sha256").hexdigest() == digest
        except OSError:
            right = False
        if not right:
            path.unlink(missing_ok=True)
            raise ValueError("it is damaged")
        os.utime(path)

    def prune(self, now: float) -> None:
        """Remove what was long not used, and the oldest when all together are too large."""
        there = []
        for path in (*self.folder.glob("*.json"), *self.folder.glob(".*.partial"), *self.blobs.iterdir()):
            try:
                status = path.stat()
            except OSError:
                continue
            there.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in there)
        for changed, size, path in sorted(there):
            if changed > now - DAYS * 86400 and total <= LARGEST:
                return
            path.unlink(missing_ok=True)
            total -= size


def ingredients(parameters: Mapping[str, Any], inputs: Mapping[str, str], kernel: str) -> dict[str, Any]:
    """What beside code determines the state behind a cell."""
    return {
        "parameters": dict(parameters),
        "inputs": dict(inputs),
        "image": os.environ.get("PERIJOVE_IMAGE", ""),
        "python": sys.version,
        "kernel": kernel,
    }


def outputs_of(folder: Path, but: Iterable[str], into: Checkpoints) -> list[dict[str, Any]]:
    """The files of ``output``, copied into `into`."""
    return [
        {
            "path": str(path.relative_to(folder)),
            "digest": into.keep_file(path),
            "mode": stat.S_IMODE(path.stat().st_mode),
        }
        for path in sorted(_files(folder))
        if str(path.relative_to(folder)) not in but and not path.name.endswith(".partial")
    ]


def bring_back(checkpoint: Checkpoint, folder: Path, blobs: Path, recorded: str) -> None:
    """Put the files of ``output`` and what was recorded back into `folder`."""
    folder.mkdir(exist_ok=True)
    for each in checkpoint.files:
        target = folder / each["path"]
        if not target.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{each['path']} lies outside")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(blobs / each["digest"], target)
        target.chmod(each["mode"])
    if checkpoint.recorded:
        (folder / recorded).write_text(checkpoint.recorded)


def age(checkpoint: Checkpoint) -> str:
    """When it was made, for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(checkpoint.at))
