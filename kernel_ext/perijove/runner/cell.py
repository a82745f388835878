"""Runs a notebook cell in this very process: an IPython shell without a kernel around it."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

from perijove.runner.directory import JobDirectory, RunnerError
from perijove.runner.display import DisplayLog, captured


class Publisher(DisplayPublisher):
    """Sends ``display(...)`` and ``clear_output()`` to the log."""

    def publish(
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        source: Any = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **_: Any,
    ) -> None:
        kind = "update_display_data" if update else "display_data"
        output = {"output_type": kind, "data": data, "metadata": metadata or {}}
        if transient:
            output["transient"] = transient
        _log_of(self.shell).output(output)

    def clear_output(self, wait: bool = False) -> None:
        _log_of(self.shell).output({"output_type": "clear_output", "wait": bool(wait)})


class ResultHook(DisplayHook):
    """Sends the value of the last expression to the log."""

    def write_output_prompt(self) -> None:
        pass

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        output = {"output_type": "execute_result", "execution_count": self.prompt_count}
        _log_of(self.shell).output({**output, "data": format_dict, "metadata": md_dict or {}})

    def finish_displayhook(self) -> None:
        _log_of(self.shell).flush()


class CellShell(InteractiveShell):
    """An IPython shell whose output goes to a display log."""

    display_pub_class = Type(Publisher)
    displayhook_class = Type(ResultHook)

    # "!command" shows its output where the cell's is, not only in the job's log.
    system = InteractiveShell.system_piped

    def __init__(self, *, log: DisplayLog, **more: Any) -> None:
        self.display_log = log
        super().__init__(**more)  # type: ignore[no-untyped-call]

    def enable_gui(self, gui: str | None = None) -> None:
        """There is no window system in a job."""

    def showtraceback(self, *args: Any, **more: Any) -> None:
        if not isinstance(sys.exc_info()[1], SystemExit):
            super().showtraceback(*args, **more)

    def _showtraceback(self, etype: type[BaseException], evalue: BaseException, stb: Sequence[str]) -> None:
        self.display_log.failure(etype.__name__, str(evalue), stb)


def run_cell(directory: JobDirectory, log: DisplayLog, outputs: Sequence[str]) -> int:
    """Run ``input/cell.py`` with the other inputs as variables; the exit code.

    The names in `outputs` are pickled into ``output`` when the cell succeeded.
    """
    code = directory.input("cell.py").read_text(encoding="utf-8")
    os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    with tempfile.TemporaryDirectory(prefix="ipython-") as profile, captured(log):
        shell = _shell(log, profile)
        # From here on sys.modules["__main__"] is the cell's module, which is what pickles refer to.
        shell.push({path.stem: directory.load(path) for path in directory.inputs(".pkl")})  # type: ignore[no-untyped-call]
        warnings.filterwarnings("ignore", message="To exit: use")
        outcome = shell.run_cell(code, store_history=True)  # type: ignore[no-untyped-call]
        error = outcome.error_before_exec or outcome.error_in_exec
        if error is not None:
            return _exit_code(error)
        for name in outputs:
            if name not in shell.user_ns:
                raise RunnerError(f"--out {name}: the cell ran, and defined no such name")
            directory.dump(name, shell.user_ns[name])
    return 0


def _log_of(shell: Any) -> DisplayLog:
    log: DisplayLog = shell.display_log
    return log


def _shell(log: DisplayLog, profile: str) -> CellShell:
    config = Config()
    config.HistoryManager.enabled = False
    config.InteractiveShell.colors = "Neutral"
    config.InteractiveShell.autoindent = False
    config.PlainTextFormatter.pprint = True
    sys.path.insert(0, "")
    return CellShell.instance(log=log, config=config, ipython_dir=profile)


def _exit_code(error: BaseException) -> int:
    if not isinstance(error, SystemExit):
        return 1
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    print(error.code, file=sys.stderr)
    return 1
