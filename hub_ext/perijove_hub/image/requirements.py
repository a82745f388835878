"""What goes into the notebook image: the releases this environment runs, so that pickles fit both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

EXTRAS = frozenset({"kernel", "tour"})


def notebook_requirements(lock: Path | None = None) -> str:
    """A complete requirements file for ``perijove[kernel,tour]`` without perijove itself.

    Releases are those installed here. With a lock file that has them all (as ``uv pip compile
    --generate-hashes`` writes it), its pins and hashes are taken over instead.
    """
    names = closure("perijove", EXTRAS) - {"perijove"}
    locked = locked_requirements(lock.read_text()) if lock is not None and lock.is_file() else {}
    if locked and names <= locked.keys():
        return "".join(locked[name] for name in sorted(names))
    return "".join(f"{name}=={distribution(name).version}\n" for name in sorted(names))


def closure(root: str, extras: Iterable[str]) -> set[str]:
    """Names of all installed distributions that `root` with `extras` needs, directly or not."""
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root), extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        try:
            required = distribution(name).requires or []
        except PackageNotFoundError:
            # Asked for on another platform or Python only; the image has the same ones as this host.
            continue
        seen.add((name, extra))
        for requirement in map(Requirement, required):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                wanted = canonicalize_name(requirement.name)
                waiting += [(wanted, more) for more in ("", *requirement.extras)]
    return {name for name, _ in seen}


def locked_requirements(text: str) -> Mapping[str, str]:
    """Each pinned requirement of a lock file with its hashes, by canonical name.

    A name can be pinned more than once, for one version of Python each.
    """
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        if match := re.match(r"([A-Za-z0-9][\w.-]*)(?:\[[\w,.-]*\])?==", block):
            lines = [line for line in block.splitlines() if not line.lstrip().startswith("#")]
            name = canonicalize_name(match[1])
            found[name] = found.get(name, "") + "\n".join(lines).rstrip() + "\n"
    return found
