"""The service's own door: what a connection may cost before there is a request.

Uvicorn waits for ever for a request to be whole, and keeps whatever header is sent. Jobs reach this listener
without the hub's proxy between, so both have an end here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEADER_SECONDS = 20.0
"""Within which the header of a request must be whole, from its first byte on; of the first request from when
the connection was made. Apache's ``RequestReadTimeout`` begins with as much."""
HEADER_BYTES = 64 << 10
"""Of request line and header lines together; what the last read brought is not counted."""


class Door(HttpToolsProtocol):
    """HTTP/1.1 connections that neither wait nor grow without an end."""

    header_seconds = HEADER_SECONDS

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._late: asyncio.TimerHandle | None = None
        self._read = 0
        """Bytes of a header that is not whole yet."""
        self._piece = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See :class:`asyncio.Protocol`."""
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """See :class:`asyncio.Protocol`."""
        self._no_longer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See :class:`asyncio.Protocol`."""
        self._piece = len(data)
        super().data_received(data)
        if self._late is not None:
            self._read += len(data)
            if self._read > HEADER_BYTES and not self.transport.is_closing():
                self.send_400_response("The header of this request is too long.")

    def on_message_begin(self) -> None:
        """A request's first byte was read."""
        super().on_message_begin()
        # Of this piece a part belongs to the request before.
        self._read = -self._piece
        self._expect()

    def on_headers_complete(self) -> None:
        """The header is whole."""
        self._no_longer()
        super().on_headers_complete()

    def _expect(self) -> None:
        self._no_longer()
        self._late = self.loop.call_later(self.header_seconds, self._give_up)

    def _no_longer(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.transport.abort()
