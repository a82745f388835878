"""What of a session lies outside its variables: directory, environment, random numbers, options of libraries.

Runs in the kernel. :data:`START` notes how the session began, so that only what cells changed is kept.
"""

from __future__ import annotations

import os
import random
import re
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_HISTORY = re.compile(r"_{1,3}|_i{1,3}|_i?\d+|_[iod]h|_exit_code|__\w+__|In|Out|exit|quit|get_ipython")
_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib", "/run/")
_MOST_READS = 10_000


@dataclass
class Start:
    """How the session stood before its first cell, and which files it has read since."""

    names: frozenset[str] = frozenset()
    env: dict[str, str] = field(default_factory=dict)
    extensions: frozenset[str] = frozenset()
    reads: set[str] = field(default_factory=set)

    def note(self) -> None:
        """Take the session as it is for its beginning."""
        self.names = frozenset(sys.modules["__main__"].__dict__)
        self.env = dict(os.environ)
        self.extensions = frozenset(_extensions())
        sys.addaudithook(self._audit)

    def is_foreign(self, name: str) -> bool:
        """Whether no cell made this variable."""
        return name in self.names or bool(_HISTORY.fullmatch(name))

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        # https://docs.python.org/3/library/audit_events.html: open(path, mode, flags)
        if event != "open" or len(self.reads) >= _MOST_READS:
            return
        path, _, flags = arguments
        if isinstance(path, str | bytes) and not (flags or 0) & (os.O_WRONLY | os.O_RDWR):
            self.reads.add(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - no file is to be looked at here

    def unchanged_reads(self) -> dict[str, list[int]]:
        """Files of the user that Python has read, modules among them -> their size and time of change."""
        modules = {str(getattr(module, "__file__", None) or "") for module in list(sys.modules.values())}
        found = {}
        for path in sorted(self.reads | modules):
            if path and _of_user(path) and (stamp := stamp_of(path)):
                found[path] = stamp
        return found


START = Start()


def stamp_of(path: str) -> list[int] | None:
    """Size and time of change (ns) of a file; None when there is none."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return [status.st_size, status.st_mtime_ns]


def _of_user(path: str) -> bool:
    job = os.environ.get("PERIJOVE_JOB_DIR") or "/run/perijove"
    inner = (sys.prefix, sys.base_prefix, job)
    if path.startswith(_SYSTEM) or any(path.startswith(f"{folder}/") for folder in inner):
        return False
    # Caches and settings (~/.cache, ~/.local, __pycache__) are not the notebook's.
    return not any(part.startswith((".", "__pycache__")) for part in Path(path).parts)


def surroundings() -> dict[str, Any]:
    """The session's, without its variables; to be pickled."""
    shell = _shell()
    return {
        "execution_count": shell.execution_count if shell else 0,
        "cwd": os.getcwd(),  # noqa: PTH109 - as a text
        "path": list(sys.path),
        "env": {key: value for key, value in os.environ.items() if START.env.get(key) != value},
        "unset": sorted(START.env.keys() - os.environ.keys()),
        "extensions": sorted(_extensions() - START.extensions),
        "filters": list(warnings.filters),
        "libraries": {
            name: get(sys.modules[name]) for name, (get, _) in _LIBRARIES.items() if name in sys.modules
        },
    }


def restore(state: dict[str, Any]) -> None:
    """Make the surroundings those of `state`; ``OSError`` when its directory is gone."""
    os.chdir(state["cwd"])
    sys.path[:] = state["path"]
    os.environ.update(state["env"])
    for key in state["unset"]:
        os.environ.pop(key, None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in state["libraries"].items():
            __import__(name)
            _LIBRARIES[name][1](sys.modules[name], value)
    if shell := _shell():
        for name in state["extensions"]:
            shell.extension_manager.load_extension(name)
        # The request that runs this is not counted itself.
        shell.execution_count = state["execution_count"]
    warnings.filters[:] = state["filters"]  # type: ignore[index]


def _rc_params(matplotlib: Any) -> dict[str, Any]:
    # The backend is the kernel's, and asking for it would load one.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}


def _pandas_options(pandas: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(options: Any, prefix: str) -> None:
        for name in dir(options):
            value = getattr(options, name)
            if type(value) is type(pandas.options):
                walk(value, f"{prefix}{name}.")
            elif value is None or isinstance(value, bool | int | float | str):
                found[prefix + name] = value

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        walk(pandas.options, "")
    return found


def _set_pandas_options(pandas: Any, wanted: dict[str, Any]) -> None:
    now = _pandas_options(pandas)
    for name, value in wanted.items():
        if now.get(name) != value:
            pandas.set_option(name, value)


_LIBRARIES: dict[str, tuple[Callable[[Any], Any], Callable[[Any, Any], None]]] = {
    "random": (lambda _: random.getstate(), lambda _, state: random.setstate(state)),
    "numpy": (lambda m: m.get_printoptions(), lambda m, options: m.set_printoptions(**options)),
    "numpy.random": (lambda m: m.get_state(), lambda m, state: m.set_state(state)),
    "matplotlib": (_rc_params, lambda m, values: m.rcParams.update(values)),
    "pandas": (_pandas_options, _set_pandas_options),
    "torch": (lambda m: m.get_rng_state(), lambda m, state: m.set_rng_state(state)),
}
"""Module -> how its state is read, and how it is set. Only those are asked that are loaded."""


def _extensions() -> set[str]:
    shell = _shell()
    return set(shell.extension_manager.loaded) if shell else set()


def _shell() -> Any:
    from IPython.core.getipython import get_ipython

    return get_ipython()
