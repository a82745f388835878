"""Runs of workflows without ``await``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from perijove.loop import LOOP
from perijove.runs import AsyncRun, AsyncStep, RunDocument
from perijove.sync import Job

if TYPE_CHECKING:
    from perijove.site import Document
    from perijove.workflow_requests import Cache


class Run(RunDocument):
    """A run of a workflow: look, wait, take what its steps made."""

    def __init__(self, run: AsyncRun) -> None:
        self.async_run = run
        """The same run on the asynchronous client; used from the background loop only."""

    @property
    def document(self) -> Document:
        return self.async_run.document

    @property
    def step_documents(self) -> Mapping[str, Document]:
        return self.async_run.step_documents

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        from perijove.run_display import run_bundle

        return run_bundle(self.record, self.steps.values())

    def refresh(self) -> Run:
        """Ask the service how it and its steps stand."""
        LOOP.run(self.async_run.refresh())
        return self

    def wait(self, timeout: float | None = None) -> Run:
        """Return when it has ended, whichever way; ``TimeoutError`` after `timeout` seconds."""
        LOOP.run(self.async_run.wait(timeout))
        return self

    def result(self, step: str | None = None, timeout: float | None = None) -> Any:
        """What a step made, once the run has succeeded: what a function returned, recorded values as a dict.

        Of a mapped step a list. Without a name: of the step that no other needs, or, where there are several,
        of each by name. Raises :class:`~perijove.JobFailedError` when the run did not succeed.
        """
        return LOOP.run(self.async_run.result(step, timeout))

    def step(self, label: str) -> Step:
        """A step by its label: ``prep``, ``train[3]``."""
        return Step(self.async_run.step(label))

    def explain(self) -> list[Document]:
        """Of each step ``cached_from``, the run whose result was taken, or the ``causes`` why it ran."""
        return LOOP.run(self.async_run.explain())

    def result_record(self) -> Any:
        """The result records of its steps."""
        return LOOP.run(self.async_run.result_record())

    def kill(self) -> Run:
        """Stop it, and all of its steps, for good."""
        LOOP.run(self.async_run.kill())
        return self

    def hold(self) -> Run:
        """Start no further step; those that run go on."""
        LOOP.run(self.async_run.hold())
        return self

    def release(self) -> Run:
        """Let a held run go on."""
        LOOP.run(self.async_run.release())
        return self

    def pin(self) -> Run:
        """Keep its results whatever else is collected."""
        LOOP.run(self.async_run.pin())
        return self

    def unpin(self) -> Run:
        """Let its results be collected in their time."""
        LOOP.run(self.async_run.unpin())
        return self

    def update(self, *, priority: int) -> Run:
        """Change its priority, from 0 to 100."""
        LOOP.run(self.async_run.update(priority=priority))
        return self

    def resume(self, *, cache: Cache = "use", **parameters: Any) -> Run:
        """Run what did not succeed once more, as a new run; `parameters` replace those of this one."""
        return Run(LOOP.run(self.async_run.resume(cache=cache, **parameters)))


class Step:
    """One step of a run; of a mapped step the one for an element."""

    def __init__(self, step: AsyncStep) -> None:
        self.async_step = step
        self.label = step.label

    @property
    def state(self) -> str:
        """One of :class:`~perijove.model.StepState`."""
        return self.async_step.state

    @property
    def outputs(self) -> dict[str, Document]:
        """What it made by name: ``digest`` and ``size``, or ``value`` where ``valued``."""
        return self.async_step.outputs

    @property
    def job(self) -> Job | None:
        """Its job; None while it has none, or when its result was taken from elsewhere."""
        found = LOOP.run(self.async_step.job())
        return None if found is None else Job(found)

    def output(self, name: str) -> bytes:
        """What it made under this name, as bytes."""
        return LOOP.run(self.async_step.output(name))

    def value(self, name: str | None = None) -> Any:
        """What it made: a value as such, a pickle loaded, a file as bytes.

        Without a name what a function returned; of another step a dict of all values that it recorded.
        """
        return LOOP.run(self.async_step.value(name))

    def __repr__(self) -> str:
        return f"<Step {self.label} {self.state}>"
