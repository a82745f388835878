"""A notebook in execution and its checkpoints: saved below cells tagged ``checkpoint``, used at the start."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from perijove.reporting import RECORDED
from perijove.runner import checkpoint as kept
from perijove.runner.directory import JobDirectory
from perijove.runner.names import needed

if TYPE_CHECKING:
    from perijove.runner.cells import ReportingClient

TAG = "checkpoint"
ALWAYS = "always"
"""Cells of this tag run in each attempt, also above a checkpoint."""
SETTING = "PERIJOVE_CHECKPOINTS"
MODES = ("use", "refresh", "off")
_SAVE = re.compile(r"^#\s*save:(.*)$", re.MULTILINE)
NOT_INPUTS = ("notebook.ipynb", "parameters.json")
NOT_OUTPUTS = ("notebook.ipynb", RECORDED)


class Resuming:
    """The checkpoints of one notebook with these `parameters`, in one attempt of a job.

    `say` takes remarks for the log: a checkpoint that cannot be written or used costs time, and no run.
    """

    def __init__(
        self,
        nb: Any,
        directory: JobDirectory,
        parameters: Mapping[str, Any],
        kernel: str,
        say: Callable[[str], None],
    ) -> None:
        self.nb, self.directory, self.say = nb, directory, say
        self._parameters, self._kernel = parameters, kernel
        self._store: kept.Checkpoints | None = None
        self._keys: dict[int, str] = {}
        self._mode = os.environ.get(SETTING) or "use"

    def begin(self, client: ReportingClient) -> int:
        """Make ready, and bring back the last checkpoint that holds; the index of the first cell to run."""
        if not self._open(client):
            return 0
        if self._mode == "use":
            for index in sorted(self._tagged(), reverse=True):
                if (found := self._found(index)) and self._restored(client, found):
                    return index + 1
        return 0

    def is_always(self, index: int) -> bool:
        """Whether this cell runs though a checkpoint below it is used."""
        return ALWAYS in _tags(self.nb.cells[index])

    def save(self, client: ReportingClient, index: int) -> None:
        """Keep a checkpoint behind this cell, if it is tagged so."""
        if self._store is None or index not in self._keys or TAG not in _tags(self.nb.cells[index]):
            return
        try:
            self._save(client, self._store, index)
        except OSError as error:
            self.say(f"no checkpoint behind cell {index + 1}: {error.strerror or error}")

    # before the first cell

    def _tagged(self) -> list[int]:
        return [
            index
            for index, cell in enumerate(self.nb.cells)
            if cell.cell_type == "code" and TAG in _tags(cell)
        ]

    def _open(self, client: ReportingClient) -> bool:
        """Whether there is anything to do, and it can be done."""
        if not self._tagged() or self._mode == "off":
            return False
        if self._mode not in MODES:
            self.say(f"{SETTING} must be one of {', '.join(MODES)}, not {self._mode!r}: no checkpoints")
            return False
        if not client.in_kernel("__import__('perijove.runner.session').runner.surroundings.START.note()"):
            self.say("no checkpoints: the kernel is no Python with perijove in it")
            return False
        try:
            self._store = kept.Checkpoints(kept.default_folder())
            self._store.prune(time.time())
        except (kept.UnsafeError, OSError) as error:
            self.say(f"no checkpoints: {error}")
            return False
        self._make_keys()
        return True

    def _make_keys(self) -> None:
        # The injected cell holds paths of this very attempt; the parameters are in the key by themselves.
        code = [
            index
            for index, cell in enumerate(self.nb.cells)
            if cell.cell_type == "code" and "injected-parameters" not in _tags(cell)
        ]
        inputs = kept.digest_of_inputs(self.directory.path / "input", NOT_INPUTS)
        made = kept.ingredients(self._parameters, inputs, self._kernel)
        found = kept.keys([self.nb.cells[index].source for index in code], made)
        self._keys = dict(zip(code, found, strict=True))

    def _found(self, index: int) -> kept.Checkpoint | None:
        assert self._store is not None
        try:
            found = self._store.find(self._keys[index])
            # Cells below may be others than when it was made.
            if found and (lost := sorted(needed(self._later(index)) & set(found.left_out))):
                raise ValueError(f"it left out {', '.join(lost)}, which cells below use")
            return found
        except (ValueError, TypeError, KeyError, OSError) as error:
            self.say(f"the checkpoint behind cell {index + 1} is not used: {error}")
            return None

    def _restored(self, client: ReportingClient, found: kept.Checkpoint) -> bool:
        assert self._store is not None
        blob = str(self._store.blobs / found.session)
        try:
            kept.bring_back(found, self.directory.path / "output", self._store.blobs, RECORDED)
        except (OSError, ValueError) as error:
            self.say(f"the checkpoint behind cell {found.cell + 1} is not used: {error}")
            return False
        reply = self._ask(client, "load", blob, found.session, found.job)
        if "refused" in reply:
            self.say(f"the checkpoint behind cell {found.cell + 1} is not used: {reply['refused']}")
            return False
        for index, earlier in enumerate(found.cells):
            cell = self.nb.cells[index]
            cell.metadata.papermill = nbformat.from_dict(earlier["papermill"])
            cell.metadata.setdefault("perijove", nbformat.NotebookNode())["restored"] = kept.age(found)
            if cell.cell_type == "code":
                cell.outputs = [nbformat.from_dict(each) for each in earlier["outputs"]]
                cell.execution_count = earlier["execution_count"]
        self.say(f"cells 1 to {found.cell + 1} are from the checkpoint of {kept.age(found)}")
        return True

    def _later(self, index: int) -> list[str]:
        """The code that runs once the checkpoint behind this cell is back."""
        cells = self.nb.cells
        again = [cell for number, cell in enumerate(cells[: index + 1]) if self.is_always(number)]
        return [cell.source for cell in (*again, *cells[index + 1 :]) if cell.cell_type == "code"]

    # behind a cell

    def _save(self, client: ReportingClient, store: kept.Checkpoints, index: int) -> None:
        cells = self.nb.cells
        names = [
            name for line in _SAVE.findall(cells[index].source) for name in re.split(r"[\s,]+", line) if name
        ]
        blob = store.partial()
        reply = self._ask(client, "save", str(blob), names, self._later(index))
        if "refused" in reply:
            self.say(f"no checkpoint behind cell {index + 1}: {reply['refused']}")
            return
        store.keep_blob(blob, reply["digest"])
        recorded = self.directory.output(RECORDED)
        store.keep(
            self._keys[index],
            kept.Checkpoint(
                cell=index,
                at=time.time(),
                session=reply["digest"],
                job=str(self.directory.path),
                cells=[_as_it_is(cell) for cell in cells[: index + 1]],
                left_out=reply["left_out"],
                reads=reply["reads"],
                recorded=recorded.read_text() if recorded.exists() else "",
                files=kept.outputs_of(recorded.parent, NOT_OUTPUTS, store),
            ),
        )

    def _ask(self, client: ReportingClient, what: str, *arguments: Any) -> dict[str, Any]:
        """Have the kernel do `what` (:mod:`perijove.runner.session`), and read its reply."""
        replies = self.directory.path / ".checkpoint-reply"
        replies.unlink(missing_ok=True)
        given = ", ".join(repr(each) for each in (*arguments, str(replies)))
        ran = client.in_kernel(f"__import__('perijove.runner.session').runner.session.{what}({given})")
        try:
            reply: dict[str, Any] = json.loads(Path(replies).read_text())
        except (OSError, ValueError):
            return {"refused": "the kernel did not answer" if ran else "the kernel failed at it"}
        return reply


def _tags(cell: Any) -> list[str]:
    return list(cell.metadata.get("tags") or ())


def _as_it_is(cell: Any) -> dict[str, Any]:
    return {
        "papermill": cell.metadata.get("papermill"),
        "outputs": cell.get("outputs", []),
        "execution_count": cell.get("execution_count"),
    }
