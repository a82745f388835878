"""What is asked of the database about workflows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, or_, select

from perijove.model import Run, State
from perijove_hub.store.workflow_rows import RESULT, STEP, ResultLine, StepLine, result_of, run_of, step_of
from perijove_hub.store.workflow_tables import result, run, step

AT_ONCE = 500
"""Keys in one question: SQLite takes some thousands of values."""


@dataclass(frozen=True, slots=True)
class RunPage:
    """Which runs to list: newest first, ids below `before`."""

    states: tuple[State, ...] = ()
    owner: str | None = None
    project: str | None = None
    limit: int = 100
    before: int | None = None


class Workflows:
    """Reads; all is written by :meth:`perijove_hub.store.database.Database.commit`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, number: int) -> Run | None:
        """The run of that id, without its document."""
        found = self._runs(select(run).where(run.c.id == number))
        return found[0] if found else None

    def document(self, number: int) -> str | None:
        """A run's workflow as JSON."""
        with self._read() as connection:
            return connection.execute(select(run.c.document).where(run.c.id == number)).scalar()

    def live(self) -> list[Run]:
        """Every run that has not ended, by id."""
        return self._runs(select(run).where(run.c.final.is_(None)).order_by(run.c.id))

    def runs(self, page: RunPage) -> list[Run]:
        """One page of runs."""
        query = select(run).order_by(run.c.id.desc()).limit(page.limit)
        if page.before is not None:
            query = query.where(run.c.id < page.before)
        if page.owner is not None:
            query = query.where(run.c.owner == page.owner)
        if page.project is not None:
            query = query.where(run.c.project == page.project)
        if page.states:
            query = query.where(run.c.state.in_([state.value for state in page.states]))
        return self._runs(query)

    def ended_before(self, time: float, limit: int, *, archived: bool) -> list[Run]:
        """Runs that ended before a time and are not pinned, the oldest first."""
        old = (run.c.final.is_not(None), run.c.ended < time, run.c.pinned.is_(False))
        query = select(run).where(*old, run.c.archived.is_(archived)).order_by(run.c.ended, run.c.id)
        return self._runs(query.limit(limit))

    def steps(self, number: int) -> list[StepLine]:
        """All lines of a run, by step and element."""
        query = select(*(step.c[name] for name in STEP)).where(step.c.run == number)
        with self._read() as connection:
            return [step_of(row) for row in connection.execute(query)]

    def part(
        self, number: int, steps: Sequence[str], after: int, states: Sequence[str], limit: int
    ) -> list[StepLine]:
        """Lines of some steps of a run with larger items than `after`, the smallest first, in one of `states`
        (any, when there are none). At most :data:`AT_ONCE` steps.
        """
        query = select(*(step.c[name] for name in STEP)).where(
            step.c.run == number, step.c.step.in_(steps), step.c.item > after
        )
        if states:
            query = query.where(step.c.state.in_(states))
        with self._read() as connection:
            return [step_of(row) for row in connection.execute(query.order_by(step.c.item).limit(limit))]

    def results(self, keys: Iterable[str], owner: str) -> dict[str, ResultLine]:
        """What `owner` may take for these keys: their own, else anybody's that is sealed.

        Without ingredients.
        """
        found: dict[str, ResultLine] = {}
        mine = or_(result.c.owner == owner, result.c.sealed)
        for some in _chunks(list(dict.fromkeys(keys))):
            for line in self._results(select(*_TAKEN).where(result.c.key.in_(some), mine)):
                if line.key not in found or line.owner == owner:
                    found[line.key] = line
        return found

    def failed(self, keys: Iterable[str]) -> set[str]:
        """Those of `keys` that a failed step had."""
        found: set[str] = set()
        with self._read() as connection:
            for some in _chunks(list(dict.fromkeys(keys))):
                query = select(step.c.key).where(step.c.key.in_(some), step.c.state == "failed")
                found.update(connection.execute(query.distinct()).scalars())
        return found

    def latest(self, owner: str, workflow: str, steps: Sequence[str]) -> dict[str, ResultLine]:
        """The latest results of these steps, by label."""
        found: dict[str, ResultLine] = {}
        for some in _chunks(list(steps)):
            same = (result.c.owner == owner, result.c.workflow == workflow, result.c.step.in_(some))
            for line in self._results(select(*_RESULT).where(*same).order_by(result.c.at)):
                found[line.step] = line
        return found

    def results_of(self, number: int) -> list[ResultLine]:
        """Those that a run made and that are its owner's latest."""
        return self._results(select(*_RESULT).where(result.c.run == number))

    def _runs(self, query: Any) -> list[Run]:
        with self._read() as connection:
            return [run_of(row) for row in connection.execute(query)]

    def _results(self, query: Any) -> list[ResultLine]:
        with self._read() as connection:
            return [result_of(row) for row in connection.execute(query)]

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            yield connection


_RESULT = [result.c[name] for name in RESULT]
_TAKEN = _RESULT[:-1]


def _chunks(keys: list[str]) -> Iterator[list[str]]:
    for i in range(0, len(keys), AT_ONCE):
        yield keys[i : i + AT_ONCE]
