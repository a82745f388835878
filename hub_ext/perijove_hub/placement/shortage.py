"""Why a shape starts nowhere now: what is missing where the least is, in one sentence with the figures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perijove.model import Reason, ReasonCode, format_size
from perijove.model.spec import MIB, TMP_DISK
from perijove_hub.placement.access import Access
from perijove_hub.placement.choice import Choice
from perijove_hub.placement.claims import Claims
from perijove_hub.placement.request import CORE, Request, amount
from perijove_hub.placement.table import Mask, NodeTable, some_names


def shortage(table: NodeTable, request: Request, claims: Claims | None = None) -> NDArray[np.float64]:
    """How far each node is from having room for one member: the worst of its missing shares, 0 to 1.

    With `claims`, what is kept for others counts as taken.
    """
    cpu, memory = table.cpu, table.memory
    if claims is not None and claims.cpu is not None and claims.memory is not None:
        cpu, memory = cpu - claims.cpu, memory - claims.memory
    short = np.maximum(_missing(request.cpu, cpu), _missing(request.memory, memory))
    if request.gpus.count:
        np.maximum(short, _missing(request.gpus.count, table.free_gpus(request.gpus)), out=short)
    for name, count in request.resources:
        np.maximum(short, _missing(count, table.free_units(name)), out=short)
    if request.exclusive:
        np.maximum(short, np.where(table.jobs > 0, table.jobs / (table.jobs + 1.0), 0.0), out=short)
    short[table.closed] = 1.0
    return short


def _missing(asked: int, free: NDArray[np.int64]) -> NDArray[np.float64]:
    missing: NDArray[np.float64] = np.clip((asked - np.maximum(free, 0)) / asked, 0.0, 1.0)
    return missing


def why(choice: Choice, members: int, table: NodeTable, claims: Claims, access: Access) -> Reason:
    """Why no (more) members of the shape start in this pass. `members`: so many start together."""
    grant, request = choice.grant, choice.request
    if grant.reason is not None:
        return grant.reason
    up = choice.suited & table.up
    if np.count_nonzero(up) < members:
        return _not_up(choice.suited, members, table)
    if np.count_nonzero(choice.able) < members:
        return _too_small(request, up, members, table)
    if np.count_nonzero(choice.nodes) < members:
        keepers = " and ".join(access.kept(name) for name in grant.keepers)
        text = f"nodes that could run it are kept for others: {keepers}"
        return Reason(code=ReasonCode.RESERVATION, message=text)
    free = choice.nodes & table.fits(request)
    fitting = int(np.count_nonzero(free))
    if fitting >= members:
        return _kept(free, table, claims)
    if members > 1:
        text = f"waits for {members} nodes with {_asked(request)} free each ({fitting} have)"
        return Reason(code=ReasonCode.RESOURCES, message=text)
    short = np.where(choice.nodes, shortage(table, request), np.inf)
    best = int(np.argmin(short))
    missing = " and ".join(_lacks(request, best, table))
    return Reason(code=ReasonCode.RESOURCES, message=f"waits for {missing} on {table.names[best]}")


def _not_up(suited: Mask, members: int, table: NodeTable) -> Reason:
    names = [table.names[row] for row in np.flatnonzero(suited)]
    known = some_names(names) or "none is known"
    if members > 1:
        up = int(np.count_nonzero(suited & table.up))
        text = f"{up} of the {members} nodes it needs are up, of those that could run it ({known})"
    else:
        text = f"no node that could run it is up ({known})"
    return Reason(code=ReasonCode.NODE_DOWN, message=text)


def _too_small(request: Request, up: Mask, members: int, table: NodeTable) -> Reason:
    able = int(np.count_nonzero(up & table.able(request)))
    wanted = f"{members} nodes that have" if members > 1 else "a node that has"
    text = f"waits for {wanted} {_asked(request)}; of those that are up and could run it {able or 'none'} has"
    return Reason(code=ReasonCode.RESOURCES, message=text)


def _kept(free: Mask, table: NodeTable, claims: Claims) -> Reason:
    """It would fit, but those before it in the queue have a claim."""
    for row in claims.rows():
        if free[row] and (found := claims.on(row)):
            label, node = found[0].label, table.names[row]
            text = f"what is free on {node} is kept for job {label}, which is before it"
            return Reason(code=ReasonCode.PRIORITY, message=text)
    return Reason(code=ReasonCode.PRIORITY, message="others are before it")


def _asked(request: Request) -> str:
    parts = [_cores(request.cpu), format_size(request.memory)]
    if request.gpus.count:
        parts.append(_gpus(request))
    parts += [amount(name, count) for name, count in request.resources]
    return ", ".join(parts)


def _cores(cpu: int) -> str:
    return f"{cpu / CORE:g} CPU{'' if cpu == CORE else 's'}"


def _gpus(request: Request) -> str:
    need = request.gpus
    model = f" {need.model}" if need.model else ""
    size = f" of {format_size(need.memory)}" if need.memory else ""
    return f"{need.count}{model} GPU{'' if need.count == 1 else 's'}{size}"


def _lacks(request: Request, row: int, table: NodeTable) -> list[str]:
    """What the node lacks, with what it has."""
    if table.closed[row]:
        return ["the job that has the node for itself"]
    short = []
    if request.cpu > (cpu := int(table.cpu[row])):
        short.append(f"{_cores(request.cpu)} ({max(0, cpu) / CORE:g} free)")
    if request.memory > (memory := int(table.memory[row])):
        short.append(f"{format_size(request.memory)} of memory ({format_size(max(0, memory))} free)")
    if request.gpus.count > (gpus := len(request.gpus.among(table.devices[row]))):
        short.append(f"{_gpus(request)} ({gpus} free)")
    for name, count in request.resources:
        if count > (units := int(table.free_units(name)[row])):
            free = format_size(max(0, units) * MIB) if name == TMP_DISK else max(0, units)
            short.append(f"{amount(name, count)} ({free} free)")
    if request.exclusive and (jobs := int(table.jobs[row])):
        short.append(
            f"the end of the {jobs} {'job' if jobs == 1 else 'jobs'} there, to have the node for itself"
        )
    return short
