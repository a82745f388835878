"""Requests to providers: in time, of bounded size, and JSON or nothing."""

from __future__ import annotations

import json
import ssl
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from perijove_hub.auth.refusals import ForgedAnswerError, ProviderDownError

SECONDS = 10.0
LARGEST = 1 << 20
"""Bytes; no honest answer comes near."""


@cache
def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Whose certificates are believed; read once, which takes longer than a request."""
    return ssl.create_default_context(cafile=str(ca_file)) if ca_file else httpx.create_ssl_context()


class Fetcher:
    """HTTP to one provider, who is called `title` in what people read."""

    def __init__(self, title: str, ca_file: Path | None = None) -> None:
        self._title, self._trusted = title, trusted(ca_file)

    async def document(self, method: str, url: str, **more: Any) -> dict[str, Any]:
        """The JSON object at `url`; else raises as :meth:`any`."""
        status, found = await self.any(method, url, **more)
        if status != httpx.codes.OK or not isinstance(found, dict):
            raise ForgedAnswerError(f"status {status} and no JSON object where one was expected")
        return found

    async def any(self, method: str, url: str, **more: Any) -> tuple[int, Any]:
        """Status and JSON value of the answer; redirections are not followed.

        Raises :class:`ProviderDownError` when it does not come or is a 5xx, and :class:`ForgedAnswerError`
        when it is no JSON, or too much.
        """
        try:
            async with (
                httpx.AsyncClient(timeout=SECONDS, verify=self._trusted) as http,
                http.stream(method, url, **more) as answer,
            ):
                status, content = answer.status_code, b""
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    if len(content) > LARGEST:
                        raise ForgedAnswerError(f"an answer of more than {LARGEST} bytes")
        except httpx.HTTPError as error:
            raise ProviderDownError(
                self._title, f"{type(error).__name__} at {httpx.URL(url).host}"
            ) from error
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise ProviderDownError(self._title, f"status {status} from {httpx.URL(url).host}")
        try:
            return status, json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ForgedAnswerError(f"status {status} and no JSON") from error
