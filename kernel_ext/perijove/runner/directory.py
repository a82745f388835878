"""The job's directory as its own process sees it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle


class RunnerError(Exception):
    """The job cannot be run as it was sent, or its result not be kept; told without a traceback."""


@dataclass(frozen=True, slots=True)
class JobDirectory:
    """``$PERIJOVE_JOB_DIR``: ``input``, ``output`` and the display log."""

    path: Path

    @classmethod
    def find(cls) -> JobDirectory:
        """The directory of the job this process belongs to."""
        given = os.environ.get("PERIJOVE_JOB_DIR")
        if not given:
            raise RunnerError("PERIJOVE_JOB_DIR is not set: perijove.runner runs inside a job only")
        return cls(Path(given))

    def input(self, name: str) -> Path:
        """The staged file `name`."""
        path = self.path / "input" / name
        if not path.is_file():
            raise RunnerError(f"the job came without its input {name!r}")
        return path

    def staged(self, name: str) -> Path | None:
        """Where the input `name`, a file or a folder, lies; None when there is none of that name."""
        folder = self.path / "input"
        path = folder / name
        return path if name and path.parent == folder and path.exists() else None

    def inputs(self, suffix: str) -> list[Path]:
        """The staged files whose names end so."""
        return sorted((self.path / "input").glob(f"*{suffix}"))

    def output(self, name: str) -> Path:
        """Where the output `name` goes."""
        folder = self.path / "output"
        folder.mkdir(exist_ok=True)
        return folder / name

    def load(self, path: Path) -> Any:
        """A pickled input; :class:`RunnerError` that names it when it cannot be read here."""
        try:
            return cloudpickle.loads(path.read_bytes())
        except Exception as error:
            raise RunnerError(
                f"{path.stem} cannot be unpickled in this job ({type(error).__name__}: {error});"
                " are the same packages installed here as where it was sent from?"
            ) from error

    def dump(self, name: str, value: Any) -> None:
        """Pickle a result whole or not at all; :class:`RunnerError` that names it when it cannot be."""
        path = self.output(f"{name}.pkl")
        try:
            data = cloudpickle.dumps(value)
        except Exception as error:
            raise RunnerError(
                f"{name} ({type(value).__name__}) cannot be pickled and sent back: {error}"
            ) from error
        partial = path.with_suffix(".partial")
        try:
            partial.write_bytes(data)
            partial.replace(path)
        except OSError as error:
            raise RunnerError(f"{name} ({len(data)} bytes pickled) cannot be written: {error}") from error
