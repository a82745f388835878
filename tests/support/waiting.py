"""Waiting for what others do, with a deadline and a name for what did not come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], what: str, seconds: float = 30) -> T:
    """The first true answer of `condition`; ``TimeoutError`` names `what`."""
    patience = _Patience(what, seconds)
    while not (found := condition()):
        time.sleep(patience.pause())
    return found


async def until(condition: Callable[[], T | None], what: str, seconds: float = 30) -> T:
    """The same, while other tasks go on."""
    patience = _Patience(what, seconds)
    while not (found := condition()):
        await asyncio.sleep(patience.pause())
    return found


async def becomes(condition: Callable[[], Awaitable[T | None]], what: str, seconds: float = 30) -> T:
    """The same, of a `condition` that has to be awaited."""
    patience = _Patience(what, seconds)
    while not (found := await condition()):
        await asyncio.sleep(patience.pause())
    return found


class _Patience:
    """Looks often at first."""

    def __init__(self, what: str, seconds: float) -> None:
        self._what, self._seconds = what, seconds
        self._deadline = time.monotonic() + seconds
        self._pause = 0.005

    def pause(self) -> float:
        if time.monotonic() > self._deadline:
            raise TimeoutError(f"{self._what} took longer than {self._seconds:g} s")
        self._pause = min(self._pause * 1.5, 0.2)
        return self._pause
