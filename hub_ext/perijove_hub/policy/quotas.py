"""Quotas: what may be held at once, what may be used over the window, and what may wait.

What is over a concurrent limit waits; what could never start, or is over a limit on what waits or on what was
used, is refused at submission, with the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from perijove.model import Blocker, BlockerKind, Job, JobSpec, Reason, ReasonCode, format_size
from perijove_hub.accounting import GIB, HOUR
from perijove_hub.policy.guests import GuestTerms, TermsOf, nobody

if TYPE_CHECKING:
    from perijove_hub.policy.account import Account, Amounts
    from perijove_hub.policy.document import Limits, Policy
    from perijove_hub.policy.shares import Pair, Shares

EPSILON = 1e-6
"""Cores and hours are fractions; what rounding leaves over is over no limit."""
PLENTY = 1 << 62
"""As many as anybody could want."""

HOURS = (("cpu_hours", 1.0), ("memory_hours", GIB), ("gpu_hours", 1.0))
"""Budgets in the order of :class:`~perijove_hub.policy.account.Amounts`, with the unit of each."""


class Lookup(Protocol):
    """The account of a kind, owner and project."""

    def __call__(self, kind: str, owner: str, project: str | None) -> Account: ...


@dataclass(frozen=True, slots=True)
class Scope:
    """A set of limits that holds for a job, and the account it is measured by."""

    name: str
    """For people: ``user alice``."""
    key: tuple[str, str, str | None]
    limits: Limits
    ever: bool = False
    """Its hours are counted from the first job on, and not over the policy's window."""


def scopes(policy: Policy, owner: str, project: str | None, terms: GuestTerms | None = None) -> list[Scope]:
    """All limits that jobs of `owner` in `project` must keep, those without any left out.

    `terms`: of a guest.
    """
    user = policy.user(owner)
    found = [Scope(f"user {owner}", ("user", owner, None), user.limits)]
    if user.guest or terms is not None:
        found.append(Scope(f"guest {owner}", ("user", owner, None), policy.guests))
    if terms is not None:
        found.append(Scope(f"budget of guest {owner}", ("user", owner, None), terms.budget, ever=True))
    if project is not None and (rules := policy.projects.get(project)):
        found.append(Scope(f"project {project}", ("project", "", project), rules.limits))
        member = f"member {owner} of project {project}"
        found.append(Scope(member, ("member", owner, project), rules.limits_for(owner)))
    found.append(Scope("site", ("site", "", None), policy.site))
    return [scope for scope in found if scope.limits.any]


class Quotas:
    """What quotas let start, for one pass: a :class:`~perijove_hub.placement.plan.Gate`."""

    def __init__(
        self, policy: Policy, account: Lookup, now: float, shares: Shares, terms_of: TermsOf = nobody
    ) -> None:
        self._policy, self._account, self._now, self._shares = policy, account, now, shares
        self._terms_of = terms_of
        self._scopes: dict[Pair, list[Scope]] = {}
        self._taken: dict[tuple[str, str, str | None], list[float]] = {}
        self._alike: dict[tuple[object, ...], tuple[int, Reason | None]] = {}
        """Answers since the last start: of a user over quota thousands of jobs of one shape may wait."""

    def room(self, job: Job) -> tuple[int, Reason | None]:
        """How many of `job`'s members (1 for a plain job) may start now, and why not, when none may."""
        found = self._scopes_of(job)
        if not found:
            return PLENTY, None
        least = job.spec.nodes if job.array_id is None else 1
        shape = (job.owner, job.spec.project, needs(job.spec), least)
        if (answer := self._alike.get(shape)) is None:
            answer = self._alike[shape] = self._measure(found, job.spec, least)
        return answer

    def take(self, job: Job, count: int = 1) -> None:
        """That many of them start."""
        self._shares.commit(job, count)
        if not (found := self._scopes_of(job)):
            return
        self._alike.clear()
        for key in {scope.key for scope in found}:  # user and guest have one account
            taken = self._taken.setdefault(key, [0.0, 0.0, 0.0, 0.0])
            for i, need in enumerate(needs(job.spec)):
                taken[i] += need * count

    def _measure(self, found: list[Scope], spec: JobSpec, least: int) -> tuple[int, Reason | None]:
        most, blockers = PLENTY, []
        for scope in found:
            for count, blocker in self._room(scope, spec, least):
                most = min(most, count)
                if count < least:
                    blockers.append(blocker())
        if not blockers:
            return most, None
        message = "; ".join(blocker.message for blocker in blockers)
        return 0, Reason(code=ReasonCode.QUOTA, message=f"over quota: {message}", blockers=blockers)

    def _scopes_of(self, job: Job) -> list[Scope]:
        pair = (job.owner, job.spec.project)
        if (found := self._scopes.get(pair)) is None:
            every = scopes(self._policy, *pair, self._terms_of(job.owner))
            found = [scope for scope in every if scope.limits.gated]
            self._scopes[pair] = found
        return found

    def _room(self, scope: Scope, spec: JobSpec, least: int) -> Iterator[tuple[int, Callable[[], Blocker]]]:
        limits, account = scope.limits, self._account(*scope.key)
        taken = self._taken.get(scope.key, (0.0, 0.0, 0.0, 0.0))
        held = (account.cpu, account.memory, account.gpus, account.running)
        most = (limits.cpus, limits.memory, limits.gpus, limits.running)
        for i, need in enumerate(needs(spec)):
            limit = most[i]
            if limit is None or not need:
                continue
            used = held[i] + taken[i]
            count = int((limit - used + EPSILON) / need)
            yield max(0, count), _concurrent(scope, i, used, limit, need * least)
        if limits.budgeted:
            yield from self._budgets(scope, account, spec)

    def _budgets(
        self, scope: Scope, account: Account, spec: JobSpec
    ) -> Iterator[tuple[int, Callable[[], Blocker]]]:
        used = spent(scope, account, self._now, self._policy.window)
        for i, (field, unit) in enumerate(HOURS):
            limit = getattr(scope.limits, field)
            if limit is not None and needs(spec)[i]:
                hours = used[i] / unit / HOUR
                yield PLENTY if hours < limit - EPSILON else 0, _spent(scope, field, hours, limit)


def spent(scope: Scope, account: Account, now: float, window: float) -> Amounts:
    """What counts against the hours of `scope`."""
    return account.ever(now) if scope.ever else account.within(now, window)


CONCURRENT = ("cpus", "memory", "gpus", "running")


def needs(spec: JobSpec) -> tuple[float, float, float, float]:
    """What one member holds, in the order of CONCURRENT."""
    return spec.cpu, spec.memory, spec.gpus.count, 1


def figure(axis: int, value: float) -> str:
    """An amount of it for people."""
    return format_size(value) if axis == 1 else f"{round(value, 2):g}"


def _concurrent(scope: Scope, axis: int, used: float, limit: float, need: float) -> Callable[[], Blocker]:
    def blocker() -> Blocker:
        name = f"{scope.name}: {CONCURRENT[axis]}"
        text = f"{name} {figure(axis, used)} of {figure(axis, limit)}"
        if axis != 3:
            text += f", {figure(axis, need)} more asked for"
        return Blocker(kind=BlockerKind.QUOTA, name=name, message=text)

    return blocker


def _spent(scope: Scope, field: str, hours: float, limit: float) -> Callable[[], Blocker]:
    def blocker() -> Blocker:
        name = f"{scope.name}: {field}"
        return Blocker(
            kind=BlockerKind.QUOTA, name=name, message=f"{name} {round(hours, 2):g} of {limit:g} used"
        )

    return blocker
