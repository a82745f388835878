"""Where a job leaves its outputs, taken apart: what :data:`perijove.model.places.OutputPlace` says."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Place:
    """One output's place, for example ``glob:/data/plots/*.png``."""

    kind: str
    rest: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """From its text, which the model has checked."""
        kind, _, rest = text.partition(":")
        return cls(kind, rest)

    @property
    def descriptor(self) -> int | None:
        """Of ``fd:``, its number."""
        return int(self.rest) if self.kind == "fd" else None

    @property
    def absolute(self) -> bool:
        """It names a place outside the job's directory."""
        return self.kind in {"file", "dir", "glob"} and self.rest.startswith("/")

    @property
    def parts(self) -> tuple[str, ...]:
        """The steps of its path or pattern; those of an absolute one begin below ``/``."""
        return tuple(part for part in self.rest.split("/") if part not in {"", "."})

    @property
    def fixed(self) -> tuple[str, ...]:
        """The first of its parts that hold no wildcard; a glob's last one always counts as one."""
        if self.kind != "glob":
            return self.parts
        return tuple(takewhile(lambda part: not _WILD.search(part), self.parts[:-1]))

    @property
    def folder(self) -> str:
        """Of an absolute one: the folder that is made writable for the job.

        That is the folder in which it makes its file or folder, or a glob's last folder without wildcards;
        of a folder that lies directly in ``/`` it is the folder itself.
        """
        if self.kind == "glob":
            steps = self.fixed
        else:
            alone = self.kind == "dir" and len(self.parts) == 1
            steps = self.parts if alone else self.parts[:-1]
        return "/" + "/".join(steps)


def folders(places: Iterable[str]) -> tuple[str, ...]:
    """The folders that are made writable for these places; none lies in another."""
    found = sorted({place.folder for text in places if (place := Place.parse(text)).absolute})
    return tuple(one for one in found if not any(lies_in(one, other) for other in found if other != one))


def lies_in(path: str, folder: str) -> bool:
    """Whether `path` is `folder`, or below it; both absolute."""
    path, folder = posixpath.normpath(path), posixpath.normpath(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")
