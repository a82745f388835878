"""What a job's own code may call to tell how far it is."""

from __future__ import annotations

import os
from pathlib import Path


def progress(fraction: float, text: str = "") -> None:
    """Tell how far this job is, from 0 to 1, with a few words: ``progress(0.25, "epoch 3 of 12")``.

    It shows where the job is watched, in the notebook and in ``perijove show``. Outside a job it does
    nothing, so that the same code runs anywhere.
    """
    directory = os.environ.get("PERIJOVE_JOB_DIR")
    if not directory:
        return
    from perijove.runner.display import DisplayLog

    DisplayLog(Path(directory)).progress(fraction, text)
