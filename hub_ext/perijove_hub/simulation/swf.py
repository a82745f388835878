"""The Standard Workload Format of the Parallel Workloads Archive, version 2.2, read and written.

https://www.cs.huji.ac.il/labs/parallel/workload/swf.html: one line for each job, 18 numbers, -1 for what is
not known; lines that begin with ``;`` are comments. Memory is in KiB for each processor. The order of time is
that of submission. Preceding jobs and think times (fields 17 and 18) are not honoured: the times of
submission are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from perijove.model import Job, JobSpec, OperatorError, ReasonCode, State
from perijove_hub.jobs import arrays
from perijove_hub.jobs.events import Kill
from perijove_hub.simulation.trace import Arrival, Run

if TYPE_CHECKING:
    from perijove_hub.jobs.pending import Pending

FIELDS = 18
FAILED, COMPLETED, CANCELLED = 0, 1, 5
KIB = 1024
LEAST_MEMORY = 4 << 20
USUAL_MEMORY = 64 << 20
"""Bytes for each processor, where the trace does not say."""


@dataclass(frozen=True, slots=True)
class Line:
    """The fields in their order, with the format's names; times in seconds."""

    job: int
    submit: float
    wait: float = -1
    run: float = -1
    processors: int = -1
    cpu_time: float = -1
    used_memory: float = -1
    requested_processors: int = -1
    requested_time: float = -1
    requested_memory: float = -1
    status: int = -1
    user: int = -1
    group: int = -1
    executable: int = -1
    queue: int = -1
    partition: int = -1
    preceding: int = -1
    think_time: float = -1


def read(path: Path, cores: int) -> Iterator[Arrival]:
    """What a trace submits, on nodes of so many cores: a larger job is a gang, on as few nodes as it takes.

    Raises ``OperatorError`` that names the line that is none.
    """
    try:
        with path.open() as file:
            for line in lines(file, str(path)):
                if (arrival := arrival_of(line, cores)) is not None:
                    yield arrival
    except UnicodeDecodeError as error:
        raise OperatorError(f"{path}: not text: {error}") from error


def lines(file: Iterable[str], name: str) -> Iterator[Line]:
    """The lines of a trace."""
    for number, text in enumerate(file, 1):
        words = text.split()
        if not words or words[0].startswith(";"):
            continue
        try:
            if len(words) != FIELDS:
                raise ValueError(f"{len(words)} fields, not {FIELDS}")
            values = [float(word) for word in words]
            if not all(abs(value) < 1e15 for value in values):
                raise ValueError("a number beyond all sense")
        except ValueError as error:
            raise OperatorError(f"{name}:{number}: {error}") from None
        yield _line(values)


def _line(values: Sequence[float]) -> Line:
    known: list[Any] = [kind(value) for kind, value in zip(_KINDS, values, strict=True)]
    return Line(*known)


_KINDS: Sequence[type[int] | type[float]] = [
    *(int, float, float, float, int, float, float, int, float, float),
    *([int] * 7),
    float,
]


def arrival_of(line: Line, cores: int) -> Arrival | None:
    """What a line submits; None: nothing that ever asked for processors."""
    wanted = line.requested_processors if line.requested_processors > 0 else line.processors
    if wanted <= 0:
        return None
    nodes = ceil(wanted / cores)
    each = ceil(wanted / nodes)
    memory = line.requested_memory if line.requested_memory > 0 else line.used_memory
    total = int(memory * KIB * each) if memory > 0 else USUAL_MEMORY * each
    asked = {
        "command": [f"executable{line.executable}" if line.executable > 0 else "job"],
        "cpu": each,
        "nodes": nodes,
        "memory": max(LEAST_MEMORY, total),
        "time_limit": line.requested_time if line.requested_time > 0 else None,
        "project": f"group{line.group}" if line.group >= 0 else None,
    }
    never = line.run < 0
    reason = ReasonCode.NON_ZERO_EXIT if line.status == FAILED else None
    if line.status == CANCELLED:
        reason = ReasonCode.KILLED_BY_USER
    owner = f"user{line.user}" if line.user >= 0 else "unknown"
    wishes = ((line.submit + max(0.0, line.wait), 0, Kill(owner)),) if never and line.wait >= 0 else ()
    if never and not wishes:
        return None
    queue = f"queue{line.queue}" if line.queue >= 0 else None
    run = Run(max(0.0, line.run), reason)
    return Arrival(line.submit, owner, JobSpec.model_validate(asked), (run,), partition=queue, wishes=wishes)


class Recorder:
    """Watches a simulation and writes what happened as a trace; keeps one line for each job until then."""

    def __init__(self) -> None:
        self._lines: list[Line] = []
        self._users: dict[str, int] = {}
        self._groups: dict[str, int] = {}

    def __call__(self, _now: float, pending: Pending) -> None:
        """Note what ended."""
        for line, job in pending.published:
            gang = arrays.is_gang(job)
            over = (
                line.event == "array" and gang if arrays.is_group(job) else line.event == "ended" and not gang
            )
            if over and job.state.ended:
                self._lines.append(self._line(job))

    def write(self, file: TextIO) -> None:
        """All that has ended, by submission; ids of members of arrays are those of single jobs."""
        file.write("; Version: 2.2\n; Computer: simulated by Perijove\n")
        for number, name in enumerate(self._users, 1):
            file.write(f"; Note: user {number} is {name}\n")
        for line in sorted(self._lines, key=lambda line: (line.submit, line.job)):
            file.write(" ".join(f"{value:.3f}".rstrip("0").rstrip(".") for value in astuple(line)) + "\n")

    def _line(self, job: Job) -> Line:
        spec, ended = job.spec, job.ended or job.submitted
        started = job.started
        processors = ceil(spec.cpu) * spec.nodes
        status = COMPLETED if job.state is State.SUCCEEDED else FAILED
        if job.state in {State.KILLED, State.REJECTED}:
            status = CANCELLED
        project = spec.project
        return Line(
            job=job.id,
            submit=job.submitted,
            wait=round((started if started is not None else ended) - job.submitted, 3),
            run=round(ended - started, 3) if started is not None else -1,
            processors=processors if started is not None else -1,
            requested_processors=processors,
            requested_time=spec.time_limit if spec.time_limit is not None else -1,
            requested_memory=spec.memory // KIB // max(1, ceil(spec.cpu)),
            status=status,
            user=self._users.setdefault(job.owner, len(self._users) + 1),
            group=self._groups.setdefault(project, len(self._groups) + 1) if project else -1,
        )
