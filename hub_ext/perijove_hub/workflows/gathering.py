"""What the database and the store hold of a run's results. Everything here blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from perijove.model import Job, NotFoundError, ResultRecord, Run, StepRun
from perijove.model.trees import blob_of
from perijove_hub.identity import Caller
from perijove_hub.store.database import Database
from perijove_hub.workflows.capsule import Source
from perijove_hub.workflows.record import inputs_of, record_of, record_of_step
from perijove_spawners.store import Store


@dataclass(slots=True)
class Gatherer:
    """Reads for one answer. `base` is the URL of the REST interface."""

    database: Database
    store: Store
    base: str
    caller: Caller
    _jobs: dict[int, ResultRecord | None] = field(default_factory=dict)
    _sizes: dict[str, int | None] = field(default_factory=dict)

    def records(self, run: Run, steps: Sequence[StepRun]) -> Iterator[ResultRecord]:
        """The record of each of `steps`."""
        keys = [step.key for step in steps if step.cached_from is not None and step.key]
        makers = {key: line.job for key, line in self.database.workflows.results(keys, run.owner).items()}
        for step in steps:
            cached = step.cached_from is not None
            job = makers.get(step.key or "") if cached else step.job
            yield record_of_step(step, run.id, self._of_job(job) if job is not None else None)

    def _of_job(self, number: int) -> ResultRecord | None:
        if number not in self._jobs:
            job = self.database.job(number)
            self._jobs[number] = self._seen(job) if job is not None else None
        return self._jobs[number]

    def _seen(self, job: Job) -> ResultRecord:
        """A sealed result may be taken from somebody whose jobs are not the caller's to see."""
        record = self.record(job)
        if self.caller.may_see(job):
            return record
        return record.model_copy(update={"job": None, "output_locations": {}})

    def record(self, job: Job) -> ResultRecord:
        """The record of a job."""
        history = self.database.events(job=job.id)
        urls = {digest: places for digest in job.outputs.values() if (places := self._urls(digest))}
        size = self.total(inputs_of(job).values())
        return record_of(self.caller.view(job), history, base=self.base, input_bytes=size, locations=urls)

    def total(self, digests: Iterable[str]) -> int:
        """Bytes of those of `digests` that the store has."""
        return sum(self.size(digest) or 0 for digest in set(digests))

    def size(self, digest: str) -> int | None:
        """Bytes, of a folder those of its files; None for what is gone."""
        if digest not in self._sizes:
            try:
                self._sizes[digest] = self.store.size(digest)
            except NotFoundError:
                self._sizes[digest] = None
        return self._sizes[digest]

    def _urls(self, digest: str) -> list[str]:
        url = self.store.url(digest)
        return [] if url.startswith("file:") else [url]  # a path on the service's disk is of no use elsewhere

    def source(self, owner: str) -> Source:
        """Contents that `owner` may hand on."""

        def size(digest: str) -> int | None:
            if not self.database.owns(owner, digest):
                return None
            return self.size(blob_of(digest))

        return Source(size, self.store.open_tree, lambda digest: self.store.open(blob_of(digest)))
