"""The Docker SDK, which blocks, behind coroutines and behind errors of our own."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

import requests
import urllib3
from docker.errors import APIError, DockerException

from perijove_spawners.containers.noting import Note, NotingClient
from perijove_spawners.launcher import EngineError, LaunchError

T = TypeVar("T")

QUICK_THREADS = 16
"""Calls in flight that an engine answers at once; an engine starts fewer containers than that in parallel."""
SLOW_CALLS = 128
"""Calls in flight that last as long as a job takes to stop or an image to arrive, each in a thread."""
TIMEOUT = 120
"""Seconds a call may take. A busy engine needs several for a start; a broken one should not hold us."""

_WRAPPING = re.compile(r"^(?:failed to create (?:shim|task)[^:]*: |crun: |runc: )+|: unknown$")


class RefusedError(LaunchError):
    """The engine understood and said no, in its own words."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        """HTTP status: 404 no such thing, 409 not in this state or the name is taken."""


class FaultError(EngineError):
    """The engine failed at what it was asked (HTTP 5xx); some engines say so of bad requests, too."""


class UnansweredError(EngineError):
    """The engine was asked and went away before it answered: it may have done it or not."""


class Connection:
    """An engine by its URL.

    :meth:`quick` and :meth:`slow` run one SDK call each and raise :class:`RefusedError` for 4xx,
    :class:`FaultError` for 5xx, :class:`EngineError` when the engine does not answer.
    """

    def __init__(self, engine: str, url: str, note: Note) -> None:
        self.engine = engine
        self.url = url
        self._note = note
        # the SDK has types for its high-level half only
        self._api: Any = None
        self._pool: ThreadPoolExecutor | None = None
        self._slow = asyncio.Semaphore(SLOW_CALLS)

    @property
    def api(self) -> Any:
        """The SDK's client; only for the calls given to :meth:`quick` and :meth:`slow`."""
        if self._api is None:
            raise EngineError(f"{self.engine} at {self.url} is not connected")
        return self._api

    async def open(self) -> None:
        """Connect, and agree on a version of the API; again when connected before."""
        self.close()
        self._pool = ThreadPoolExecutor(QUICK_THREADS, self.engine)
        self._api = await self.quick(self._connect)

    def _connect(self) -> Any:
        pool = QUICK_THREADS + 16
        return NotingClient(
            self._note, base_url=self.url, version="auto", timeout=TIMEOUT, max_pool_size=pool
        )

    def close(self) -> None:
        """Let go; calls in flight end on their own."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        if self._api is not None:
            self._api.close()
            self._api = None

    async def quick(self, call: Callable[[], T]) -> T:
        """Run a call that the engine answers at once."""
        if self._pool is None:
            raise EngineError(f"{self.engine} at {self.url} is not connected")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, copy_context().run, call)
        except Exception as error:
            raise self.translate(error) from error

    async def slow(self, call: Callable[[], T]) -> T:
        """Run a call that may last minutes; it holds up no other and no exit of the process."""
        async with self._slow:
            try:
                return await in_thread(call, self.engine)
            except Exception as error:
                raise self.translate(error) from error

    async def answers(self) -> bool:
        """Whether the engine is there and well enough to say so."""
        try:
            return bool(await self.quick(lambda: self.api.ping()))
        except EngineError:
            return False

    def translate(self, error: Exception) -> Exception:
        """The error of the contract for one of the SDK's; programming errors pass unchanged."""
        if isinstance(error, APIError) and error.response is not None:
            sentence = plain(str(error.explanation or error))
            if error.response.status_code < 500:
                return RefusedError(error.response.status_code, sentence)
            return FaultError(sentence)
        if isinstance(
            error, (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError)
        ):
            said = f"{self.engine} at {self.url} does not answer: {error}"
            return EngineError(said) if _never_sent(error) else UnansweredError(said)
        return error


def _never_sent(error: BaseException) -> bool:
    """Whether the connection was refused: what was to be asked never reached the engine."""
    if isinstance(error, ConnectionRefusedError | FileNotFoundError | urllib3.exceptions.NewConnectionError):
        return True
    inside = [*error.args, error.__cause__, error.__context__]
    return any(isinstance(one, BaseException) and _never_sent(one) for one in inside)


async def in_thread(call: Callable[[], T], name: str) -> T:
    """The result of `call`, run in a thread of its own that does not keep the process from exiting."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()
    context = copy_context()

    def settle(value: T | None, error: Exception | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        try:
            outcome: tuple[T | None, Exception | None] = context.run(call), None
        except Exception as error:
            outcome = None, error
        tell(loop, settle, *outcome)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await result


def tell(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> bool:
    """Call back into `loop` from a thread; False when the loop has ended, and nobody waits any more."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        return False
    return True


def plain(sentence: str) -> str:
    """An engine's message without the layers it was passed through."""
    return _WRAPPING.sub("", sentence.strip()) or "no reason given"
