"""A job as a handle: the latest record the service sent, and what can be done with it."""

from __future__ import annotations

import asyncio
import codecs
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from perijove.model.errors import NotFoundError, UserError
from perijove.model.states import State
from perijove.reading import Record

if TYPE_CHECKING:
    from perijove.client import AsyncClient, Stream, Verb
    from perijove.site import Document

SETTLE = 0.05
"""Seconds between two looks at an attempt that is ending or has hardly begun."""
TAIL = 64 * 1024
"""Bytes of a failed job's log that are looked at for its cause."""


class JobFailedError(UserError):
    """A job did not succeed.

    `traceback` holds the lines of the job's own traceback, when it left one; IPython shows them in place of
    the local one, which would only tell of the waiting.
    """

    def __init__(self, message: str, *, job_id: str = "", traceback: list[str] | None = None) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.traceback = traceback or []

    def _render_traceback_(self) -> list[str]:
        return [*self.traceback, f"{type(self).__name__}: {self}"]


class AsyncJob(Record):
    """A job of the asynchronous client."""

    def __init__(self, client: AsyncClient, document: Document) -> None:
        self.client = client
        self._document = document
        self._listening = 0
        self._news = asyncio.Event()

    @property
    def document(self) -> Document:
        return self._document

    def _take(self, document: Document) -> None:
        self._document = document
        self._news.set()
        self._news = asyncio.Event()

    async def refresh(self) -> AsyncJob:
        """Ask the service how it stands."""
        self._take(await self.client.job_record(self.label))
        return self

    async def changes(self) -> AsyncGenerator[AsyncJob, None]:
        """This handle, now and after each change, until the job has ended.

        What happens while the connection is down is not missed: each new connection begins by asking.
        """
        self._listening += 1
        try:
            async with aclosing(self.client.events(self.label)) as events:
                async for event in events:
                    if event.name == "open":
                        await self.refresh()
                    elif event.name == "job":
                        self._take(event.json()["job"])
                    else:
                        continue
                    yield self
                    if self.ended:
                        return
        finally:
            self._listening -= 1

    async def next_attempt(self, seen: int = 0) -> None:
        """Return when an attempt later than `seen` was begun, or the job has ended."""
        while not (self.attempt > seen or self.ended):
            if self._listening:
                await self._news.wait()
                continue
            async with aclosing(self.changes()) as changes:
                async for _ in changes:
                    if self.attempt > seen:
                        break

    async def wait(self, timeout: float | None = None) -> AsyncJob:
        """Return when it has ended, whichever way; ``TimeoutError`` after `timeout` seconds."""
        if not self.ended:
            async with asyncio.timeout(timeout), aclosing(self.changes()) as changes:
                async for _ in changes:
                    pass
        return self

    async def result(self, timeout: float | None = None) -> Any:
        """What it made, once it has succeeded.

        For a function what it returned; for a cell a dict of the names it was asked to send ``--out``; else
        None. Raises :class:`JobFailedError` with the job's own traceback when it did not succeed.
        """
        await self.wait(timeout)
        if self.state is not State.SUCCEEDED:
            raise await self.failure()
        names = [name for name in self.outputs() if name.endswith(".pkl")]
        if not names:
            return None
        import cloudpickle

        files = await asyncio.gather(*(self.output(name) for name in names))
        values = {
            name.removesuffix(".pkl"): cloudpickle.loads(data)
            for name, data in zip(names, files, strict=True)
        }
        return values["result"] if self.is_function else values

    @property
    def is_function(self) -> bool:
        """Whether it runs a pickled function."""
        command = self.spec.get("command") or []
        return bool(self.spec.get("function")) or command[-2:] == ["perijove.runner", "function"]

    async def failure(self, *, tail: bool = True) -> JobFailedError:
        """Why it did not succeed, as an error to be raised.

        `tail`: with the last lines of its standard error, when it left no traceback.
        """
        error = await self._last_error()
        text = f"job {self.label} {self.state}"
        if self.reason:
            text += f": {self.reason}"
        if error and str(error.get("evalue")) not in text:
            text += f" ({error.get('ename')}: {error.get('evalue')})"
        elif not error and tail and (last_lines := await self._stderr_tail()):
            text += f"\n{last_lines}"
        return JobFailedError(text, job_id=self.label, traceback=list(error.get("traceback") or []))

    async def _last_error(self) -> dict[str, Any]:
        if not self.rich:
            return {}
        try:
            lines = (await self.logs("display")).splitlines()
        except NotFoundError:
            return {}
        for line in reversed(lines):
            if b'"error"' in line:
                output = json.loads(line)
                if output.get("output_type") == "error":
                    return dict(output)
        return {}

    async def _stderr_tail(self, lines: int = 10) -> str:
        try:
            data = await self.logs("stderr")
        except NotFoundError:
            return ""
        return "\n".join(data[-TAIL:].decode(errors="replace").splitlines()[-lines:])

    async def logs(self, stream: Stream = "stdout", *, offset: int = 0) -> bytes:
        """What it has written so far."""
        return await self.client.logs(self.label, stream, offset=offset)

    async def follow(self, stream: Stream = "stdout", *, offset: int = 0) -> AsyncGenerator[str, None]:
        """What it writes, as it does, in all of its attempts, until it has ended."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        async with aclosing(self.follow_bytes(stream, offset=offset)) as chunks:
            async for data in chunks:
                if text := decoder.decode(data):
                    yield text
        if rest := decoder.decode(b"", final=True):
            yield rest

    async def follow_bytes(
        self, stream: Stream = "stdout", *, offset: int = 0
    ) -> AsyncGenerator[bytes, None]:
        """The same as the very bytes, for what is no text."""
        seen = 0
        while True:
            # A log asked for before there is one would be looked for now and then; a start is told at once.
            await self.next_attempt(seen)
            if self.attempt <= seen:
                return
            seen = self.attempt
            async with aclosing(self._follow_attempt(stream, offset)) as chunks:
                async for data in chunks:
                    yield data
            offset = 0

    async def _follow_attempt(self, stream: Stream, offset: int) -> AsyncGenerator[bytes, None]:
        attempt = self.attempt
        while True:
            async with aclosing(self.client.log_events(self.label, stream, offset=offset)) as events:
                async for event in events:
                    if event.name == "end":
                        if State(event.json()["state"]).ended:
                            return
                        break
                    if event.name == "chunk":
                        offset = int(event.id)
                        yield event.json()["text"].encode(errors="surrogateescape")
            # The node had no more to say and the service had not heard of the end yet, or of a new attempt.
            await self.refresh()
            if self.ended:
                if rest := await self.logs(stream, offset=offset):
                    yield rest
                return
            if self.attempt != attempt or not self.state.on_node:
                return
            await asyncio.sleep(SETTLE)

    async def members(self) -> list[AsyncJob]:
        """The jobs of an array, in the order of their numbers; of another job, itself."""
        if not self.is_array:
            return [self]
        found = await self.client.jobs(array=self.id, limit=sys.maxsize)
        known = {job.document.get("array_task"): job for job in found}
        return [
            known.get(task) or AsyncJob(self.client, self.unstarted_member(task))
            for task in self.task_numbers
        ]

    async def member(self, task: int) -> AsyncJob:
        """The member of this number."""
        return await self.client.job(f"{self.id}_{task}")

    async def results(self) -> AsyncGenerator[Any, None]:
        """What the members of an array made, in the order of their numbers, each as soon as it is there.

        Raises :class:`JobFailedError` at the first that did not succeed.
        """
        for member in await self.members():
            yield await member.result()

    async def stats(self) -> Document:
        """What it uses now: cores, bytes of memory."""
        return await self.client.stats(self.label)

    async def history(self) -> list[Document]:
        """What happened to it, oldest first."""
        return await self.client.history(self.label)

    def outputs(self) -> list[str]:
        """Names of the output files that were kept."""
        return sorted(self.document.get("outputs") or {})

    async def output(self, name: str) -> bytes:
        """One of its output files."""
        return await self.client.output(self.label, name)

    async def why(self) -> Document:
        """Why it waits, a forecast of its start, and what would start it; see :meth:`AsyncClient.why`."""
        found = await self.client.why(self.label)
        self._take(found["job"])
        return found

    async def usage(self) -> Document:
        """How well it used what it held; see :meth:`AsyncClient.usage_of`."""
        return await self.client.usage_of(self.label)

    async def update(self, **fields: Any) -> AsyncJob:
        """Change fields of its specification: ``update(time="2h", priority=60)``."""
        self._take(await self.client.update(self.label, fields))
        return self

    async def rerun(self) -> AsyncJob:
        """Submit it once more, as a new job; it must have ended."""
        return await self.client.rerun(self.label)

    async def kill(self, *, dependants: bool = False) -> AsyncJob:
        """Stop it for good; `dependants`: also the jobs that wait for it, and so on."""
        self._take(await self.client.act(self.label, "kill", dependants=dependants))
        return self

    async def hold(self) -> AsyncJob:
        """Keep it from starting."""
        return await self._act("hold")

    async def release(self) -> AsyncJob:
        """Let a held job start."""
        return await self._act("release")

    async def suspend(self) -> AsyncJob:
        """Freeze it where it runs."""
        return await self._act("suspend")

    async def resume(self) -> AsyncJob:
        """Let a suspended job go on."""
        return await self._act("resume")

    async def reschedule(self) -> AsyncJob:
        """Stop it and let it wait again: a new attempt, in a fresh directory."""
        return await self._act("reschedule")

    async def archive(self) -> AsyncJob:
        """Remove the directory and logs of an ended job; its record stays."""
        return await self._act("archive")

    async def purge(self) -> None:
        """Remove all that is kept of an ended job but its accounting."""
        await self.client.purge(self.label)

    async def _act(self, verb: Verb) -> AsyncJob:
        self._take(await self.client.act(self.label, verb))
        return self
