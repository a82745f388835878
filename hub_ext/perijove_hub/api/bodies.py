"""Reading request bodies no further than the site allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import HTTPException, Request

from perijove.model import TooLargeError, format_size

PATIENCE = 30.0
"""Seconds that a client may take over the next piece."""


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body; :class:`TooLargeError` past `limit` bytes, before more of it is read."""
    return b"".join([chunk async for chunk in chunks(request, limit)])


async def chunks(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body in pieces; :class:`TooLargeError` past `limit` bytes, 408 when no more comes."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)
    size, stream = 0, aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(PATIENCE):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise HTTPException(408, f"nothing of the body came for {PATIENCE:g} s") from None
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        yield chunk


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the request is larger than the {format_size(limit)} that this service accepts")
