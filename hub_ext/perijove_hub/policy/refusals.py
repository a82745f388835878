"""What quotas refuse at submission, with the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from perijove.model import FieldError, JobSpec, Kind, format_duration, format_size
from perijove_hub.accounting import HOUR
from perijove_hub.policy.guests import GuestTerms
from perijove_hub.policy.quotas import CONCURRENT, EPSILON, HOURS, Lookup, Scope, figure, needs, scopes, spent

if TYPE_CHECKING:
    from perijove_hub.policy.account import Account
    from perijove_hub.policy.document import Policy

Specs = Sequence[tuple[JobSpec, int]]
"""Each with its number of members: tasks of an array, nodes of a gang, else 1."""

FIELDS = ("cpu", "memory", "gpus", "nodes")
"""Of the spec, in the order of CONCURRENT."""


def refusals(
    policy: Policy,
    account: Lookup,
    owner: str,
    specs: Specs,
    now: float,
    terms: GuestTerms | None = None,
) -> list[FieldError]:
    """Why `specs`, new jobs of `owner`, cannot be accepted together; empty when they can.

    `terms`: of a guest.
    """
    by_scope: dict[str, tuple[Scope, list[tuple[JobSpec, int]]]] = {}
    known: dict[str | None, list[Scope]] = {}
    for spec, count in specs:
        if spec.project not in known:
            known[spec.project] = scopes(policy, owner, spec.project, terms)
        for scope in known[spec.project]:
            by_scope.setdefault(scope.name, (scope, []))[1].append((spec, count))
    found: dict[FieldError, None] = {}  # each once, in order
    for scope, some in by_scope.values():
        of_scope = account(*scope.key)
        found.update(dict.fromkeys(_too_large(scope, some)))
        found.update(dict.fromkeys(_too_many(scope, of_scope, some)))
        if (policy.over_budget == "refuse" or scope.ever) and scope.limits.budgeted:
            found.update(dict.fromkeys(_too_costly(scope, of_scope, some, now, policy.window)))
        found.update(dict.fromkeys(_too_full(scope, of_scope)))
    return [*found, *_too_full_home(owner, terms, specs)]


def _too_full_home(owner: str, terms: GuestTerms | None, specs: Specs) -> Iterator[FieldError]:
    """Notebook servers are let through: by them room can be made."""
    if terms is None or not terms.full or all(spec.kind is Kind.SERVER for spec, _ in specs):
        return
    used = f"{format_size(terms.disk_used or 0)} of {format_size(terms.disk or 0)}"
    text = f"the home of guest {owner} takes {used}; remove files there by a notebook server and try again"
    yield FieldError("", "", f"{text} in some minutes, or ask for more room")


def _too_large(scope: Scope, specs: Specs) -> Iterator[FieldError]:
    """Jobs that alone are over a concurrent limit, and so could never start."""
    for axis, name in enumerate(CONCURRENT):
        limit = getattr(scope.limits, name)
        if limit is None:
            continue
        for spec, _ in specs:
            asked = needs(spec)[axis] * spec.nodes
            if asked > limit + EPSILON:
                nodes = f" on {spec.nodes} nodes" if spec.nodes > 1 and axis != 3 else ""
                most = f"{name} {figure(axis, limit)}"
                text = f"{scope.name} may have at most {most} at once: it could never start"
                yield FieldError(FIELDS[axis], figure(axis, asked) + nodes, text)


def _too_many(scope: Scope, account: Account, specs: Specs) -> Iterator[FieldError]:
    limit = scope.limits.pending
    asked = sum(count for _, count in specs)
    if limit is not None and account.pending + asked > limit:
        field = "array" if any(spec.array for spec, _ in specs) else ""
        text = f"{scope.name}: pending {account.pending} of {limit}, {asked} more asked for"
        yield FieldError(field, str(asked), text)


def _too_costly(
    scope: Scope, account: Account, specs: Specs, now: float, window: float
) -> Iterator[FieldError]:
    used = spent(scope, account, now, window)
    for axis, (name, unit) in enumerate(HOURS):
        limit = getattr(scope.limits, name)
        wanting = [(spec, count) for spec, count in specs if needs(spec)[axis]]
        if limit is None or not wanting:
            continue
        hours = used[axis] / unit / HOUR
        asked = sum(
            needs(spec)[axis] / unit * count * (spec.time_limit or 0) / HOUR for spec, count in wanting
        )
        if hours + asked <= limit + EPSILON and hours < limit - EPSILON:
            continue
        period = "in all" if scope.ever else f"in {format_duration(window)}"
        text = f"{scope.name}: {name} {_hours(hours)} of {_hours(limit)} used {period}"
        if asked:
            text += f", {_hours(asked)} more asked for by the time limit"
        if scope.ever:
            text += "; ask who invited you, or an administrator, for more"
        elif asked > limit:
            text += ": never so many at once"
        else:
            # A little below, so that the same request is accepted then.
            goal = min(limit - asked, limit * 0.999) * unit * HOUR
            at = datetime.fromtimestamp(account.free_again(axis, goal, now, window), UTC)
            text += f"; enough are free again at {at:%Y-%m-%d %H:%M} UTC at the earliest"
        yield FieldError("time_limit" if asked else "", _hours(asked) if asked else "", text)


def _too_full(scope: Scope, account: Account) -> Iterator[FieldError]:
    limit = scope.limits.disk
    if limit is not None and account.disk >= limit:
        used = f"{format_size(account.disk)} of {format_size(limit)}"
        yield FieldError("", "", f"{scope.name}: disk {used} taken by job directories; archive or purge jobs")


def _hours(value: float) -> str:
    return f"{round(value, 2):g}"
