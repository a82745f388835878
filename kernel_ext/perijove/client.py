"""The asynchronous client: one method for each thing the service does.

It works on the documents of the REST interface and leaves checking them to the service, so that
submitting needs no more than the standard library and httpx. :mod:`perijove.sync` is the same without
``await``.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from perijove.connection import Connection, find_connection, normal_url
from perijove.events import PATIENCE, Event, read_events
from perijove.model.errors import OperatorError, PerijoveError, UnauthorizedError, UnavailableError

if TYPE_CHECKING:
    import httpx

    from perijove.handle import AsyncJob
    from perijove.model import JobSpec

Stream = Literal["stdout", "stderr", "display"]
Document = dict[str, Any]
CHUNK = 1 << 20
"""Bytes of a log asked for at once."""


class BrokenOffError(UnavailableError):
    """The connection broke during a request, which may or may not have been carried out."""


class AsyncClient:
    """Talks to one service. Use it as an async context manager, or call :meth:`close`.

    Without arguments the service is found as :func:`perijove.connection.find_connection` says. `trace` is
    called with a line for each request made (never with the token).
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
        self._site: Document | None = None

    @property
    def url(self) -> str:
        """The service's address."""
        return self.connection.url

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let the connections go."""
        if self._opened is not None:
            opened, self._opened = self._opened, None
            await opened.aclose()

    # jobs

    async def submit(self, spec: Mapping[str, Any] | JobSpec) -> AsyncJob:
        """Submit a job; returns when the service has it durably.

        Raises :class:`~perijove.model.InvalidSpecError` that names the fields at fault.
        """
        return self._job(await self._post_once("/jobs", _document(spec)))

    async def submit_many(self, specs: Iterable[Mapping[str, Any] | JobSpec]) -> list[AsyncJob]:
        """Submit jobs together: all are accepted or none is."""
        records = await self._post_once("/jobs/bulk", [_document(spec) for spec in specs])
        return [self._job(record) for record in records]

    async def _post_once(self, path: str, body: Any) -> Any:
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

    async def job(self, job_id: int | str) -> AsyncJob:
        """The job ``12``, or ``12_7`` for a member of an array."""
        return self._job(await self.job_record(job_id))

    async def job_record(self, job_id: int | str) -> Document:
        """The same as the service's document."""
        record: Document = await self.request_json("GET", _job_path(job_id))
        return record

    async def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        owner: str | None = None,
        name: str | None = None,
        label: str | None = None,
        array: int | None = None,
        limit: int = 100,
    ) -> list[AsyncJob]:
        """At most `limit` jobs, newest first; `array`: only the members of the array of this id."""
        states = [state] if isinstance(state, str) else list(state or ())
        params: dict[str, Any] = {"owner": owner, "name": name, "label": label, "array": array}
        found: list[AsyncJob] = []
        before: int | None = None
        while len(found) < limit:
            page = await self.request_json(
                "GET",
                "/jobs",
                {**params, "state": states, "limit": min(limit - len(found), 500), "before": before},
            )
            found += [self._job(record) for record in page["jobs"]]
            before = page.get("next")
            if before is None or not page["jobs"]:
                break
        return found[:limit]

    async def act(
        self, job_id: int | str, verb: Literal["kill", "hold", "release", "suspend", "resume"]
    ) -> Document:
        """Do something to a job; its new record."""
        record: Document = await self.request_json("POST", f"{_job_path(job_id)}/{verb}")
        return record

    async def logs(
        self, job_id: int | str, stream: Stream = "stdout", *, offset: int = 0, limit: int | None = None
    ) -> bytes:
        """What the job has written so far, from byte `offset`, at most `limit` bytes."""
        parts: list[bytes] = []
        wanted = limit if limit is not None else CHUNK
        while True:
            params = {"stream": stream, "offset": offset, "limit": wanted}
            response = await self.request("GET", f"{_job_path(job_id)}/logs", params)
            parts.append(response.content)
            offset += len(response.content)
            if limit is not None or not response.content:
                return b"".join(parts)

    def log_events(
        self, job_id: int | str, stream: Stream = "stdout", *, offset: int = 0
    ) -> AsyncGenerator[Event, None]:
        """What the current attempt writes: ``chunk`` events (the id is the offset behind), then ``end``."""
        params = {"stream": stream, "offset": offset, "follow": "true"}
        return read_events(self, f"{_job_path(job_id)}/logs", params, last_id=str(offset) if offset else "")

    async def stats(self, job_id: int | str) -> Document:
        """What the job uses now."""
        record: Document = await self.request_json("GET", f"{_job_path(job_id)}/stats")
        return record

    async def output(self, job_id: int | str, name: str) -> bytes:
        """A file that the job declared as an output."""
        response = await self.request("GET", f"{_job_path(job_id)}/outputs/{quote(name, safe='')}")
        return response.content

    async def history(self, job_id: int | str) -> list[Document]:
        """What happened to the job, oldest first."""
        events: list[Document] = await self.request_json("GET", f"{_job_path(job_id)}/events")
        return events

    def events(
        self, job_id: int | str | None = None, *, last_id: str = "", patience: float = PATIENCE
    ) -> AsyncGenerator[Event, None]:
        """Changes of jobs as they happen: ``job`` events, and ``open`` for each connection made."""
        params = {} if job_id is None else {"job": str(job_id)}
        return read_events(self, "/events", params, last_id=last_id, patience=patience)

    # the rest

    async def upload(self, data: bytes) -> str:
        """Store a file for a later job's ``inputs``; its digest ``sha256:...``."""
        answer = await self.request_json(
            "POST", "/files", content=data, headers={"Content-Type": "application/octet-stream"}
        )
        return str(answer["digest"])

    async def nodes(self) -> list[Document]:
        """Each node and what is free on it."""
        answer = await self.request_json("GET", "/nodes")
        return list(answer["nodes"] if isinstance(answer, dict) else answer)

    async def site(self) -> Document:
        """What this site offers; asked once."""
        if self._site is None:
            self._site = await self.request_json("GET", "/site")
        return self._site

    async def me(self) -> Document:
        """Who the token belongs to."""
        record: Document = await self.request_json("GET", "/me")
        return record

    # transport

    async def request_json(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        body: Any = None,
        content: bytes | None = None,
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

    async def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """The answer to a request; refusals are raised as the errors they describe."""
        import httpx

        began = time.monotonic()
        try:
            response = await self._http().request(
                method, f"/api/v1{path}", params=_given(params), content=content, headers=headers
            )
        except httpx.ConnectError as error:
            raise self._unreachable(error) from error
        except httpx.TransportError as error:
            raise BrokenOffError(
                f"{self.url} did not finish its answer: {error or type(error).__name__}"
            ) from error
        self._say(method, response, began)
        self._raise_for(response)
        return response

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

        began = time.monotonic()
        timeout = httpx.Timeout(self._timeout, read=read_timeout)
        async with self._http().stream(
            method, f"/api/v1{path}", params=_given(params), headers=headers, timeout=timeout
        ) as response:
            self._say(method, response, began)
            if response.is_error:
                await response.aread()
            self._raise_for(response)
            yield response

    def _http(self) -> httpx.AsyncClient:
        if self._opened is None:
            import httpx

            headers = {"User-Agent": "perijove", "Accept": "application/json"}
            if self.connection.token:
                headers["Authorization"] = f"Bearer {self.connection.token}"
            self._opened = httpx.AsyncClient(
                base_url=self.url,
                headers=headers,
                timeout=self._timeout,
                limits=httpx.Limits(max_connections=100, max_keepalive_connections=20),
            )
        return self._opened

    def _job(self, record: Document) -> AsyncJob:
        from perijove.handle import AsyncJob

        return AsyncJob(self, record)

    def _unreachable(self, error: Exception) -> UnavailableError:
        source = self.connection.source
        text = f"the service at {self.url} does not answer: {error or type(error).__name__}"
        if source.endswith("endpoint.json"):
            text += f" (its address is from {source}: does `perijove up` run?)"
        elif source:
            text += f" (its address is from {source})"
        return UnavailableError(text)

    def _raise_for(self, response: httpx.Response) -> None:
        if response.is_redirect:
            # A hub sends what it does not know to its login page.
            raise OperatorError(
                f"{self.url} is no Perijove service (it answered with {response.status_code});"
                f" that of a hub is at HUB/services/perijove"
            )
        if response.status_code == 401 and not self.connection.token:
            raise UnauthorizedError(
                f'no token for {self.url}: set PERIJOVE_TOKEN, or run "perijove login {self.url}"'
            )
        _raise_for(response)

    def _say(self, method: str, response: httpx.Response, began: float) -> None:
        if self._trace is not None:
            spent = (time.monotonic() - began) * 1000
            self._trace(f"{method} {response.request.url} -> {response.status_code} ({spent:.0f} ms)")


def _document(spec: Mapping[str, Any] | JobSpec) -> Any:
    if isinstance(spec, Mapping):
        return dict(spec)
    return spec.model_dump(mode="json", exclude_unset=True)


def _job_path(job_id: int | str) -> str:
    return f"/jobs/{quote(str(job_id), safe='')}"


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
