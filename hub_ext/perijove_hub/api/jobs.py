"""``/jobs``: submit, look, act."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request
from fastapi.responses import Response
from pydantic import TypeAdapter

from perijove.model import (
    ConflictError,
    FieldError,
    InvalidSpecError,
    Job,
    JobSpec,
    State,
    UserError,
)
from perijove.model.validation import parse_spec, parse_specs
from perijove_hub.admission import Admitted, admit
from perijove_hub.admission.files import files_of
from perijove_hub.api.bodies import read_body
from perijove_hub.api.desk import asker_of, site_of
from perijove_hub.api.finding import Who, controller_of, find
from perijove_hub.jobs import arrays
from perijove_hub.jobs.controller import Controller

router = APIRouter()
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]

_jobs: TypeAdapter[list[Job]] = TypeAdapter(list[Job])
NODE_PATIENCE = 15.0
"""Seconds a submission waits for a first node after the service has started."""


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


_SPEC = {"$ref": "#/components/schemas/JobSpec"}


@router.post("/jobs", status_code=201, response_model=Job, openapi_extra=_body(_SPEC))
async def submit(
    request: Request, caller: Who, owner: str | None = None, idempotency_key: Key = None
) -> Response:
    """Submit one job; answered when it is durable.

    A request repeated with the same ``Idempotency-Key`` answers with the job of the first.
    """
    spec = parse_spec(await read_body(request, request.app.state.settings.max_body))
    jobs = await _submit(request, caller.owner(owner), [spec], idempotency_key)
    return _json(jobs[0].model_dump_json(), 201)


@router.post(
    "/jobs/bulk",
    status_code=201,
    response_model=list[Job],
    openapi_extra=_body({"type": "array", "items": _SPEC, "minItems": 1, "maxItems": 10_000}),
)
async def submit_many(
    request: Request, caller: Who, owner: str | None = None, idempotency_key: Key = None
) -> Response:
    """Submit many jobs, all or none."""
    specs = parse_specs(await read_body(request, request.app.state.settings.max_body))
    if not 1 <= len(specs) <= 10_000:
        raise UserError(f"between 1 and 10000 jobs at once, not {len(specs)}")
    jobs = await _submit(request, caller.owner(owner), specs, idempotency_key)
    return _json(_jobs.dump_json(jobs), 201)


async def _submit(request: Request, owner: str, specs: list[JobSpec], key: str | None) -> list[Job]:
    """Submit `specs`, once for each `key`: a repetition answers with the jobs of the first."""
    controller = controller_of(request)
    if key is None:
        return await _accept(controller, owner, specs, None)
    async with controller.one_at_a_time(owner, key):
        given = await controller.submitted(owner, key)
        if given is None:
            return await _accept(controller, owner, specs, {"owner": owner, "key": key})
        return given


async def _accept(
    controller: Controller, owner: str, specs: list[JobSpec], submission: dict[str, Any] | None
) -> list[Job]:
    settings, database = controller.settings, controller.database
    if not controller.joined.is_set():
        await first_node(controller)
    coming = sum(arrays.size(spec) or 1 for spec in specs)
    if controller.board.waiting + coming > settings.max_pending:
        raise ConflictError(
            f"{controller.board.waiting} jobs wait already; at most {settings.max_pending} may"
        )
    known = await _known(controller, owner, specs)
    digests = {digest for spec in specs for digest in files_of(spec).values()}
    owned = {d for d in digests if await asyncio.to_thread(database.owns, owner, d)}
    owned -= await controller.keeper.hold(owned)
    identity, asker = controller.identify(owner), asker_of(controller, owner)
    site, now = site_of(controller), controller.clock()
    admitted, errors = [], []
    for i, spec in enumerate(specs):
        try:
            admitted.append(admit(spec, asker, identity, site, now=now, owns=owned.__contains__, known=known))
        except InvalidSpecError as error:
            prefix = f"{i}." if len(specs) > 1 else ""
            errors += [FieldError(prefix + e.field, e.value, e.message) for e in error.errors]
    if not errors:
        wanted = [(one.spec, arrays.size(one.spec) or 1) for one in admitted]
        errors = controller.board.standing.refusals(owner, wanted, now)
    if errors:
        raise InvalidSpecError(errors=errors[:50])
    ids = controller.board.new_ids([arrays.size(one.spec) for one in admitted])
    jobs = [_new_job(i, owner, one, now) for i, one in zip(ids, admitted, strict=True)]
    return await controller.submit(jobs, known, submission=submission)


def _new_job(job_id: int, owner: str, admitted: Admitted, now: float) -> Job:
    spec = admitted.spec
    return Job(
        id=job_id,
        owner=owner,
        name=spec.title,
        state=State.HELD if spec.hold else State.PENDING,
        launcher=admitted.launcher,
        partition=admitted.partition,
        submitted=now,
        spec=spec,
    )


async def first_node(controller: Controller) -> None:
    """Wait a while for a first node, when none has joined yet."""
    try:
        await asyncio.wait_for(controller.joined.wait(), NODE_PATIENCE)
    except TimeoutError:
        return  # admission says so


async def _known(controller: Controller, owner: str, specs: list[JobSpec]) -> dict[int, Job]:
    """The caller's own jobs that `specs` depend on."""
    wanted = {ref for spec in specs for d in spec.depends_on for ref in (str(d.job), d.label)}
    found = [await find(controller, ref) for ref in sorted(wanted)]
    return {job.id: job for job in found if job is not None and job.owner == owner}


def _json(body: str | bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")
