"""Staying with a run of a workflow: its changes are read on the client's background loop and shown here."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING

from perijove.model.states import State
from perijove.run_view import RunView, run_view_of
from perijove.submission import Detached
from perijove.sync import LOOP

if TYPE_CHECKING:
    from perijove.sync_runs import Run

INTERVAL = 0.5
"""Seconds between two updates of what is shown at least, however much happens."""


def attend(run: Run) -> None:
    """Show `run` in this cell until it has ended.

    Raises :class:`~perijove.JobFailedError` when it does not succeed, and
    :class:`~perijove.submission.Detached` on an interrupt, after which it runs on.
    """
    view = run_view_of(run)
    view.open()
    try:
        error = _follow(run, view)
    except KeyboardInterrupt:
        view.close()
        ways = f"%workflow {run.id} -w returns to it, %workflow {run.id} --kill stops it"
        raise Detached(f"left run {run.id}, which goes on: {ways}") from None
    view.close()
    if error is not None:
        raise error
    if run.state is not State.SUCCEEDED:
        raise LOOP.run(run.async_run.failure())


def attend_in_background(run: Run) -> None:
    """The same without staying: a thread keeps this cell's display up to date while others run."""
    view = run_view_of(run)
    view.open()
    context = contextvars.copy_context()
    # The context carries which cell is running, so that what the thread shows lands here.
    thread = threading.Thread(target=context.run, args=(_background, run, view), daemon=True)
    thread.name = f"perijove-run-{run.id}"
    thread.start()


def _background(run: Run, view: RunView) -> None:
    error = _follow(run, view)
    view.close()
    if error is not None:
        sys.stderr.write(f"watching run {run.id} ended: {error}\n")


def _follow(run: Run, view: RunView) -> BaseException | None:
    over = threading.Event()

    async def watch() -> None:
        try:
            async for _ in run.async_run.changes():
                pass
        finally:
            over.set()

    future: Future[None] = asyncio.run_coroutine_threadsafe(watch(), LOOP.loop())
    try:
        pause = INTERVAL
        while not over.wait(pause):
            begun = time.monotonic()
            view.changed()
            # The picture of a hundred thousand steps takes a while: most of the time is left to the kernel.
            pause = max(INTERVAL, 5 * (time.monotonic() - begun))
        return future.exception()
    finally:
        future.cancel()


__all__ = ["attend", "attend_in_background"]
