"""The asynchronous client: one method for each thing the service does.

It works on the documents of the REST interface and leaves checking them to the service, so that
submitting needs no more than the standard library and httpx. :mod:`perijove.sync` is the same without
``await``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from perijove.events import PATIENCE, Event, read_events
from perijove.site import Document
from perijove.workflow_requests import WorkflowRequests

if TYPE_CHECKING:
    from perijove.handle import AsyncJob
    from perijove.model import JobSpec

Stream = Literal["stdout", "stderr", "display", "engine"]
Verb = Literal["kill", "hold", "release", "suspend", "resume", "reschedule", "archive"]
CHUNK = 1 << 20
"""Bytes of a log asked for at once."""


class AsyncClient(WorkflowRequests):
    """Talks to one service. Use it as an async context manager, or call :meth:`close`.

    Without arguments the service is found as :func:`perijove.connection.find_connection` says. `trace` is
    called with a line for each request made (never with the token).
    """

    # jobs

    async def submit(self, spec: Mapping[str, Any] | JobSpec) -> AsyncJob:
        """Submit a job; returns when the service has it durably.

        Raises :class:`~perijove.model.InvalidSpecError` that names the fields at fault.
        """
        return self._job(await self.post_once("/jobs", _document(spec)))

    async def submit_many(self, specs: Iterable[Mapping[str, Any] | JobSpec]) -> list[AsyncJob]:
        """Submit jobs together: all are accepted or none is."""
        records = await self.post_once("/jobs/bulk", [_document(spec) for spec in specs])
        return [self._job(record) for record in records]

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
        project: str | None = None,
        label: str | None = None,
        array: int | None = None,
        limit: int = 100,
    ) -> list[AsyncJob]:
        """At most `limit` jobs, newest first; an array counts as one.

        `array`: only the members of the array of this id, as far as they are jobs of their own already.
        """
        states = [state] if isinstance(state, str) else list(state or ())
        params: dict[str, Any] = {"owner": owner, "name": name, "project": project}
        params |= {"label": label, "array": array}
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

    async def act(self, job_id: int | str, verb: Verb, *, dependants: bool = False) -> Document:
        """Do something to a job, an array or a member; its new record.

        `dependants`: also to those that wait for it, and so on (only for ``kill``).
        """
        params = {"dependants": "true"} if dependants else None
        record: Document = await self.request_json("POST", f"{_job_path(job_id)}/{verb}", params)
        return record

    async def why(self, job_id: int | str) -> Document:
        """Why it waits: ``reason`` with its blockers, ``forecast`` of its start, ``hints``.

        ``forecast`` has ``earliest``, ``likely`` and ``latest`` in seconds since the epoch, each None where
        it is not to be known; a hint has ``changes`` (fields of the spec) and ``message``.
        """
        return await self._get(f"{_job_path(job_id)}/why")

    async def update(self, job_id: int | str, fields: Mapping[str, Any]) -> Document:
        """Change fields of its specification, as the policy allows; its new record."""
        record: Document = await self.request_json("PATCH", _job_path(job_id), body=dict(fields))
        return record

    async def rerun(self, job_id: int | str) -> AsyncJob:
        """Submit an ended job once more, as a new one."""
        return self._job(await self.post_once(f"{_job_path(job_id)}/rerun", None))

    async def purge(self, job_id: int | str) -> None:
        """Remove all that is kept of an ended job but its accounting."""
        await self.request("DELETE", _job_path(job_id))

    async def archive_many(
        self, *, older_than: str | float, label: Sequence[str] = (), state: Sequence[str] = (), **more: Any
    ) -> int:
        """Archive one's ended jobs that fit all of this; how many.

        `older_than`: time since their end, such as ``30d``. `more`: ``project``; ``all_users`` for
        administrators.
        """
        wanted = {"older_than": older_than, "label": list(label), "state": list(state)}
        count = 0
        while True:
            answer = await self.request_json("POST", "/archive", body={**wanted, **more})
            count += int(answer["jobs"])
            if not answer.get("more") or not answer["jobs"]:
                return count

    async def usage_of(self, job_id: int | str) -> Document:
        """How well it used what it held: for ``cpu``, ``memory``, ``gpu``, ``time`` what was ``asked`` for,
        ``used``, and their ratio ``efficiency``.
        """
        return await self._get(f"{_job_path(job_id)}/usage")

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

    def _job(self, record: Document) -> AsyncJob:
        from perijove.handle import AsyncJob

        return AsyncJob(self, record)


def _document(spec: Mapping[str, Any] | JobSpec) -> Any:
    if isinstance(spec, Mapping):
        return dict(spec)
    return spec.model_dump(mode="json", exclude_unset=True)


def _job_path(job_id: int | str) -> str:
    return f"/jobs/{quote(str(job_id), safe='')}"
