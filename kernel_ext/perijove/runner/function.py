"""Runs a pickled ``(function, args, kwargs)``."""

from __future__ import annotations

from perijove.runner.directory import JobDirectory
from perijove.runner.display import DisplayLog, captured
from perijove.runner.step import exit_code, traceback_of

INPUT = "function.pkl"


def run_function(directory: JobDirectory, log: DisplayLog) -> int:
    """Call the function of ``input/function.pkl``; what it returns is ``output/result.pkl``. The code."""
    function, args, kwargs = directory.load(directory.input(INPUT))
    with captured(log):
        try:
            value = function(*args, **kwargs)
        except Exception as error:
            log.failure(type(error).__name__, str(error), "".join(traceback_of(error)).splitlines())
            return 1
        except SystemExit as leaving:
            if code := exit_code(leaving):
                return code
            value = None
        directory.dump("result", value)
    return 0
