"""From a request to the controller, and from a reference to the job that it means to this caller."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.security.base import SecurityBase

from perijove.model import FieldError, Job, NotFoundError, Run, State, UserError
from perijove.model.values import MAX_ID
from perijove_hub.identity import HIDDEN, Caller, anybody_of, caller_of
from perijove_hub.jobs.controller import Controller
from perijove_hub.settings import Settings
from perijove_hub.workflows.runs import Runs


class _Token(SecurityBase):
    """A dependency of which the OpenAPI document says that it takes a bearer token (RFC 6750)."""

    def __init__(self, ask: Callable[[Request], Awaitable[Caller]]) -> None:
        self.model, self.scheme_name, self._ask = HTTPBearerModel(), "token", ask

    async def __call__(self, request: Request) -> Caller:
        return await self._ask(request)


Who = Annotated[Caller, Depends(_Token(caller_of))]
WhoOrLogin = Annotated[Caller, Depends(_Token(anybody_of))]
"""Of the few routes that are for the hub's login, which may use no other."""
JobId = Annotated[str, "12, or 12_7 for member 7 of array 12"]
Number = Annotated[int, Query(ge=0, le=MAX_ID)]


def controller_of(request: Request) -> Controller:
    """The application's controller."""
    controller: Controller = request.app.state.controller
    return controller


def public_url(request: Request) -> str:
    """Where people find this service, with its prefix and without a slash at the end.

    Behind a hub whose own URL is set that is known; else it is what this request called it.
    """
    settings: Settings = request.app.state.settings
    hub = settings.login.url if settings.mode == "hub" else ""
    return f"{hub or str(request.base_url).rstrip('/')}{settings.prefix}"


async def find(controller: Controller, ref: str) -> Job | None:
    """The job that `ref` (``12`` or ``12_7``) names, live or from the database."""
    return await controller.find(ref)


async def job_of(request: Request, caller: Caller, ref: str) -> Job:
    """The caller's job `ref`; :class:`NotFoundError` when there is none or it is not theirs.

    Its field ``workflow`` says that it is a run of a workflow.
    """
    job = await find(controller_of(request), ref)
    if job is None and re.fullmatch("[0-9]{1,18}", ref):
        run = await runs_of(request).find(int(ref))
        if run is not None and _sees(caller, run):
            text = f"{run.id} is a run of a workflow; see /workflows/{run.id}"
            raise NotFoundError(text, errors=[FieldError("workflow", ref, text)])
    return caller.must_see(job, ref)


def runs_of(request: Request) -> Runs:
    """The application's runs."""
    runs: Runs = request.app.state.runs
    return runs


async def run_of(request: Request, caller: Caller, number: int) -> Run:
    """A run that the caller may see; :class:`NotFoundError` when there is none or it is not theirs."""
    return _seen(caller, number, await runs_of(request).find(number) if 0 <= number <= MAX_ID else None)


async def bare_run_of(request: Request, caller: Caller, number: int) -> Run:
    """The same without its document, which of a large run takes long to read."""
    return _seen(caller, number, await runs_of(request).bare(number) if 0 <= number <= MAX_ID else None)


def _seen(caller: Caller, number: int, run: Run | None) -> Run:
    if run is None or not _sees(caller, run):
        raise NotFoundError(f"there is no run {number}")
    return run


def view_of(caller: Caller, run: Run) -> Run:
    """`run` without what nobody but its owner may know: environments hold tokens."""
    if run.owner == caller.name or run.workflow is None:
        return run
    steps = {
        name: step.model_copy(update={"env": dict.fromkeys(step.env, HIDDEN)}) if step.env else step
        for name, step in run.workflow.steps.items()
    }
    workflow = run.workflow.model_copy(update={"steps": steps, "defaults": {}})
    return run.model_copy(update={"workflow": workflow})


def _sees(caller: Caller, run: Run) -> bool:
    return caller.sees(run.owner) or run.project in caller.leads


def labels_of(given: list[str]) -> tuple[tuple[str, str], ...]:
    """``KEY=VALUE`` each. :class:`UserError` for anything else."""
    found = []
    for text in given:
        match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})=(.*)", text, re.ASCII)
        if match is None:
            raise UserError(f"label: must be KEY=VALUE, not {text[:80]!r}")
        found.append((match[1], match[2]))
    return tuple(found)


def states_of(given: list[str]) -> tuple[State, ...]:
    """Names of states, separated by commas; ``live`` stands for all that have not ended."""
    names = [part.strip() for text in given for part in text.split(",") if part.strip()]
    found: list[State] = []
    for name in names:
        if name == "live":
            found += [state for state in State if not state.ended]
        elif name in set(State):
            found.append(State(name))
        else:
            raise UserError(f"state: there is no state {name[:40]!r}; there are: live, {', '.join(State)}")
    return tuple(found)
