"""What a service's database says of a time: what came, what ran how long, on which nodes, under which policy.

Read only, also while the service runs. What a job would do is known from what it did: its run times are those
of its allocations, from placement to release. What never ran is taken to run half of its time limit.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, or_, select

from perijove.model import Job, Node, OperatorError, ReasonCode, State
from perijove_hub.accounting import Allocation
from perijove_hub.jobs import inventory
from perijove_hub.jobs.events import Change, Event, Hold, Kill, Release, Reschedule
from perijove_hub.policy.document import Policy, load
from perijove_hub.policy.standing import Standing
from perijove_hub.simulation.fleet import NodeChange, first_of
from perijove_hub.simulation.trace import Arrival, Run
from perijove_hub.store import tables
from perijove_hub.store.queries import overlapping
from perijove_hub.store.rows import allocation_of, job_of

if TYPE_CHECKING:
    from perijove_hub.store.database import Database

UNKNOWN = 3600.0
"""Seconds that a job runs of which nothing is known."""
_STEPS = ("submitted", "placed", "started", "preempted", "requeued", "ended")
_WISHES = ("held", "released", "kill", "reschedule", "changed")
_RETRIED = frozenset({"retry", "memory"})


@dataclass
class Record:
    """A time of a service."""

    since: float
    until: float
    nodes: list[Node]
    changes: list[NodeChange]
    policy: Policy
    policies: list[tuple[float, Policy]]
    """Those applied later, and when."""
    maintenance: list[tuple[float, str | None]]
    history: list[Allocation]
    arrivals: list[Arrival]
    present: list[Job]
    """Live at the beginning, as they were."""
    states: dict[int, dict[int, State]]
    """Of the groups among them: task -> state."""
    of: dict[int, Arrival]
    """What is known of those present."""
    past: dict[int, Job]
    """Ended before; others depend on them."""
    moments: list[float]
    starts: list[tuple[float, str]]
    """When which job was placed, in order."""


@dataclass(slots=True)
class _Told:
    """The events of one job."""

    submitted: float | None = None
    placed: dict[int, float] = field(default_factory=dict)
    started: dict[int, float] = field(default_factory=dict)
    ends: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    preempted: set[int] = field(default_factory=set)
    wishes: list[tuple[float, Event]] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields that were changed later -> their first value."""


def read(database: Database, since: float, until: float, otherwise: Policy) -> Record:
    """What happened between the two; `otherwise` is the policy where none had been applied.

    Raises ``OperatorError`` when nothing did.
    """
    with database.engine.connect() as connection:
        rows = _job_rows(connection, since, until)
        if not rows:
            raise OperatorError("since: no job was there in that time; give an earlier one")
        jobs = [job_of(row) for row in rows]
        told, starts = _told(connection, since, until)
        held = _allocations(connection, since - Standing(otherwise).horizon, until)
        past = _past(connection, jobs)
    policies = [(document.at, load(document.body)) for document in reversed(database.documents("policy"))]
    changes = _node_changes(database)
    attempts: dict[int, dict[int, list[Allocation]]] = defaultdict(lambda: defaultdict(list))
    for one in held:
        attempts[one.job][one.attempt].append(one)
    arrivals = _arrivals(jobs, told, attempts, until)
    present, states = _present(jobs, attempts, since)
    labels = {job.id: job.label for job in jobs}
    first = [policy for at, policy in policies if at <= since]
    here = {job.id for job in present}
    return Record(
        since=since,
        until=until,
        nodes=list(first_of(changes, since).values()),
        changes=[change for change in changes if change.at > since],
        policy=first[-1] if first else otherwise,
        policies=[(at, policy) for at, policy in policies if since < at <= until],
        maintenance=_maintenance(database, since, until),
        history=[one for one in held if one.end is not None and one.end <= since],
        arrivals=[one for one in arrivals if one.id not in here and one.at >= since],
        present=present,
        states=states,
        of={one.id: one for one in arrivals if one.id in here},
        past=past,
        moments=sorted({at for at, _ in starts}),
        starts=[(at, labels.get(number, str(number))) for at, number in starts],
    )


# ---- reading


def _job_rows(connection: Connection, since: float, until: float) -> Sequence[Any]:
    job = tables.job.c
    ended = or_(job.ended.is_(None), job.ended >= since, job.final.is_(None))
    groups = select(job.id).where(job.array_id.is_(None), job.submitted <= until, ended)
    top = select(tables.job).where(job.array_id.is_(None), job.submitted <= until, ended)
    members = select(tables.job).where(job.array_id.in_(groups))
    return [*connection.execute(top.order_by(job.id)), *connection.execute(members.order_by(job.id))]


def _told(
    connection: Connection, since: float, until: float
) -> tuple[dict[int, _Told], list[tuple[float, int]]]:
    """The events of each job, and who was placed when, in order."""
    event = tables.event.c
    columns = (event.job, event.at, event.event, event.attempt, event.state, event.detail)
    query = select(*columns).where(event.at >= since, event.at <= until, event.event.in_(_STEPS + _WISHES))
    found: dict[int, _Told] = defaultdict(_Told)
    starts = []
    for row in connection.execute(query.order_by(event.seq)):
        _note(found[row.job], row)
        if row.event == "placed":
            starts.append((row.at, row.job))
    return found, starts


def _note(told: _Told, row: Any) -> None:
    at, attempt = row.at, row.attempt
    waits = State(row.state) in {State.PENDING, State.HELD, State.KILLED}
    match row.event:
        case "submitted":
            told.submitted = at
        case "placed":
            told.placed[attempt] = at
        case "started":
            told.started[attempt] = at
        case "preempted":
            told.preempted.add(attempt)
        case "requeued" | "ended":
            told.ends[attempt] = (row.event, row.detail)
            if row.event == "ended" and "by" in row.detail and waits:
                told.wishes.append((at, Kill(row.detail["by"])))
        case "kill" if waits:
            told.wishes.append((at, Kill(row.detail.get("by", ""))))
        case "held":
            told.wishes.append((at, Hold(row.detail.get("by", ""))))
        case "released":
            told.wishes.append((at, Release(row.detail.get("by", ""))))
        case "reschedule":
            told.wishes.append((at, Reschedule(row.detail.get("by", ""))))
        case "changed":
            values = row.detail.get("changes", {})
            told.wishes.append((at, Change({name: new for name, (_, new) in values.items()}, "record")))
            for name, (old, _) in values.items():
                told.changes.setdefault(name, old)


def _allocations(connection: Connection, since: float, until: float) -> list[Allocation]:
    query = select(tables.allocation).where(or_(*overlapping(since, until)))
    return [allocation_of(row) for row in connection.execute(query.order_by(tables.allocation.c.began))]


def _past(connection: Connection, jobs: Iterable[Job]) -> dict[int, Job]:
    """Those that were waited for and are not among `jobs`."""
    known = {job.id for job in jobs}
    wanted = {on.job for job in jobs for on in job.spec.depends_on} - known
    found = {}
    for number in sorted(wanted):
        row = connection.execute(select(tables.job).where(tables.job.c.id == number)).first()
        if row is not None:
            found[number] = job_of(row)
    return found


def _node_changes(database: Database) -> list[NodeChange]:
    bodies = [document.body for document in reversed(database.documents(inventory.NODES))]
    return [NodeChange(at, node) for at, node in inventory.read(bodies)]


def _maintenance(database: Database, since: float, until: float) -> list[tuple[float, str | None]]:
    found: list[tuple[float, str | None]] = []
    for document in reversed(database.documents("maintenance")):
        body = json.loads(document.body)
        reason = body.get("reason") if body.get("on") else None
        if document.at <= since:
            found = [(since, reason)]
        elif document.at <= until:
            found.append((document.at, reason))
    return [one for one in found if one != (since, None)]


# ---- from rows to what comes


def _arrivals(
    jobs: Sequence[Job],
    told: Mapping[int, _Told],
    attempts: Mapping[int, Mapping[int, Sequence[Allocation]]],
    until: float,
) -> list[Arrival]:
    members: dict[int, list[Job]] = defaultdict(list)
    for job in jobs:
        if job.array_id is not None:
            members[job.array_id].append(job)
    nothing = _Told()
    found = []
    for job in jobs:
        if job.array_id is not None:
            continue
        mine = told.get(job.id, nothing)
        its = {
            one.id - job.id - 1: _runs(one, told.get(one.id, nothing), attempts.get(one.id, {}), until)
            for one in members[job.id]
        }
        spec = job.spec
        if mine.changes:
            spec = spec.model_copy(update=mine.changes)
        at = mine.submitted if mine.submitted is not None else job.submitted
        runs = _runs(job, mine, attempts.get(job.id, {}), until)
        everyone = [job, *members[job.id]]
        wishes = [
            (when, one.id - job.id, wish)
            for one in everyone
            for when, wish in told.get(one.id, nothing).wishes
        ]
        found.append(
            Arrival(
                at=at,
                owner=job.owner,
                spec=spec,
                runs=runs,
                members={index: some for index, some in its.items() if some},
                name=job.name,
                id=job.id,
                launcher=job.launcher or "",
                partition=job.partition,
                wishes=tuple(wishes),
            )
        )
    found.sort(key=lambda arrival: (arrival.at, arrival.id))
    return found


def _runs(
    job: Job, told: _Told, attempts: Mapping[int, Sequence[Allocation]], until: float
) -> tuple[Run, ...]:
    """Of its attempts in order; one run is made up for a job that had none."""
    found: list[Run] = []
    numbers = sorted(attempts)
    for number in numbers:
        some = attempts[number]
        begin = min(one.begin for one in some)
        ends = [one.end for one in some]
        launch = max(0.0, told.started.get(number, begin) - begin)
        if None in ends or number in told.preempted:
            found.append(Run(_guess(job, until - begin), launch=launch))
            continue
        end = max(one for one in ends if one is not None)
        reason, code = _reason(job, number, told)
        found.append(Run(max(0.0, end - begin - launch), reason, code, launch, begin, end))
    if not found:
        return (Run(_guess(job, 0.0)),)
    known = [run.seconds for run in found if run.ended is not None]
    if known:
        # One that was preempted would have run as long as the attempt that came through.
        found = [run if run.ended is not None else Run(known[-1], launch=run.launch) for run in found]
    return tuple(found)


def _guess(job: Job, least: float) -> float:
    limit = job.spec.time_limit
    return max(least, limit / 2 if limit is not None else UNKNOWN)


def _reason(job: Job, attempt: int, told: _Told) -> tuple[ReasonCode | None, int | None]:
    """Why an attempt ended: of the last one the job says it, of others their event."""
    if attempt == job.attempt and job.state.ended:
        if job.state is State.SUCCEEDED:
            return None, 0
        return (job.reason.code if job.reason is not None else ReasonCode.NON_ZERO_EXIT), job.exit_code
    kind, detail = told.ends.get(attempt, ("", {}))
    if kind == "requeued" and _RETRIED & detail.keys():
        code = detail.get("exit_code")
        if "memory" in detail:
            return ReasonCode.OUT_OF_MEMORY, code
        return (ReasonCode.NON_ZERO_EXIT if code else ReasonCode.NODE_LOST), code
    return None, 0


def _present(
    jobs: Sequence[Job], attempts: Mapping[int, Mapping[int, Sequence[Allocation]]], since: float
) -> tuple[list[Job], dict[int, dict[int, State]]]:
    """Who was live at `since`, as they were then."""
    found: list[Job] = []
    states: dict[int, dict[int, State]] = defaultdict(dict)
    for job in jobs:
        if job.submitted >= since:
            continue
        mine = attempts.get(job.id, {})
        begun = [number for number, some in mine.items() if some[0].begin < since]
        if job.array_id is not None and not begun and (job.ended is None or job.ended > since):
            continue  # no job of its own yet
        then = _as_of(job, {number: mine[number] for number in sorted(begun)}, since)
        if job.array_id is not None:
            states[job.array_id][job.array_task or 0] = then.state
        if not then.state.ended:
            found.append(then)
    live = {job.id for job in found}
    return [job for job in found if job.array_id is None or job.array_id in live], dict(states)


def _as_of(job: Job, begun: Mapping[int, Sequence[Allocation]], since: float) -> Job:
    """`begun`: its attempts until then."""
    if job.ended is not None and job.ended <= since and job.state.ended:
        return job
    number = max(begun, default=0)
    now = [one for one in begun.get(number, ()) if one.end is None or one.end > since]
    over = {one.node for some in begun.values() for one in some if one not in now}
    before: dict[str, Any] = {
        "ended": None,
        "exit_code": None,
        "kill_requested": False,
        "requeue_requested": False,
        "tasks": {},
        "attempt": number,
        "failures": min(job.failures, len(begun) - bool(now)),
        "failed_nodes": [node for node in job.failed_nodes if node in over],
        "kept": "all",
        "suspended_at": None,
        "reason": None,
    }
    if not now:
        state = State.HELD if job.state is State.HELD else State.PENDING
        off: dict[str, Any] = {
            "state": state,
            "started": None,
            "node": None,
            "gpus": [],
            "slots": {},
            "allocated": None,
        }
        return job.model_copy(update={**before, **off})
    last = number == job.attempt
    on = {"state": State.RUNNING, "node": now[-1].node, "allocated": now[-1].begin, "started": now[-1].begin}
    on |= {"gpus": job.gpus if last else [], "slots": job.slots if last else {}}
    return job.model_copy(update={**before, **on})
