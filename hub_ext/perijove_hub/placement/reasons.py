"""Why a job waits: the smallest set of things without which the next pass would start it.

First everything in the way is gathered: quotas, maintenance, reservations, and on the node where the least is
in the way what runs there; then the jobs before it. Of these only those are named without which the others do
not suffice (QuickXplain, Junker 2004).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from perijove.model import Blocker, BlockerKind, Reason, ReasonCode
from perijove_hub.ledger import Holding
from perijove_hub.placement.access import Access
from perijove_hub.placement.choice import Choice
from perijove_hub.placement.claims import Claims
from perijove_hub.placement.entry import Entry
from perijove_hub.placement.request import Request
from perijove_hub.placement.shortage import shortage
from perijove_hub.placement.situation import (
    Obstacle,
    Situation,
    decide,
    give_back,
    one_of,
    starts,
)
from perijove_hub.placement.table import Mask, NodeTable

NODES = 16
"""So many nodes are compared, those first that lack the least."""
EVERYBODY = "*"
"""Name of the blocker that stands for all jobs before it, when there are too many to name."""

_CODES = {
    BlockerKind.MAINTENANCE: ReasonCode.MAINTENANCE,
    BlockerKind.QUOTA: ReasonCode.QUOTA,
    BlockerKind.RESERVATION: ReasonCode.RESERVATION,
    BlockerKind.NODE: ReasonCode.NODE_DOWN,
    BlockerKind.JOB: ReasonCode.RESOURCES,
    BlockerKind.AHEAD: ReasonCode.PRIORITY,
}


def explain(entry: Entry, situation: Situation) -> Reason | None:
    """Why `entry` does not start in the next pass, with blockers; None when it does.

    Without exactly these blockers it would start, and without fewer it would not. Blockers are left out where
    no such set was found (nothing that could be removed would help).
    """
    ahead, all_known = situation.ahead(entry)
    if all_known and starts(entry, ahead, situation):
        return None
    alone = base(entry, situation)
    said = decide(entry, ahead if all_known else [], situation).reasons.get(entry.job.id)
    if alone is None:
        return said or Reason(code=ReasonCode.RESOURCES, message="no node could run it now")
    others = [_before(one) for one in ahead] if all_known else []
    everything = [*alone, *others]

    def enough(without: Sequence[Obstacle]) -> bool:
        return starts(entry, ahead if all_known else [], situation, without)

    if not enough(everything):
        return said or Reason(code=ReasonCode.RESOURCES, message="no node could run it now")
    needed = _needed(_fewest(everything, enough), enough)
    blockers = [obstacle.blocker for obstacle in needed]
    if not all_known:
        blockers.append(Blocker(kind=BlockerKind.AHEAD, name=EVERYBODY, message="the jobs before it"))
    return _reason(blockers, said)


def _reason(blockers: list[Blocker], said: Reason | None) -> Reason:
    code = next((code for kind, code in _CODES.items() if any(b.kind is kind for b in blockers)), None)
    if said is not None and (code is None or code is said.code):
        return said.model_copy(update={"blockers": blockers})
    message = "; ".join(blocker.message or blocker.name for blocker in blockers[:5])
    more = f" and {len(blockers) - 5} more" if len(blockers) > 5 else ""
    return Reason(code=code or ReasonCode.PRIORITY, message=message + more, blockers=blockers)


def _before(entry: Entry) -> Obstacle:
    label = entry.job.label
    blocker = Blocker(kind=BlockerKind.AHEAD, name=label, message=f"job {label} is before it")
    return Obstacle(blocker, entry=entry.job.id)


# ---- what would be in the way of it alone


def base(entry: Entry, situation: Situation) -> list[Obstacle] | None:
    """What keeps it from starting were it the only one in the queue; None when nothing can be named."""
    found = _rules(entry, situation)
    if starts(entry, [], situation, found):
        return found
    table = situation.table
    access = Access(situation.rules.policy, situation.rules.groups_of, table, situation.now)
    choice = Choice(entry.job, table.copy(), Claims(table), access, situation.now, True)
    found += [_reservation(name, access) for name in choice.grant.keepers]
    if starts(entry, [], situation, found):
        return found
    usable = choice.suited & table.able(choice.request)
    options = [_on(row, choice.request, situation) for row in _nearest(table, choice.request, usable)]
    possible = sorted((option for option in options if option is not None), key=len)
    if len(possible) < entry.job.spec.nodes:
        return None
    for option in possible[: entry.job.spec.nodes]:
        found += option
    return found if starts(entry, [], situation, found) else None


def _rules(entry: Entry, situation: Situation) -> list[Obstacle]:
    found = []
    if (why := situation.rules.maintenance) is not None:
        text = f"maintenance: {why}" if why else "maintenance"
        found.append(Obstacle(Blocker(kind=BlockerKind.MAINTENANCE, name="maintenance", message=text)))
    count, reason = situation.gate().room(entry.job)
    if reason is not None and count < one_of(entry).count:
        found += [Obstacle(blocker) for blocker in reason.blockers]
    return found


def _reservation(name: str, access: Access) -> Obstacle:
    text = f"nodes are kept for reservation {access.kept(name)}"
    return Obstacle(Blocker(kind=BlockerKind.RESERVATION, name=name, message=text))


def _nearest(table: NodeTable, request: Request, usable: Mask) -> Sequence[int]:
    short = np.where(usable, shortage(table, request), np.inf)
    short = np.where(table.up, short, short + 1.0)
    rows = np.argsort(short, kind="stable")[:NODES]
    return [int(row) for row in rows if usable[row]]


def _on(row: int, request: Request, situation: Situation) -> list[Obstacle] | None:
    """What has to go from one node before one member has room there."""
    table, name = situation.table.copy(), situation.table.names[row]
    found: list[Obstacle] = []
    if not table.up[row]:
        found.append(_down(table, row))
        table.up[row] = True
    left = list(situation.rules.holdings(name))
    gone: list[Holding] = []
    while table.room(row, request) < 1:
        if not left:
            return None
        best = min(left, key=lambda one: _short_without(table, row, request, one))
        left.remove(best)
        gone.append(best)
        give_back(table, row, best)
    for one in list(gone):  # an earlier one may no longer be needed
        trial = situation.table.copy()
        for other in gone:
            if other is not one:
                give_back(trial, row, other)
        if trial.room(row, request) >= 1:
            gone.remove(one)
    return found + [_held(one, name) for one in gone]


def _short_without(table: NodeTable, row: int, request: Request, one: Holding) -> tuple[float, int]:
    trial = table.copy()
    give_back(trial, row, one)
    return float(shortage(trial, request)[row]), one.job


def _down(table: NodeTable, row: int) -> Obstacle:
    node = table.nodes[row]
    state = "drained" if node.state == "drain" else node.state
    text = f"node {node.name} is {state}" + (f": {node.reason}" if node.reason else "")
    return Obstacle(Blocker(kind=BlockerKind.NODE, name=node.name, message=text), node=node.name)


def _held(one: Holding, node: str) -> Obstacle:
    label = one.label or str(one.job)
    text = f"job {label} of {one.owner} runs on {node}"
    return Obstacle(Blocker(kind=BlockerKind.JOB, name=label, message=text), node=node, holding=one)


# ---- the fewest of them


def _needed(found: list[Obstacle], enough: Callable[[Sequence[Obstacle]], bool]) -> list[Obstacle]:
    """Those of `found` without which the others do not suffice.

    The search takes it that what suffices still does with more gone. Rarely it does not: with one job more
    gone, one before it in the queue goes to another node.
    """
    for one in found:
        rest = [other for other in found if other is not one]
        if enough(rest):
            return _needed(rest, enough)
    return found


def _fewest(candidates: Sequence[Obstacle], enough: Callable[[Sequence[Obstacle]], bool]) -> list[Obstacle]:
    """A smallest part of `candidates` that suffices, in their order."""

    def search(kept: list[Obstacle], changed: bool, rest: list[Obstacle]) -> list[Obstacle]:
        if changed and enough(kept):
            return []
        if len(rest) == 1:
            return rest
        first, second = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        late = search(kept + first, bool(first), second)
        early = search(kept + late, bool(late), first)
        return early + late

    if not candidates or enough([]):
        return []
    return search([], False, list(candidates))
