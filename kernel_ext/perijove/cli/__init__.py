"""The command line: ``perijove submit``, ``ls``, ``show``, ``logs`` and the others."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The console script ``perijove``."""
    from perijove.cli.app import app

    try:
        app(prog_name="perijove")
    except BrokenPipeError:
        # Whoever read our output has gone (`perijove ls | head`); nothing may be written to it any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


__all__ = ["main"]
