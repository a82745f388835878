"""Reading request bodies no further than the site allows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from pydantic import BaseModel, ValidationError

from perijove.model import InvalidSpecError, TooLargeError, format_size
from perijove.model.validation import field_errors

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


Model = TypeVar("Model", bound=BaseModel)
SMALL = 64 << 10
"""Bytes of a body that says what to do, and holds no job."""


async def read_model(
    request: Request, model: type[Model], limit: int = SMALL, *, optional: bool = False
) -> Model:
    """The body as a `model`, read no further than `limit` bytes. `optional`: none is as good as ``{}``.

    Raises :class:`InvalidSpecError` naming each wrong field.
    """
    body = await read_body(request, limit)
    try:
        return model.model_validate_json(b"{}" if optional and not body else body)
    except ValidationError as error:
        raise InvalidSpecError(errors=field_errors(error, model)) from None


def json_body(model: type[BaseModel], *, optional: bool = False) -> dict[str, Any]:
    """What the OpenAPI document says of a route that reads a `model`."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": not optional, "content": {"application/json": {"schema": schema}}}}


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"the request is larger than the {format_size(limit)} that this service accepts")
