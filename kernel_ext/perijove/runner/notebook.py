"""Runs a notebook by papermill, with progress by cell and each output as it comes.

The module is imported inside jobs only: papermill takes more than a second.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from nbclient.exceptions import CellExecutionError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError
from papermill.execute import execute_notebook

from perijove.runner.directory import JobDirectory, RunnerError
from perijove.runner.display import DisplayLog

INPUT = "notebook.ipynb"
PARAMETERS = "parameters.json"


class ReportingClient(PapermillNotebookClient):  # type: ignore[misc]
    """Executes cells and tells of each, and of each output, in the display log."""

    def __init__(self, nb_man: Any, display_log: DisplayLog, **more: Any) -> None:
        super().__init__(nb_man, **more)
        self.display_log = display_log

    def papermill_execute_cells(self) -> None:
        total = len(self.nb.cells)
        for index, cell in enumerate(self.nb.cells):
            text = f"cell {index + 1} of {total}"
            self.display_log.progress(index / total, text, cell=index, cells=total)
            _say(text)
            self.nb_man.cell_start(cell, index)
            try:
                self.execute_cell(cell, index)
            except CellExecutionError as error:
                self.nb_man.cell_exception(self.nb.cells[index], cell_index=index, exception=error)
                break
            finally:
                self.nb_man.cell_complete(self.nb.cells[index], cell_index=index)
        else:
            self.display_log.progress(1.0, f"{total} of {total} cells done", cell=total, cells=total)

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        output = super().process_message(msg, cell, cell_index)
        content = msg["content"]
        if msg["msg_type"] == "update_display_data":
            line = {key: content[key] for key in ("data", "metadata", "transient") if key in content}
            self._tell({"output_type": "update_display_data", **line}, cell_index)
        elif msg["msg_type"] == "clear_output":
            self._tell({"output_type": "clear_output", "wait": bool(content.get("wait"))}, cell_index)
        elif output is not None:
            line = dict(output)
            if content.get("transient"):
                line["transient"] = content["transient"]
            self._tell(line, cell_index)
        return output

    def _tell(self, line: dict[str, Any], cell_index: int) -> None:
        self.display_log.output({**line, "cell": cell_index})
        if line["output_type"] == "stream":
            stream = sys.stdout if line["name"] == "stdout" else sys.stderr
            stream.write(line["text"])
            stream.flush()


class ReportingEngine(NBClientEngine):  # type: ignore[misc]
    """papermill's own engine, with :class:`ReportingClient` in it."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        display_log: DisplayLog,
        start_timeout: int = 60,
        execution_timeout: int | None = None,
        **_: Any,
    ) -> Any:
        return ReportingClient(
            nb_man,
            display_log,
            kernel_name=kernel_name,
            startup_timeout=start_timeout,
            timeout=execution_timeout,
            # The graceful way leaves a kernel behind for 4 s about once in 15 runs.
            shutdown_kernel="immediate",
        ).execute()


def run_notebook(
    directory: JobDirectory,
    log: DisplayLog,
    *,
    notebook: str | None = None,
    output: str | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> int:
    """Run `notebook` (by default ``input/notebook.ipynb``); the exit code.

    The executed notebook is written to `output` (by default ``output/notebook.ipynb``), after each cell and
    also when one fails.
    """
    source = Path(notebook) if notebook else directory.input(INPUT)
    if not source.is_file():
        raise RunnerError(f"there is no notebook {str(source)!r} (working directory: {Path.cwd()})")
    target = Path(output) if output else directory.output(INPUT)
    kernel, language = _kernel(source)
    papermill_engines.register("perijove-runner", ReportingEngine)
    try:
        execute_notebook(
            source,
            target,
            parameters={**_sent_parameters(directory), **(parameters or {})},
            engine_name="perijove-runner",
            kernel_name=kernel,
            language=language,
            progress_bar=False,
            display_log=log,
        )
    except PapermillExecutionError as error:
        # Watchers have the traceback from the cell itself; the log shall tell it as well.
        sys.stderr.write(str(error).rstrip() + "\n")
        return 1
    return 0


def _sent_parameters(directory: JobDirectory) -> dict[str, Any]:
    path = directory.path / "input" / PARAMETERS
    text = path.read_text() if path.is_file() else os.environ.get("PERIJOVE_PARAMETERS", "{}")
    try:
        parameters: Any = json.loads(text)
    except ValueError as error:
        raise RunnerError(f"the notebook's parameters are not JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise RunnerError("the notebook's parameters are not a JSON object")
    return parameters


def _kernel(source: Path) -> tuple[str | None, str | None]:
    """Kernel and language to use instead of what the notebook names; None where that will do."""
    try:
        metadata = json.loads(source.read_text(encoding="utf-8")).get("metadata", {})
    except (ValueError, AttributeError) as error:
        raise RunnerError(f"{source.name} is not a notebook: {error}") from error
    spec, info = metadata.get("kernelspec", {}), metadata.get("language_info", {})
    named, language = spec.get("name"), spec.get("language") or info.get("name")
    guessed = None if language else "python"
    known = KernelSpecManager().find_kernel_specs()
    if named in known or "python3" not in known:
        return None, guessed
    if named and language not in {None, "python"}:
        there = ", ".join(sorted(known))
        raise RunnerError(f"no kernel {named!r} is installed in this job; there are: {there}")
    if named:
        _say(f"no kernel {named!r} is installed here; python3 is used")
    return "python3", guessed


def _say(text: str) -> None:
    sys.stderr.write(f"[{text}]\n")
    sys.stderr.flush()
