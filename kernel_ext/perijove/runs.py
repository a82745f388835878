"""A run of a workflow as a handle: what is known of it and its steps, and what can be done with it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from perijove.handle import JobFailedError
from perijove.model.errors import NotFoundError
from perijove.model.states import State

if TYPE_CHECKING:
    from perijove.client import AsyncClient
    from perijove.handle import AsyncJob
    from perijove.model.runs import Run as RunRecord
    from perijove.model.runs import StepRun
    from perijove.site import Document
    from perijove.workflow_requests import Cache

_GOOD = frozenset({"succeeded", "cached"})
_BAD = ("failed", "lost", "killed")


def label_of_step(document: Mapping[str, Any]) -> str:
    """``prep``, or ``train[3]``."""
    index = document.get("index")
    return str(document["step"]) if index is None else f"{document['step']}[{index}]"


class RunDocument(ABC):
    """Reading what the service sent of a run; shared by the asynchronous handle and the plain one."""

    @property
    @abstractmethod
    def document(self) -> Document:
        """The run as the service sent it last."""

    @property
    @abstractmethod
    def step_documents(self) -> Mapping[str, Document]:
        """Its steps by label, as the service sent them last."""

    @property
    def id(self) -> int:
        """Its number."""
        return int(self.document["id"])

    @property
    def name(self) -> str:
        """What the workflow is called."""
        return str(self.document.get("name") or "")

    @property
    def state(self) -> State:
        """Where it stood when last heard of."""
        return State(self.document["state"])

    @property
    def ended(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state.ended

    @property
    def reason(self) -> str:
        """Why it ended other than by its own success, or what it waits for; else empty."""
        return str((self.document.get("reason") or {}).get("message") or "")

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of the workflow's parameters."""
        return dict(self.document.get("parameters") or {})

    @property
    def counts(self) -> dict[str, int]:
        """How many steps are in each state."""
        return {state: int(count) for state, count in (self.document.get("steps") or {}).items() if count}

    @property
    def record(self) -> RunRecord:
        """All that is known of it, checked and typed."""
        from perijove.model.runs import Run as RunRecord

        return RunRecord.model_validate(self.document)

    @property
    def steps(self) -> dict[str, StepRun]:
        """Its steps by label, such as ``prep`` or ``train[3]``, as far as they are known."""
        from perijove.model.runs import StepRun

        return {label: StepRun.model_validate(each) for label, each in self.step_documents.items()}

    @property
    def final_steps(self) -> list[str]:
        """The names of the steps that no other step needs."""
        steps = (self.document.get("workflow") or {}).get("steps") or {}
        workflow = self.record.workflow
        needed = {other for step in (workflow.steps.values() if workflow else ()) for other in step.needs()}
        return [name for name in steps if name not in needed]

    def __repr__(self) -> str:
        parts = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        return f"<{type(self).__name__} {self.id} {self.name!r} {self.state}{f': {parts}' if parts else ''}>"


class AsyncRun(RunDocument):
    """A run of a workflow, of the asynchronous client."""

    def __init__(self, client: AsyncClient, document: Document) -> None:
        self.client = client
        self._document = document
        self._steps: dict[str, Document] = {}

    @property
    def document(self) -> Document:
        return self._document

    @property
    def step_documents(self) -> Mapping[str, Document]:
        return self._steps

    def _take(self, document: Document) -> None:
        # What is sent at each change leaves out the workflow, which never changes.
        kept = self._document.get("workflow")
        self._document = document if document.get("workflow") or not kept else {**document, "workflow": kept}

    async def refresh(self) -> AsyncRun:
        """Ask the service how it and its steps stand."""
        document, steps = await asyncio.gather(
            self.client.run_document(self.id), self.client.run_steps(self.id)
        )
        self._take(document)
        self._steps = {label_of_step(each): each for each in steps}
        return self

    async def changes(self) -> AsyncGenerator[AsyncRun, None]:
        """This handle, now and after each change, until the run has ended.

        What happens while the connection is down is not missed: each new connection begins by asking.
        """
        async with aclosing(self.client.run_events(self.id)) as events:
            async for event in events:
                if event.name == "step":
                    step = event.json()
                    self._steps[label_of_step(step)] = step
                elif event.name == "run":
                    self._take(event.json())
                elif event.name != "open":
                    continue
                if event.name == "open" or self.ended:
                    await self.refresh()
                yield self
                if self.ended:
                    return

    async def wait(self, timeout: float | None = None) -> AsyncRun:
        """Return when it has ended, whichever way; ``TimeoutError`` after `timeout` seconds."""
        if not self.ended or not self._steps:
            async with asyncio.timeout(timeout), aclosing(self.changes()) as changes:
                async for _ in changes:
                    pass
        return self

    async def result(self, step: str | None = None, timeout: float | None = None) -> Any:
        """What a step made, once the run has succeeded; see :meth:`AsyncStep.value`. Of a mapped step a list.

        Without a name: of the step that no other needs, or, where there are several, of each by name. Raises
        :class:`~perijove.JobFailedError` when the run did not succeed.
        """
        await self.wait(timeout)
        if self.state is not State.SUCCEEDED:
            raise await self.failure()
        if step is not None:
            return await self.value(step)
        final = self.final_steps
        if len(final) == 1:
            return await self.value(final[0])
        return {name: await self.value(name) for name in final}

    async def value(self, step: str) -> Any:
        """What a step has made so far; of a mapped step a list in the order of its items."""
        if step in self._steps:
            return await self.step(step).value()
        members = [label for label, each in self._steps.items() if each["step"] == step]
        known = (self.document.get("workflow") or {}).get("steps") or {}
        if not members and step not in known:
            raise self._no_step(step)
        members.sort(key=lambda label: int(self._steps[label]["index"]))
        return list(await asyncio.gather(*(self.step(label).value() for label in members)))

    def step(self, label: str) -> AsyncStep:
        """A step by its label: ``prep``, ``train[3]``."""
        if label not in self._steps:
            raise self._no_step(label)
        return AsyncStep(self, label)

    def _no_step(self, label: str) -> NotFoundError:
        known = ", ".join(list(self._steps)[:10])
        return NotFoundError(f"run {self.id} has no step {label} (yet); there are: {known or 'none'}")

    async def failure(self) -> JobFailedError:
        """Why it did not succeed, as an error to be raised, with the first failed step's traceback."""
        text = f"run {self.id} {self.state}"
        if self.reason:
            text += f": {self.reason}"
        failed = [label for state in _BAD for label in self._steps if self._steps[label]["state"] == state]
        for label in failed[:1]:
            more = f" (and {len(failed) - 1} more)" if failed[1:] else ""
            if job := await self.step(label).job():
                error = await job.failure()
                text += f"\n{label}{more}: {error}"
                return JobFailedError(text, job_id=error.job_id, traceback=error.traceback)
            reason = (self._steps[label].get("reason") or {}).get("message") or self._steps[label]["state"]
            text += f"\n{label}{more}: {reason}"
        return JobFailedError(text)

    async def explain(self) -> list[Document]:
        """Of each step ``cached_from``, the run whose result was taken, or the ``causes`` why it ran."""
        return await self.client.explain_run(self.id)

    async def result_record(self) -> Any:
        """The result records of its steps."""
        return await self.client.record_of("workflows", self.id)

    async def kill(self) -> AsyncRun:
        """Stop it, and all of its steps, for good."""
        return await self._act("kill")

    async def hold(self) -> AsyncRun:
        """Start no further step; those that run go on."""
        return await self._act("hold")

    async def release(self) -> AsyncRun:
        """Let a held run go on."""
        return await self._act("release")

    async def pin(self) -> AsyncRun:
        """Keep its results whatever else is collected."""
        return await self._act("pin")

    async def unpin(self) -> AsyncRun:
        """Let its results be collected in their time."""
        return await self._act("unpin")

    async def update(self, *, priority: int) -> AsyncRun:
        """Change its priority, from 0 to 100."""
        self._take(await self.client.update_run(self.id, {"priority": priority}))
        return self

    async def resume(self, *, cache: Cache = "use", **parameters: Any) -> AsyncRun:
        """Run what did not succeed once more, as a new run; what others depend on is taken from this one.

        `parameters` that are given replace those of this run.
        """
        return await self.client.resume_run(self.id, parameters, cache=cache)

    async def _act(self, verb: Any) -> AsyncRun:
        self._take(await self.client.act_on_run(self.id, verb))
        return self


class AsyncStep:
    """One step of a run; of a mapped step the one for an element."""

    def __init__(self, run: AsyncRun, label: str) -> None:
        self.run = run
        self.label = label

    @property
    def document(self) -> Document:
        """The step as the service sent it last."""
        return self.run.step_documents[self.label]

    @property
    def state(self) -> str:
        """One of :class:`~perijove.model.StepState`."""
        return str(self.document["state"])

    @property
    def outputs(self) -> dict[str, Document]:
        """What it made by name: ``digest`` and ``size``, or ``value`` where ``valued``."""
        return dict(self.document.get("outputs") or {})

    async def job(self) -> AsyncJob | None:
        """Its job; None while it has none, or when its result was taken from elsewhere."""
        number = self.document.get("job")
        return None if number is None else await self.run.client.job(number)

    async def output(self, name: str) -> bytes:
        """What it made under this name, as bytes."""
        return await self.run.client.step_output(self.run.id, self.label, name)

    async def value(self, name: str | None = None) -> Any:
        """What it made: a value as such, a pickle loaded, a file as bytes.

        Without a name what a function returned; of another step a dict of all values that it recorded; of a
        skipped step None.
        """
        if self.state == "skipped":
            return None
        if self.state not in _GOOD:
            raise NotFoundError(f"step {self.label} of run {self.run.id} made nothing: it is {self.state}")
        outputs = self.outputs
        if name is None:
            if "result" not in outputs:
                return {name: each.get("value") for name, each in outputs.items() if each.get("valued")}
            name = "result"
        if name not in outputs:
            known = ", ".join(outputs) or "none"
            raise NotFoundError(f"step {self.label} has no output {name}; it has: {known}")
        if outputs[name].get("valued"):
            return outputs[name].get("value")
        data = await self.output(name)
        if name != "result":
            return data
        import cloudpickle

        return cloudpickle.loads(data)
