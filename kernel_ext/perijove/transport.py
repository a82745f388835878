"""Requests to the service, and its refusals as the errors they describe."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlencode

from perijove.connection import Connection, find_connection, normal_url
from perijove.model.errors import OperatorError, PerijoveError, UnauthorizedError, UnavailableError

if TYPE_CHECKING:
    import httpx


Content = bytes | Callable[[], AsyncIterator[bytes]]
"""A request's body; one that is long is asked for each time that it has to be sent."""


class BrokenOffError(UnavailableError):
    """The connection broke during a request, which may or may not have been carried out."""


class Transport:
    """Carries requests to one service; opened when first needed.

    Where several services share a database, one leads and the others name it: requests then go there.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        connection: Connection | None = None,
        timeout: float = 30.0,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        if connection is None:
            connection = Connection(normal_url(url), token or "") if url else find_connection()
        self.connection = connection
        self._timeout = timeout
        self._trace = trace
        self._opened: httpx.AsyncClient | None = None
        self._base = connection.url

    @property
    def url(self) -> str:
        """The service's address."""
        return self.connection.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let the connections go."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            await opened.aclose()

    async def request_json(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        body: Any = None,
        content: Content | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The JSON that a request is answered with."""
        if body is not None:
            content = json.dumps(body).encode()
            headers = {"Content-Type": "application/json"}
        response = await self.request(method, path, params, content=content, headers=headers)
        try:
            return response.json()
        except ValueError as error:
            raise OperatorError(
                f"{self.url} does not answer like a Perijove service ({method} {path})"
            ) from error

    async def post_once(self, path: str, body: Any) -> Any:
        """Post so that a connection that breaks before the answer leads neither to no job nor to two."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": secrets.token_urlsafe(16)}
        content, give_up, pause = json.dumps(body).encode(), time.monotonic() + self._timeout, 0.1
        while True:
            try:
                return await self.request_json("POST", path, content=content, headers=headers)
            except BrokenOffError:
                if time.monotonic() > give_up:
                    raise
            except UnavailableError:
                if pause == 0.1 or time.monotonic() > give_up:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2.0)

    async def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        content: Content | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The answer to a request; refusals are raised as the errors they describe."""
        response = await self._led(method, path, params, content, headers)
        self._raise_for(response)
        return response

    async def post_form(self, path: str, fields: Mapping[str, str]) -> dict[str, Any]:
        """What form fields are answered with, by OAuth's rules: refusals are answers with ``error``."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        response = await self._led("POST", path, None, urlencode(fields).encode(), headers)
        if response.status_code != 400:
            self._raise_for(response)
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or (response.is_error and "error" not in answer):
            _raise_for(response)
            raise OperatorError(f"{self.url} does not answer like a Perijove service (POST {path})")
        return answer

    async def _led(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        content: Content | None,
        headers: Mapping[str, str] | None,
    ) -> httpx.Response:
        """The answer of the service that leads."""
        response = await self._send(method, path, params, content, headers)
        if leader := self._leader(response):
            self._base = leader
            response = await self._send(method, path, params, content, headers)
        return response

    async def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None,
        content: Content | None,
        headers: Mapping[str, str] | None,
    ) -> httpx.Response:
        import httpx

        began, url = time.monotonic(), f"{self._base}/api/v1{path}"
        try:
            sent = content() if callable(content) else content
            response = await self._http().request(
                method, url, params=_given(params), content=sent, headers=headers
            )
        except httpx.ConnectError as error:
            self._base = self.url  # the leader has gone; whoever is asked first knows the next
            raise self._unreachable(error) from error
        except httpx.TransportError as error:
            self._base = self.url
            raise BrokenOffError(
                f"{self.url} did not finish its answer: {error or type(error).__name__}"
            ) from error
        self._say(method, response, began)
        return response

    def _leader(self, response: httpx.Response) -> str:
        """Where the service that leads is, as a standby tells; empty when there is nobody else to ask."""
        told = response.headers.get("perijove-leader")
        if response.status_code != 503 or not told or (leader := normal_url(told)) == self._base:
            return ""
        # The token goes along, so no further than to where it would be as safe as here.
        allowed = ("https://",) if self.url.startswith("https://") else ("https://", "http://")
        return leader if leader.startswith(allowed) else ""

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        read_timeout: float,
    ) -> AsyncIterator[httpx.Response]:
        """The answer to a request, read as it arrives."""
        import httpx

        began, url = time.monotonic(), f"{self._base}/api/v1{path}"
        timeout = httpx.Timeout(self._timeout, read=read_timeout)
        opening = self._http().stream(method, url, params=_given(params), headers=headers, timeout=timeout)
        try:
            async with opening as response:
                self._say(method, response, began)
                if response.is_error:
                    await response.aread()
                # Readers of streams ask again by themselves; next time at the right place.
                self._base = self._leader(response) or self._base
                self._raise_for(response)
                yield response
        except httpx.TransportError:
            self._base = self.url
            raise

    def _http(self) -> httpx.AsyncClient:
        if self._opened is None:
            import httpx

            headers = {"User-Agent": "perijove", "Accept": "application/json"}
            if self.connection.token:
                headers["Authorization"] = f"Bearer {self.connection.token}"
            self._opened = httpx.AsyncClient(
                headers=headers,
                timeout=self._timeout,
                limits=httpx.Limits(max_connections=100, max_keepalive_connections=20),
            )
        return self._opened

    def _unreachable(self, error: Exception) -> UnavailableError:
        source = self.connection.source
        text = f"the service at {self.url} does not answer: {error or type(error).__name__}"
        if source.endswith("endpoint.json"):
            text += f" (its address is from {source}: does `perijove up` run?)"
        elif source:
            text += f" (its address is from {source})"
        return UnavailableError(text)

    def _raise_for(self, response: httpx.Response) -> None:
        said = response.headers.get("Content-Type", "")
        # What it does not know a hub sends to its login page, and its proxy answers with a page.
        if response.is_redirect or (response.status_code == 404 and "json" not in said):
            raise self._absent(response)
        if response.status_code == 401 and not self.connection.token:
            raise UnauthorizedError(
                f'no token for {self.url}: set PERIJOVE_TOKEN, or run "perijove login {self.url}"'
            )
        _raise_for(response)

    def _absent(self, response: httpx.Response) -> OperatorError:
        if self.url.endswith("/services/perijove"):
            why = "the hub has not started it yet, or is set up without it"
            return OperatorError(f"no service answers at {self.url} ({response.status_code}): {why}")
        return OperatorError(
            f"{self.url} is no Perijove service (it answered with {response.status_code});"
            f" that of a hub is at HUB/services/perijove"
        )

    def _say(self, method: str, response: httpx.Response, began: float) -> None:
        if self._trace is not None:
            spent = (time.monotonic() - began) * 1000
            self._trace(f"{method} {response.request.url} -> {response.status_code} ({spent:.0f} ms)")


def _given(params: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (params or {}).items() if value is not None and value != []}


def _raise_for(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        problem = response.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and "code" in problem:
        raise PerijoveError.from_problem(problem)
    text = f"{response.request.method} {response.request.url} was answered with {response.status_code}"
    if response.status_code in {502, 503, 504}:
        raise UnavailableError(f"the service is not ready: {text}")
    raise OperatorError(text)
