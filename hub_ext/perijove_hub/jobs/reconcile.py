"""What the database says runs on a node, and what the node says: the differences, as acts.

Safe to repeat at any time. Silence is never read as an end: only a node that answered, also when asked for
that very attempt, and does not know an attempt it was seen running makes that attempt lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from perijove.model import Attempt, Job, Outcome, ReasonCode, State
from perijove_hub.jobs.events import (
    Ended,
    Event,
    Launching,
    Resumed,
    Started,
    Suspended,
    Warned,
)
from perijove_hub.jobs.lifecycle import attempt_of
from perijove_spawners.protocol import Report, ReportKind

CLOCKS = 2.0
"""Seconds by which the clocks of nodes may differ from the service's."""


@dataclass(slots=True)
class Differences:
    """What to do about one node."""

    events: list[tuple[int, Event]] = field(default_factory=list)
    resend: list[int] = field(default_factory=list)
    """Jobs whose order the node has no record of: it may have been lost on the way."""
    stop: list[Attempt] = field(default_factory=list)
    """Attempts that should not, or no longer, run."""
    forget: list[Attempt] = field(default_factory=list)
    """Ends that the database holds already, or that no job of it claims."""
    adopt: list[Attempt] = field(default_factory=list)
    """Attempts newer than those on record: the database is older than what runs."""
    skip: list[Attempt] = field(default_factory=list)
    """Attempts of jobs that the database never knew, whose ids were given again: their numbers are taken."""


def compare(
    wanted: Iterable[Job],
    seen: Mapping[Attempt, Report],
    node: str,
    ours: AbstractSet[Attempt],
    find: Callable[[int], Job | None] = lambda _job: None,
) -> Differences:
    """The differences between the jobs `wanted` on `node` and what it has `seen`.

    `wanted` are jobs that were there when the node was asked and are in the same state still; `ours` all
    attempts that the database has on the node by now, also those sent since; `find` knows the live jobs.
    """
    found = Differences()
    for attempt, report in seen.items():
        if attempt not in ours:
            _not_ours(attempt, report, find(attempt.job), found)
    surpassed = {attempt.job for attempt in found.adopt}
    for job in wanted:
        if job.id in surpassed:
            continue
        attempt = attempt_of(job)
        report_of = seen.get(attempt)
        if report_of is None:
            _unknown(job, node, found)
            continue
        found.events += [(job.id, event) for event in events_of(report_of, asked=True)]
        if (job.kill_requested or job.requeue_requested) and report_of.kind is not ReportKind.ENDED:
            found.stop.append(attempt)
    return found


def _unknown(job: Job, node: str, found: Differences) -> None:
    if job.state is not State.STARTING:
        message = f"node {node} knows nothing of it any more"
        found.events.append((job.id, Ended(Outcome(reason=ReasonCode.NODE_LOST, message=message))))
    elif job.kill_requested or job.requeue_requested:
        found.stop.append(attempt_of(job))
    else:
        found.resend.append(job.id)


def _not_ours(attempt: Attempt, report: Report, job: Job | None, found: Differences) -> None:
    if job is not None and not job.state.ended and attempt.number > job.attempt:
        if report.at >= job.submitted - CLOCKS:
            found.adopt.append(attempt)
            return
        found.skip.append(attempt)
    (found.forget if report.kind is ReportKind.ENDED else found.stop).append(attempt)


def events_of(report: Report, *, asked: bool = False) -> list[Event]:
    """What a report means for the job, whichever reports before it were lost.

    `asked`: it says how the attempt stands now; else what happened to it.
    """
    match report.kind:
        case ReportKind.LAUNCHING:
            return [Launching(report.message)]
        case ReportKind.STARTED:
            started = Started(report.at, report.endpoint)
            return [started, Resumed()] if asked else [started]
        case ReportKind.SUSPENDED:
            return [Started(report.at, report.endpoint), Suspended()]
        case ReportKind.RESUMED:
            return [Resumed()]
        case ReportKind.WARNED:
            return [Warned(report.message)]
        case ReportKind.ENDED if report.outcome is not None:
            return [Ended(report.outcome)]
        case _:
            return []
