"""Server-sent events (WHATWG HTML, section 9.2), read across broken connections.

A stream remembers the id of the last event and, when the connection breaks, the service restarts or
nothing is heard for a while, asks again from there (``Last-Event-ID``).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perijove.model.errors import UnavailableError

if TYPE_CHECKING:
    import httpx

    from perijove.client import AsyncClient

SILENCE = 60.0
"""Seconds without a byte after which the connection is taken for dead and made anew."""
PATIENCE = 300.0
"""Seconds without a successful connection after which reading gives up."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event; ``name`` is ``open`` for the reader's own mark that a connection was made."""

    name: str
    data: str = ""
    id: str = ""

    def json(self) -> Any:
        """The data as JSON."""
        return json.loads(self.data) if self.data else None


class EventParser:
    """Turns the lines of one response into events."""

    def __init__(self) -> None:
        self._name, self._data, self._id = "", [], ""  # type: str, list[str], str

    def feed(self, line: str) -> Iterator[Event]:
        """The event that `line` completes, if it does."""
        if not line:
            if self._data or self._name:
                yield Event(self._name or "message", "\n".join(self._data), self._id)
            self._name, self._data = "", []
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value


async def read_events(
    client: AsyncClient,
    path: str,
    params: Mapping[str, Any],
    *,
    last_id: str = "",
    patience: float = PATIENCE,
) -> AsyncGenerator[Event, None]:
    """Events of `path` for as long as they are read, across broken connections.

    Each connection begins with an event ``open``: what happened while there was none may be asked for then.
    Raises :class:`UnavailableError` after `patience` seconds without one, and what the service refuses.
    """
    import httpx

    reached, pause = time.monotonic(), 0.2
    while True:
        try:
            async with client.stream(
                "GET", path, params, _headers(last_id), read_timeout=SILENCE
            ) as response:
                reached, pause = time.monotonic(), 0.2
                yield Event("open")
                async for event in _events(response):
                    last_id = event.id or last_id
                    reached = time.monotonic()
                    yield event
        except (httpx.TransportError, UnavailableError) as error:
            if time.monotonic() - reached > patience:
                raise UnavailableError(f"lost the connection to {client.url}: {error}") from error
        await asyncio.sleep(pause)
        pause = min(pause * 2, 5.0)


def _headers(last_id: str) -> dict[str, str]:
    headers = {"Accept": "text/event-stream"}
    if last_id:
        headers["Last-Event-ID"] = last_id
    return headers


async def _events(response: httpx.Response) -> AsyncIterator[Event]:
    parser = EventParser()
    async for line in _lines(response):
        for event in parser.feed(line):
            yield event


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """Lines ended by LF or CRLF only: `aiter_lines` also splits at characters that JSON may hold raw."""
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")
