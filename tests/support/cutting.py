"""A wire to a PostgreSQL server that is cut at a chosen moment of the conversation."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

ASKED = b"COMMIT\0"
"""In what the client sends: the server has not heard it yet."""
ANSWERED = b"C\0\0\0\x0bCOMMIT\0"
"""CommandComplete (PostgreSQL's protocol, 55.7) in what the server sends: it is done, and nobody knows."""


class Wire:
    """Listens on `port`, a free one, and passes all on to the server's; `cut_at` cuts once."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._mark: bytes | None = None
        self.cuts = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.close()

    def cut_at(self, mark: bytes) -> None:
        """Cut instead of passing on what holds `mark`."""
        self._mark = mark

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, sink), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                if self._mark is not None and self._mark in data:
                    self._mark = None
                    self.cuts += 1
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
