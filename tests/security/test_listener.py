"""The service's own listener, by raw sockets: slow, endless, doubled and smuggled requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from perijove_hub.app import listen
from perijove_hub.listener import HEADER_BYTES, Door

pytestmark = pytest.mark.slow

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Hasty(Door):
    """A door for tests that do not wait twenty seconds."""

    header_seconds = 0.3


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what the application was given: method, path, and how long the body was."""
    if scope["type"] != "http":
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False) and message["type"] == "http.request"
    text = f"<{scope['method']} {scope['path']} {size}>".encode()
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


@contextlib.asynccontextmanager
async def serving(door: type[Door]) -> AsyncIterator[int]:
    [socket] = listen(["127.0.0.1:0"])
    config = uvicorn.Config(echo, log_config=None, lifespan="off", http=door, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[socket]))
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.01)
    try:
        yield socket.getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def said(connection: Connection) -> bytes:
    """Everything until the other side closes."""
    reader, writer = connection
    with contextlib.suppress(ConnectionError):
        return await asyncio.wait_for(reader.read(), 60)
    writer.close()
    return b""


@pytest.mark.parametrize("begun", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: 1", b"GET /" + b"x" * 100])
async def test_who_does_not_go_on_is_left(begun: bytes) -> None:
    """Slowloris: a request that never becomes whole."""
    async with serving(Hasty) as port:
        connection = await asyncio.open_connection("127.0.0.1", port)
        connection[1].write(begun)
        assert await said(connection) == b""


async def test_who_drips_is_left_too() -> None:
    """Each line is in time, the header is not."""
    async with serving(Hasty) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"X-Drip: 1\r\n")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.05)


@pytest.mark.parametrize("line", [b"X-Many: 1\r\n", b"x", b"Cookie: " + b"a" * 4000 + b"\r\n"])
async def test_a_header_without_an_end_is_refused(line: bytes) -> None:
    async with serving(Door) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nX-Long: ")
        sent = 0
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof() and sent < 64 << 20:
                writer.write(line * 1000)
                sent += len(line) * 1000
                await writer.drain()
        assert sent < 64 << 20, "nobody stopped it"
        answer = await said((reader, writer))
        assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


async def test_a_long_header_that_ends_in_time_is_taken() -> None:
    async with serving(Door) as port:
        connection = await asyncio.open_connection("127.0.0.1", port)
        lines = b"".join(b"X-%d: %s\r\n" % (i, b"v" * 1000) for i in range(HEADER_BYTES // 2 // 1010))
        connection[1].write(b"GET /a HTTP/1.1\r\n" + lines + b"Connection: close\r\n\r\n")
        assert (await said(connection)).endswith(b"<GET /a 0>")


async def test_requests_may_follow_each_other_on_a_connection() -> None:
    """The clock and the count begin anew with each, also behind a long body."""
    async with serving(Door) as port:
        connection = await asyncio.open_connection("127.0.0.1", port)
        body = b"x" * (HEADER_BYTES * 2)
        post = b"POST /%d HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
        connection[1].write(b"".join(post % (i, len(body)) + body for i in range(3)))
        connection[1].write(b"GET /last HTTP/1.1\r\nConnection: close\r\n\r\n")
        answers = await said(connection)
    for i in range(3):
        assert f"<POST /{i} {len(body)}>".encode() in answers
    assert answers.endswith(b"<GET /last 0>")


SMUGGLED = [
    b"Content-Length: 5\r\nContent-Length: 30\r\n",
    b"Content-Length: 5, 30\r\n",
    b"Content-Length: +30\r\n",
    b"Content-Length: 0x1e\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999999999\r\n",
    b"Content-Length: 30\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nContent-Length: 30\r\n",
    b"Transfer-Encoding: chunked, identity\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding : chunked\r\n",
    b"Transfer-Encoding: chunked\r\n folded: 1\r\n",
    b"Transfer\x00-Encoding: chunked\r\n",
    b"Content-Length: 30\nX: 1\r\n",
    b"X: a\rTransfer-Encoding: chunked\r\n",
]


@pytest.mark.parametrize("headers", SMUGGLED, ids=lambda one: one[:40].decode("latin-1"))
async def test_no_second_request_hides_in_a_first(headers: bytes) -> None:
    """What two parties may read differently (RFC 9112, 6.3 and 11.2) is one request, or none: never two."""
    hidden = b"0\r\n\r\nGET /hidden HTTP/1.1\r\n\r\n"
    async with serving(Hasty) as port:
        connection = await asyncio.open_connection("127.0.0.1", port)
        connection[1].write(b"POST /first HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n" + hidden)
        connection[1].write_eof()
        answers = await said(connection)
    assert b"/hidden" not in answers
    assert answers.count(b"HTTP/1.1 ") <= 1
    assert answers == b"" or answers.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))


@pytest.mark.parametrize(
    "line",
    [
        b"GET /\xff HTTP/1.1",
        b"GET http://[::1 HTTP/1.1",
        b"GET /%zz%00%ff HTTP/1.1",
        b"G\x00T / HTTP/1.1",
        b"GET / HTTP/9.9",
        b"PRI * HTTP/2.0",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET //evil.example/%2e%2e/%2e%2e/etc/passwd HTTP/1.1",
        b"CONNECT evil.example:443 HTTP/1.1",
    ],
)
async def test_what_is_no_request_hurts_nobody(line: bytes) -> None:
    async with serving(Hasty) as port:
        connection = await asyncio.open_connection("127.0.0.1", port)
        connection[1].write(line + b"\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await said(connection)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
        assert b"Traceback" not in answer
        good = await asyncio.open_connection("127.0.0.1", port)
        good[1].write(b"GET /good HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert (await said(good)).endswith(b"<GET /good 0>")
