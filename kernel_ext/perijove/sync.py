"""The client without ``await``, for notebooks and scripts.

Nothing is done twice here: each call runs the asynchronous core on one background thread with an event
loop of its own, which works beside a notebook's own running loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import (
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perijove.client import AsyncClient
from perijove.handle import AsyncJob
from perijove.loop import LOOP, iterate
from perijove.reading import Record
from perijove.secret_requests import SecretCalls
from perijove.sync_workflows import WorkflowCalls
from perijove.waiting import Explanation

if TYPE_CHECKING:
    from perijove.client import Stream
    from perijove.connection import Connection
    from perijove.content import Progress, Source
    from perijove.model import JobSpec
    from perijove.site import Document


class Job(Record):
    """A job: submit, look, wait, take the result. ``await job`` waits too."""

    def __init__(self, job: AsyncJob) -> None:
        self.async_job = job
        """The same job on the asynchronous client; used from the background loop only."""
        self.deliver: Callable[[Job, Any], None] | None = None
        """Called with this job and what :meth:`result` is about to return."""

    @property
    def document(self) -> Document:
        """The job as the service sent it last."""
        return self.async_job.document

    def refresh(self) -> Job:
        """Ask the service how it stands."""
        LOOP.run(self.async_job.refresh())
        return self

    def wait(self, timeout: float | None = None) -> Job:
        """Return when it has ended, whichever way; ``TimeoutError`` after `timeout` seconds."""
        LOOP.run(self.async_job.wait(timeout))
        return self

    def result(self, timeout: float | None = None) -> Any:
        """What it made, once it has succeeded; :class:`~perijove.handle.JobFailedError` otherwise.

        For a function what it returned; for a cell a dict of the names it was asked to send ``--out``.
        """
        value = LOOP.run(self.async_job.result(timeout))
        if self.deliver is not None:
            self.deliver(self, value)
        return value

    def logs(self, stream: Stream = "stdout") -> str:
        """What it has written so far to ``stdout``, ``stderr`` or ``display``."""
        return LOOP.run(self.async_job.logs(stream)).decode(errors="replace")

    def follow(self, stream: Stream = "stdout") -> Iterator[str]:
        """What it writes, as it does, until it has ended."""
        return iterate(self.async_job.follow(stream))

    def stats(self) -> Document:
        """What it uses now."""
        return LOOP.run(self.async_job.stats())

    def history(self) -> list[Document]:
        """What happened to it, oldest first."""
        return LOOP.run(self.async_job.history())

    def outputs(self) -> list[str]:
        """Names of the output files that were kept."""
        return self.async_job.outputs()

    def output(self, name: str) -> bytes:
        """One of its output files."""
        return LOOP.run(self.async_job.output(name))

    def members(self) -> list[Job]:
        """The jobs of an array, in the order of their numbers; of another job, itself."""
        return [Job(job) for job in LOOP.run(self.async_job.members())]

    def __getitem__(self, task: int) -> Job:
        """The member of this number: ``job[7]``."""
        if task not in self.task_numbers:
            raise IndexError(f"job {self.label} has no member {task}{self._numbers()}")
        return Job(LOOP.run(self.async_job.member(task)))

    def __iter__(self) -> Iterator[Job]:
        """The members."""
        if not self.is_array:
            raise TypeError(f"job {self.label} has no members")
        return iter(self.members())

    def _numbers(self) -> str:
        numbers = self.task_numbers
        return f"; it has {numbers[0]} to {numbers[-1]}, step {numbers.step}" if numbers else ""

    def results(self) -> Iterator[Any]:
        """What the members of an array made, in the order of their numbers, each as soon as it is there.

        Raises :class:`~perijove.handle.JobFailedError` at the first that did not succeed.
        """
        return iterate(self.async_job.results())

    def why(self) -> Explanation:
        """Why it waits, a forecast of its start, and what would start it now."""
        return Explanation(LOOP.run(self.async_job.why()))

    def usage(self) -> Document:
        """How well it used what it held: for ``cpu``, ``memory``, ``gpu``, ``time`` what was ``asked`` for,
        ``used``, and their ratio ``efficiency``.
        """
        return LOOP.run(self.async_job.usage())

    def update(self, **fields: Any) -> Job:
        """Change fields of its specification: ``update(time="2h", priority=60)``."""
        LOOP.run(self.async_job.update(**fields))
        return self

    def rerun(self) -> Job:
        """Submit it once more, as a new job; it must have ended."""
        return Job(LOOP.run(self.async_job.rerun()))

    def kill(self, *, dependants: bool = False) -> Job:
        """Stop it for good; `dependants`: also the jobs that wait for it, and so on."""
        LOOP.run(self.async_job.kill(dependants=dependants))
        return self

    def hold(self) -> Job:
        """Keep it from starting."""
        return self._act(self.async_job.hold)

    def release(self) -> Job:
        """Let a held job start."""
        return self._act(self.async_job.release)

    def suspend(self) -> Job:
        """Freeze it where it runs."""
        return self._act(self.async_job.suspend)

    def resume(self) -> Job:
        """Let a suspended job go on."""
        return self._act(self.async_job.resume)

    def reschedule(self) -> Job:
        """Stop it and let it wait again: a new attempt, in a fresh directory."""
        return self._act(self.async_job.reschedule)

    def archive(self) -> Job:
        """Remove the directory and logs of an ended job; its record stays."""
        return self._act(self.async_job.archive)

    def purge(self) -> None:
        """Remove all that is kept of an ended job but its accounting."""
        LOOP.run(self.async_job.purge())

    def show(self) -> None:
        """Replay what it has put out so far into this cell."""
        from perijove.display import replay

        replay(self)

    def _act(self, verb: Callable[[], Coroutine[Any, Any, AsyncJob]]) -> Job:
        LOOP.run(verb())
        return self

    def __await__(self) -> Generator[Any, None, Job]:
        future = asyncio.run_coroutine_threadsafe(self.async_job.wait(), LOOP.loop())
        yield from asyncio.wrap_future(future).__await__()
        return self

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from perijove.status import status_bundle

        return status_bundle(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))


class Client(SecretCalls, WorkflowCalls):
    """Talks to one service; found as :func:`perijove.connection.find_connection` says unless given."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        connection: Connection | None = None,
        timeout: float = 30.0,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.async_client = AsyncClient(url, token, connection=connection, timeout=timeout, trace=trace)

    @property
    def connection(self) -> Connection:
        """Where it is connected to."""
        return self.async_client.connection

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the connections go."""
        LOOP.run(self.async_client.close())

    def submit(self, spec: Mapping[str, Any] | JobSpec) -> Job:
        """Submit a job; returns when the service has it durably."""
        return Job(LOOP.run(self.async_client.submit(spec)))

    def submit_many(self, specs: Iterable[Mapping[str, Any] | JobSpec]) -> list[Job]:
        """Submit jobs together: all are accepted or none is."""
        return [Job(job) for job in LOOP.run(self.async_client.submit_many(specs))]

    def run(
        self,
        function: Callable[..., Any],
        *args: Any,
        options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Job:
        """Submit ``function(*args, **kwargs)``; `options` are fields of a JobSpec. See :meth:`Job.result`."""
        from perijove.payload import function_payload

        return Job(
            LOOP.run(function_payload(function, args, kwargs).submit(self.async_client, options or {}))
        )

    def job(self, job_id: int | str) -> Job:
        """The job ``12``, or ``12_7`` for a member of an array."""
        return Job(LOOP.run(self.async_client.job(job_id)))

    def jobs(
        self,
        *,
        state: str | Sequence[str] | None = None,
        owner: str | None = None,
        name: str | None = None,
        project: str | None = None,
        label: str | None = None,
        limit: int = 100,
    ) -> list[Job]:
        """At most `limit` jobs, newest first; an array counts as one."""
        found = self.async_client.jobs(
            state=state, owner=owner, name=name, project=project, label=label, limit=limit
        )
        return [Job(job) for job in LOOP.run(found)]

    def upload(self, source: Source, *, progress: Progress | None = None) -> str:
        """Store bytes, a file or a folder for a job's ``inputs``; its digest. Nothing is sent twice.

        `progress` is called with how many bytes are done, and of how many.
        """
        return LOOP.run(self.async_client.upload(source, progress=progress))

    def download(
        self, digest: str, target: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> Path:
        """Fetch a file or folder that is yours, checked against its digest; where it is."""
        return LOOP.run(self.async_client.download(digest, target, progress=progress))

    def fetch_url(self, url: str) -> str:
        """Store what a URL gives; its digest. One that ends in ``#sha256=HEX`` is checked."""
        return LOOP.run(self.async_client.fetch_url(url))

    def store(self) -> Document:
        """What the content store holds, and what is yours of it; bytes."""
        return LOOP.run(self.async_client.store())

    def collect(self, *, older_than: str | float = 0, dry_run: bool = False) -> Document:
        """Remove from the store what nothing needs (administrators); what was, or would be, removed."""
        return LOOP.run(self.async_client.collect(older_than=older_than, dry_run=dry_run))

    def sign_file(self, digest: str, *, method: str = "GET", seconds: int = 3600) -> Document:
        """A URL by which the file can be fetched, or sent (``PUT``), without a token, for so long."""
        return LOOP.run(self.async_client.sign_file(digest, method=method, seconds=seconds))

    def nodes(self) -> list[Document]:
        """Each node and what is free on it."""
        return LOOP.run(self.async_client.nodes())

    def site(self) -> Document:
        """What this site offers; asked once."""
        return LOOP.run(self.async_client.site())

    def me(self) -> Document:
        """Who the token belongs to."""
        return LOOP.run(self.async_client.me())

    def usage(self, by: str | Sequence[str] = "owner", **options: Any) -> list[Document]:
        """What jobs held, by owner, project, day, image, node or partition.

        `options` are ``since`` (30 days ago when not given), ``until``, ``owner``, ``project``; see
        :meth:`AsyncClient.usage <perijove.AsyncClient.usage>`.
        """
        return LOOP.run(self.async_client.usage(by, **options))

    def top(self, limit: int = 50) -> list[Document]:
        """Running jobs by what they use now: ``{"job", "stats"}``, the busiest first."""
        return LOOP.run(self.async_client.top(limit))

    def share(self) -> list[Document]:
        """The fair share: what is due to each user and project, and what they had."""
        return LOOP.run(self.async_client.share())

    def projects(self) -> list[Document]:
        """One's projects, with what they may use and have used."""
        return LOOP.run(self.async_client.projects())


__all__ = ["LOOP", "Client", "Job", "iterate"]
