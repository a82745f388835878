"""Calls of functions that share warm jobs: what one is, what became of it, and how many go where.

Synchronous and without I/O; :mod:`perijove_hub.workflows.pool` acts on it.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any

from perijove.model import Attempt, Job, JobSpec, Outcome, Output, ReasonCode
from perijove_hub.jobs.retries import may_retry

AHEAD = 0.5
"""Seconds of work that a warm job is given ahead, as calls of the same functions took before."""
BUNDLE = 512
"""Calls that travel together at most."""
GROW = 2.0
"""Seconds of work for each warm job: starting one more takes about one."""
MOST = 256
"""Warm jobs of one kind and owner; quotas bind before."""
UNKNOWN = 1.0
"""Seconds that a call is thought to take of whose function none has ended."""
LEAST = 0.0002
"""A call takes so long at least, all that is round it included."""
MESSAGE = 4096
DEPTH = 50
"""Levels of a value, as of values that jobs record."""
_REASONS = {
    one.value: one
    for one in (
        ReasonCode.KILLED_BY_USER,
        ReasonCode.TIME_LIMIT,
        ReasonCode.SIGNALLED,
        ReasonCode.OUTPUT_MISSING,
    )
}


@dataclass(frozen=True, slots=True)
class Call:
    """One try at one step of a run.

    `spec`: what a job of its own would have; calls with the same one share warm jobs, so those alike should
    be given the same object. `call`: the content of ``call.json``, `inputs`: its files, name -> digest.
    """

    run: int
    label: str
    number: int
    owner: str
    spec: JobSpec
    function: str
    call: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    time_limit: float | None = None
    retries: int = 0

    @property
    def id(self) -> str:
        """Of this try, everywhere."""
        return f"{self.run}/{self.label}/{self.number}"

    @property
    def digests(self) -> Iterator[str]:
        """Files that it needs."""
        yield self.function
        yield from self.inputs.values()

    def message(self) -> dict[str, Any]:
        """As the warm job takes it."""
        content: dict[str, Any] = {"id": self.id, "function": self.function, "call": self.call}
        if self.inputs:
            content["inputs"] = dict(self.inputs)
        if self.time_limit is not None:
            content["time_limit"] = self.time_limit
        return content

    def again(self) -> Call:
        """The next try."""
        return replace(self, number=self.number + 1)


@dataclass(frozen=True, slots=True)
class Done:
    """How the last try of a step ended. A result that is JSON is a value only; others are in the store."""

    call: Call
    job: int | None
    """The warm job."""
    outcome: Outcome
    output: Output | None = None

    @property
    def retried(self) -> bool:
        """Whether there is to be another try."""
        return may_retry(
            self.call.spec.model_copy(update={"retries": self.call.retries}),
            self.call.number - 1,
            self.outcome,
        )


def failed(call: Call, job: int | None, reason: ReasonCode, message: str, ended: float) -> Done:
    """A call that came to nothing."""
    return Done(call, job, Outcome(reason=reason, message=message[:MESSAGE], ended=ended))


def done_of(call: Call, job: int, line: Mapping[str, Any], begun: float | None) -> Done:
    """What the journal says of a call's end. The line was written by the user's own process."""
    ended = _number(line.get("ended"))
    if "error" in line or "reason" in line:
        code = line.get("exit_code")
        outcome = Outcome(
            exit_code=code & 0xFF if isinstance(code, int) else None,
            reason=_REASONS.get(str(line.get("reason")), ReasonCode.NON_ZERO_EXIT),
            message=printable(str(line.get("error", "")))[:MESSAGE],
            started=begun,
            ended=ended,
        )
        return Done(call, job, outcome)
    good = Outcome(exit_code=0, started=begun, ended=ended)
    digest, size = line.get("digest"), line.get("size")
    if isinstance(digest, str) and isinstance(size, int):
        return Done(call, job, good, Output(digest=digest, size=size, name="result.pkl"))
    if "value" in line and _shallow(line["value"], DEPTH):
        return Done(call, job, good, Output(value=line["value"], valued=True))
    said = "the warm job did not say what it returned"
    return Done(call, job, replace(good, exit_code=None, reason=ReasonCode.OUTPUT_MISSING, message=said))


def unknown(call: Call, job: Job, ended: float) -> Done:
    """A call that had begun when its warm job ended."""
    code = job.reason.code if job.reason else None
    reason = code if code in {ReasonCode.OUT_OF_MEMORY, ReasonCode.KILLED_BY_USER} else ReasonCode.NODE_LOST
    why = f" ({job.reason.message})" if job.reason and job.reason.message else ""
    return failed(
        call,
        job.id,
        reason,
        f"job {job.id}, in which it ran, has ended{why}: how far it had come is not known",
        ended,
    )


def printable(text: str) -> str:
    """`text` without what a terminal or a database would trip over."""
    clean = "".join(c if c.isprintable() else " " for c in text[: 4 * MESSAGE])
    return clean.encode("utf-8", "replace").decode()


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _shallow(value: Any, depth: int) -> bool:
    if isinstance(value, list | dict):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_shallow(one, depth - 1) for one in inner)
    return True


@dataclass(slots=True, eq=False)
class Warm:
    """A warm job, and the calls that it was sent and has not ended."""

    job: int
    attempt: Attempt | None = None
    """None until it runs."""
    node: str = ""
    sent: dict[str, Call] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    untold: dict[str, Call] = field(default_factory=dict)
    """Of those, the ones that it may not have got: it is told again."""
    offset: int = 0
    """In its journal: what lies before is durable here."""
    reread: bool = False
    """Its journal is to be read from the start: it may say something of calls that were not known."""
    contents: set[str] = field(default_factory=set)
    """Files that it was given."""
    cancels: set[int] = field(default_factory=set)
    """Runs of which it is to make no more calls."""
    over: bool = False
    closing: float | None = None
    """When it is given no more calls, since its time runs out."""
    ended: int = 0
    """Calls that ended in it."""

    def takes(self, now: float) -> bool:
        """Whether it is to have more calls."""
        return self.attempt is not None and not self.over and (self.closing is None or now < self.closing)


class Line:
    """The calls of one owner and kind that wait, fairly between runs, and the warm jobs for them."""

    def __init__(
        self, owner: str, spec: JobSpec, killed: Set[int] = frozenset(), held: Set[int] = frozenset()
    ) -> None:
        self.owner, self.spec = owner, spec
        self.killed, self.held = killed, held
        """Runs of which nothing is to be made any more, or for now."""
        self.warm: set[Warm] = set()
        self.starting = 0
        """Warm jobs that are being submitted."""
        self.barren = 0
        """So many ended one after another without having made a call."""
        self.barren_at = 0.0
        """When that was counted last; those that were submitted before do not count."""
        self._waiting: dict[int, deque[Call]] = {}
        self._held: dict[int, deque[Call]] = {}
        self._functions: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def add(self, calls: Iterable[Call], *, first: bool = False) -> None:
        """Let calls wait, in front of others of their run if `first`."""
        for call in reversed(list(calls)) if first else calls:
            held = call.run in self.held
            line = (self._held if held else self._waiting).setdefault(call.run, deque())
            (line.appendleft if first else line.append)(call)
            if not held:
                self._functions[call.function] += 1

    def hold(self, run: int) -> None:
        """Let the calls of a run wait until :meth:`release`."""
        if (line := self._waiting.pop(run, None)) is not None:
            self._held.setdefault(run, deque()).extend(line)
            self._functions.subtract(call.function for call in line)

    def release(self, run: int) -> None:
        """Let them go on, once the run is not held any more."""
        self.add(self._held.pop(run, ()))

    def drop(self, run: int | None = None) -> list[Call]:
        """Take away all calls of a run, or all there are."""
        runs = [one for one in self._waiting if run is None or one == run]
        dropped = [call for one in runs for call in self._waiting.pop(one)]
        self._functions.subtract(call.function for call in dropped)
        for one in [one for one in self._held if run is None or one == run]:
            dropped += self._held.pop(one)
        return dropped

    @property
    def empty(self) -> bool:
        """Whether no call waits, not even one that is held."""
        return not self._waiting and not self._held

    def take(self, warm: Warm) -> list[Call]:
        """The next calls for a warm job: as many as keep it busy for a moment, of each run in turn."""
        load = sum(self.seconds(call.function) for call in warm.sent.values())
        if warm.sent and (load > AHEAD / 2 or len(warm.sent) > BUNDLE):
            return []
        taken: list[Call] = []
        while self._waiting and len(taken) < BUNDLE and (load < AHEAD or not (taken or warm.sent)):
            run, line = next(iter(self._waiting.items()))
            call = line.popleft()
            del self._waiting[run]
            if line:
                self._waiting[run] = line
            self._functions[call.function] -= 1
            load += self.seconds(call.function)
            taken.append(call)
        return taken

    def seconds(self, function: str) -> float:
        """How long a call of it is thought to take."""
        return self._seconds.get(function, UNKNOWN)

    def took(self, function: str, seconds: float) -> None:
        """One took so long."""
        before = self._seconds.get(function, seconds)
        self._seconds[function] = max(LEAST, 0.8 * before + 0.2 * seconds)

    def takes(self, function: str, seconds: float) -> None:
        """One takes so long, and has not ended."""
        self._seconds[function] = max(self.seconds(function), seconds)

    def lacking(self) -> int:
        """How many more warm jobs to ask for now: each time at most as many as work already."""
        if not len(self):
            return 0
        work = sum(self.seconds(function) * count for function, count in self._functions.items() if count > 0)
        sent = sum(len(warm.sent) for warm in self.warm)
        wanted = min(math.ceil(work / GROW), len(self) + sent, MOST)
        here = [warm for warm in self.warm if not warm.over]
        working = sum(warm.ended > 0 or bool(warm.begun) for warm in here)
        coming = sum(warm.attempt is None for warm in here) + self.starting
        room = max(1, working) - coming
        return max(0, min(max(1, wanted) - len(here) - self.starting, room))


def kind_of(spec: JobSpec) -> str:
    """What a warm job is, as text: calls of equal ones may share it."""
    return warm_spec(spec, 0).model_dump_json(exclude_defaults=True)


def warm_spec(spec: JobSpec, idle: float) -> JobSpec:
    """The spec of a warm job for calls whose own jobs would have `spec`.

    It ends when it had nothing to do for `idle` seconds.
    """
    assert spec.command
    return spec.model_copy(
        update={
            "command": [*spec.command[:-1], "pool", "--idle", f"{idle:g}"],
            "name": "shared functions",
            "inputs": {},
            "outputs": {},
            "time_limit": None,
            "signal": None,
            "retries": 0,
            "retry_on": [],
            "oom_retry": None,
            "labels": {},
            "hold": False,
            "cache": False,
        }
    )
