"""Where everybody stands: what waits, what is held, what was used. Kept by the board, change by change.

It has no clock and asks nobody: the simulator and the rehearsal drive it as the service does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perijove.model import FieldError, Job, JobSpec
from perijove_hub.accounting import DAY, GIB, HOUR, Allocation, Held, held_by
from perijove_hub.policy.account import Account, Amounts, fading
from perijove_hub.policy.guests import TermsOf, nobody
from perijove_hub.policy.quotas import Quotas
from perijove_hub.policy.recall import History
from perijove_hub.policy.refusals import refusals
from perijove_hub.policy.shares import Facts, Pair, Share, Shares

if TYPE_CHECKING:
    from perijove_hub.policy.document import Policy

SITE = ("site", "", "")


def keys_of(owner: str, project: str | None) -> tuple[tuple[str, str, str], ...]:
    """Names of the accounts that a job of `owner` in `project` belongs to."""
    return (
        ("user", owner, ""),
        ("member", owner, project or ""),
        ("project", "", project or ""),
        SITE,
    )


@dataclass(slots=True)
class _Holding:
    accounts: tuple[Account, ...]
    held: Held
    owner: str
    project: str | None
    since: float


class Standing:
    """See the module. `history`: the allocations of the last :attr:`horizon` seconds, and all open ones."""

    def __init__(self, policy: Policy, history: Iterable[Allocation] = ()) -> None:
        self.policy = policy
        self.terms_of: TermsOf = nobody
        self.capacity = 0.0
        """Cores of all nodes, as the board tells; ``multifactor`` measures a job's size by it."""
        self._rate = fading(policy.fairshare.half_life)
        self._accounts: dict[tuple[str, str, str], Account] = {}
        self._chains: dict[Pair, tuple[Account, ...]] = {}
        self._holdings: dict[int, _Holding] = {}
        self._disk: dict[int, tuple[tuple[Account, ...], int]] = {}
        self._days: dict[tuple[str, str | None], dict[int, tuple[float, float, float]]] = {}
        self._recall(list(history))

    @property
    def horizon(self) -> float:
        """How far back use matters, in seconds: the window, or ten half-lives (0.1 % of the weight)."""
        return max(self.policy.window, 10 * self.policy.fairshare.half_life)

    def adopt(self, policy: Policy) -> None:
        """Go on under another policy with the same facts.

        With another half-life what each account used is scaled alike, so that their order stays; a longer
        window fills as time passes, and at the next start from the history.
        """
        factor = policy.fairshare.half_life / self.policy.fairshare.half_life
        if factor != 1:
            latest = max((a.at for a in self._accounts.values() if a.at is not None), default=0.0)
            for account in self._accounts.values():
                account.settle(latest, self._rate, self.policy.window)
                account.faded = [value * factor for value in account.faded]
        self.policy = policy
        self._rate = fading(policy.fairshare.half_life)

    # ---- facts

    def waits(self, job: Job, count: int = 1) -> None:
        """`job`, or that many of its members, waits (is pending or held)."""
        for account in self._chain(job.owner, job.spec.project):
            account.pending += count

    def leaves(self, job: Job, count: int = 1) -> None:
        """It waits no longer: it starts, or ended without."""
        self.waits(job, -count)

    def holds(self, job: Job, now: float, held: Held | None = None) -> None:
        """`job` takes hold of `held`: by default what it asked for, or what a suspended job keeps.

        Holding twice is holding once. An exclusive job holds its whole node: say so in `held`.
        """
        if job.id in self._holdings:
            return
        what = held or held_by(job, self.policy.suspended_keep)
        self._hold(job.id, job.owner, job.spec.project, what, now)

    def releases(self, job: Job, now: float) -> None:
        """It holds nothing any more; it may never have."""
        holding = self._holdings.pop(job.id, None)
        if holding is None:
            return
        self._move(holding, -1, now)
        if job.state.ended:
            begin = holding.since if job.allocated is None else min(job.allocated, holding.since)
            self._note_day(job.owner, job.spec.project, holding.held, begin, now)

    def stores(self, job: Job, size: int) -> None:
        """The directories of `job` take `size` bytes now; 0 when they are gone."""
        chain, old = self._disk.pop(job.id, (self._chain(job.owner, job.spec.project), 0))
        for account in chain:
            account.disk += size - old
        if size:
            self._disk[job.id] = (chain, size)

    # ---- answers

    def shares(self, now: float) -> Shares:
        """How much each has used, for one pass."""
        return Shares(self.policy, self._facts(now))

    def gate(self, now: float, shares: Shares) -> Quotas:
        """What quotas let start now, for one pass; what it lets start is added to `shares`."""
        return Quotas(self.policy, self.account, now, shares, self.terms_of)

    def refusals(self, owner: str, specs: Sequence[tuple[JobSpec, int]], now: float) -> list[FieldError]:
        """Why these cannot be accepted together; each comes with its number of members (1 for a job)."""
        return refusals(self.policy, self.account, owner, specs, now, self.terms_of(owner))

    def account(self, kind: str, owner: str, project: str | None) -> Account:
        """Of a ``user``, a ``project``, a ``member`` (of the project) or the ``site``."""
        return self._accounts.get((kind, owner, project or "")) or Account()

    def remember(self, owner: str, used: Amounts, now: float) -> None:
        """Have `used` be what a user has used in all until `now`, also before the history begins."""
        self._chain(owner, None)
        self._accounts["user", owner, ""].remember(used, now)

    def disk(self, owner: str) -> int:
        """Bytes of all job directories of a user."""
        return self.account("user", owner, None).disk

    def report(self, now: float) -> list[Share]:
        """How all who are known stand, by project and name."""
        from perijove_hub.policy.tree import stand

        return stand(self.policy, self.shares(now))

    # ---- inside

    def _chain(self, owner: str, project: str | None) -> tuple[Account, ...]:
        found = self._chains.get((owner, project))
        if found is None:
            keys = keys_of(owner, project)
            found = tuple(self._accounts.setdefault(key, Account()) for key in keys)
            self._chains[(owner, project)] = found
        return found

    def _hold(self, job: int, owner: str, project: str | None, held: Held, now: float) -> None:
        holding = _Holding(self._chain(owner, project), held, owner, project, now)
        self._holdings[job] = holding
        self._move(holding, 1, now)

    def _move(self, holding: _Holding, sign: int, now: float) -> None:
        rate, window = self._rate, self.policy.window
        for account in holding.accounts:
            account.settle(now, rate, window)
            account.change(holding.held, sign)

    def _facts(self, now: float) -> Facts:
        weights, foresight = self.policy.fairshare.weights, self.policy.fairshare.foresight
        rate = self._rate

        def weigh(account: Account | None) -> float:
            if account is None:
                return 0.0
            used = account.faded_by(now, rate)
            return (
                weights.cpu * (used.cpu + account.cpu * foresight)
                + weights.memory * (used.memory + account.memory * foresight) / GIB
                + weights.gpu * (used.gpu + account.gpus * foresight)
            ) / HOUR

        accounts = self._accounts
        return Facts(
            member=lambda owner, project: weigh(accounts.get(("member", owner, project or ""))),
            project=lambda project: weigh(accounts.get(("project", "", project or ""))),
            known=lambda: list(self._chains),
            finished=lambda owner, project: self._days.get((owner, project), {}),
            capacity=self.capacity,
        )

    def _recall(self, allocations: Sequence[Allocation]) -> None:
        if not allocations:
            return
        rows: dict[Account, list[int]] = {}
        for row, one in enumerate(allocations):
            for account in self._chain(one.owner, one.project):
                rows.setdefault(account, []).append(row)
            if one.end is not None:
                held = Held(one.cpu, one.memory, one.gpus)
                self._note_day(one.owner, one.project, held, one.begin, one.end)
        history = History(allocations)
        for account, some in rows.items():
            history.fill(account, some, self._rate, self.policy.window)
        for one in allocations:
            if one.end is None:
                self._hold(one.job, one.owner, one.project, Held(one.cpu, one.memory, one.gpus), one.begin)

    def _note_day(self, owner: str, project: str | None, held: Held, begin: float, end: float) -> None:
        """For ``fairshare-godocker``."""
        today = int(end // DAY)
        for key in ((owner, None), ("", project)):
            days = self._days.setdefault(key, {})
            cpu, memory, seconds = days.get(today, (0.0, 0.0, 0.0))
            days[today] = (cpu + held.cpu, memory + held.memory / GIB, seconds + max(0.0, end - begin))
            if len(days) > self.policy.godocker.days + 1:
                del days[min(days)]
