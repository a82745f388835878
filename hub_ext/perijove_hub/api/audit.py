"""Who did what to what is not theirs: how acts get into the audit log, and how it is read."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel

from perijove.model import AuditEntry, ForbiddenError, Job, Run
from perijove.model.values import MAX_ID
from perijove_hub.api.finding import Who, controller_of
from perijove_hub.auditing import AuditLog
from perijove_hub.identity import Caller
from perijove_hub.store.audit import Wanted, entries

router = APIRouter()
MOST = 1000
"""Entries of one answer."""


async def record(
    request: Request,
    caller: Caller | str,
    act: str,
    subject: str,
    before: Any = None,
    after: Any = None,
    *,
    project: str | None = None,
) -> None:
    """`caller` does `act` to `subject`: returns when that is durable, and only then may it be done.

    An act that fails afterwards was tried. `subject` is a kind and a name (``node n1``, ``user ada``);
    `before` and `after` what changes, without secrets and environments. `project`: whose leads may read it.
    `caller` is a name where nobody is logged in yet. Raises :class:`UnavailableError`.
    """
    audit: AuditLog = request.app.state.audit
    who, token = (caller, "") if isinstance(caller, str) else (caller.name, caller.token)
    more = {"before": before, "after": after, "project": project}
    await audit.note(who, act, subject, address=address_of(request), token=token, **more)


async def record_on_job(
    request: Request, caller: Caller, act: str, job: Job, before: Any = None, after: Any = None
) -> None:
    """The same for a job, unless it is the caller's own."""
    role = caller.role(job)
    if role != "owner":
        said = {"owner": job.owner, "role": role, **(after or {})}
        await record(request, caller, act, f"job {job.label}", before, said, project=job.spec.project)


async def record_on_run(
    request: Request, caller: Caller, act: str, run: Run, before: Any = None, after: Any = None
) -> None:
    """The same for a run of a workflow."""
    if run.owner != caller.name:
        said = {"owner": run.owner, **(after or {})}
        await record(request, caller, act, f"run {run.id}", before, said, project=run.project)


def address_of(request: Request) -> str:
    """Where a request came from. What proxies say of it counts only of those in ``Settings.proxies``:
    the server has put it in place of theirs (``perijove_hub.app.serve``).
    """
    host = request.client.host if request.client is not None else ""
    return host.removeprefix("::ffff:")[:64]


class AuditPage(BaseModel):
    """Entries of the audit log."""

    entries: list[AuditEntry]
    next: int | None
    """What to ask for next as `before`, or as `after`; null: there are no more now."""


Name = Annotated[str | None, Query(max_length=200)]
Place = Annotated[int | None, Query(ge=0, le=MAX_ID)]


@router.get("/audit")
async def audit(
    request: Request,
    caller: Who,
    by: Name = None,
    act: Name = None,
    subject: Annotated[str | None, Query(max_length=200, description="`job 12`, or `node *`")] = None,
    since: Annotated[float | None, Query(ge=0, allow_inf_nan=False, description="by the epoch")] = None,
    before: Annotated[Place, Query(description="an entry's number: those before it")] = None,
    after: Annotated[Place, Query(description="those after it, the oldest first")] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
) -> AuditPage:
    """What administrators and leads did, the newest first. A lead sees what was done in their projects,
    without from where.
    """
    if not caller.admin and not caller.leads:
        raise ForbiddenError("only administrators and leads of projects may read the audit log")
    wanted = Wanted(
        by=by,
        act=act,
        subject=subject,
        projects=None if caller.admin else caller.leads,
        since=since,
        before=before,
        after=after,
        limit=limit,
    )
    database = controller_of(request).database
    found = await asyncio.to_thread(database.read, partial(entries, wanted=wanted))
    if not caller.admin:
        found = [entry.model_copy(update={"address": "", "token": ""}) for entry in found]
    return AuditPage(entries=found, next=found[-1].seq if len(found) == limit else None)
