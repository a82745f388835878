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
from nbclient.exceptions import DeadKernelError
from papermill.engines import papermill_engines
from papermill.exceptions import PapermillException, PapermillExecutionError
from papermill.execute import execute_notebook
from papermill.iorw import LocalHandler, papermill_io

from perijove.reporting import fail
from perijove.runner.cells import ReportingEngine, say
from perijove.runner.directory import JobDirectory, RunnerError
from perijove.runner.display import DisplayLog
from perijove.sweeping import Grid

INPUT = "notebook.ipynb"
PARAMETERS = "parameters.json"
START_SECONDS = 300
"""For the kernel to answer: nodes are busy."""


class WholeFiles(LocalHandler):  # type: ignore[misc]
    """papermill's local files, replaced at once: a job that is killed leaves what was written last, whole."""

    def write(self, buf: str, path: str) -> None:
        partial = f"{path}.partial"
        super().write(buf, partial)
        Path(partial).replace(path)


def run_notebook(
    directory: JobDirectory,
    log: DisplayLog,
    *,
    notebook: str | None = None,
    output: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    sweep: Grid | None = None,
) -> int:
    """Run `notebook` (by default ``input/notebook.ipynb``); the exit code.

    The executed notebook is written to `output` (by default ``output/notebook.ipynb``), after each cell and
    also when one fails or the job is stopped. Both may be paths that papermill knows, such as ``s3://``.
    `sweep`: this job is a member of an array, and its number picks the parameters.
    """
    source = notebook or str(directory.input(INPUT))
    target = output or str(directory.output(INPUT))
    kernel, language = _kernel(source)
    given = {**_sent_parameters(directory), **(_point(sweep) if sweep else {}), **(parameters or {})}
    papermill_engines.register("perijove-runner", ReportingEngine)
    if "://" not in target:
        papermill_io.register(target, WholeFiles())
    try:
        execute_notebook(
            source,
            target,
            parameters=_with_paths(given, directory),
            engine_name="perijove-runner",
            kernel_name=kernel,
            language=language,
            progress_bar=False,
            start_timeout=START_SECONDS,
            display_log=log,
            directory=directory,
            given=given,
        )
    except PapermillExecutionError as error:
        # Watchers have the traceback from the cell itself; the log shall tell it as well.
        sys.stderr.write(str(error).rstrip() + "\n")
        fail(f"cell {error.cell_index + 1}: {error.ename}: {error.evalue}")
        return 1
    except DeadKernelError as error:
        sys.stderr.write(f"{error}\n")
        fail(str(error))
        return 1
    except PapermillException as error:
        raise RunnerError(str(error)) from error
    return 0


def _point(sweep: Grid) -> dict[str, Any]:
    number = os.environ.get("PERIJOVE_TASK_ID", "")
    if not number.isdecimal() or not 1 <= int(number) <= len(sweep):
        raise RunnerError(f"PERIJOVE_TASK_ID is {number!r}; the sweep has points 1 to {len(sweep)}")
    point: dict[str, Any] = sweep[int(number) - 1]
    return point


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


def _with_paths(value: Any, directory: JobDirectory) -> Any:
    """`value` with each ``{"path": NAME}`` of a staged input replaced by its absolute path."""
    if isinstance(value, dict):
        name = value.get("path")
        if len(value) == 1 and isinstance(name, str) and (staged := directory.staged(name)):
            return str(staged)
        return {key: _with_paths(each, directory) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_paths(each, directory) for each in value]
    return value


def _kernel(source: str) -> tuple[str | None, str | None]:
    """Kernel and language to use instead of what the notebook names; None where that will do."""
    metadata = _metadata(source)
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
        say(f"no kernel {named!r} is installed here; python3 is used")
    return "python3", guessed


def _metadata(source: str) -> Any:
    if "://" not in source and not Path(source).is_file():
        raise RunnerError(f"there is no notebook {source!r} (working directory: {Path.cwd()})")
    try:
        text = papermill_io.read(source)
    except Exception as error:  # papermill reads from many places by many libraries
        raise RunnerError(f"the notebook {source} cannot be read: {error}") from error
    try:
        return json.loads(text).get("metadata", {})
    except (ValueError, AttributeError) as error:
        raise RunnerError(f"{Path(source).name} is not a notebook: {error}") from error
