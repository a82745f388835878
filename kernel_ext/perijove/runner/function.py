"""Runs a pickled ``(function, args, kwargs)``."""

from __future__ import annotations

import sys
import traceback

from perijove.runner.directory import JobDirectory
from perijove.runner.display import DisplayLog, captured

INPUT = "function.pkl"


def run_function(directory: JobDirectory, log: DisplayLog) -> int:
    """Call the function of ``input/function.pkl``; what it returns is ``output/result.pkl``. The code."""
    function, args, kwargs = directory.load(directory.input(INPUT))
    with captured(log):
        try:
            value = function(*args, **kwargs)
        except Exception as error:
            # The first frame is this one and tells nothing.
            first = error.__traceback__.tb_next if error.__traceback__ else None
            lines = traceback.format_exception(type(error), error, first)
            log.failure(type(error).__name__, str(error), "".join(lines).splitlines())
            return 1
        except SystemExit as leaving:
            code = leaving.code
            if code is not None and not isinstance(code, int):
                print(code, file=sys.stderr)
                return 1
            if code:
                return code & 0xFF
            value = None
        directory.dump("result", value)
    return 0
