"""One run of a workflow as a page: its graph, its steps, what they made and why they ran, and the buttons."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from perijove.dag import standing_of
from perijove.dag_text import Row, rows_of
from perijove.model import (
    FieldError,
    ForbiddenError,
    InvalidSpecError,
    NotFoundError,
    PerijoveError,
    Run,
    State,
    StepRun,
    UserError,
    Workflow,
)
from perijove_hub.api.finding import run_of, runs_of
from perijove_hub.api.records import capsule_of, crate_of, records
from perijove_hub.api.workflow_actions import Verb, act, own_run
from perijove_hub.identity import Caller
from perijove_hub.pages.queue import number
from perijove_hub.pages.render import form_token, pressed, render, visit
from perijove_hub.pages.run_parts import (
    IMAGES,
    ROWS,
    Made,
    data_uri,
    image_type,
    made_by,
    may_be_image,
    pictures,
    recorded,
    whys,
)
from perijove_hub.workflows.beginning import again, begin
from perijove_spawners.store import Store

router = APIRouter(include_in_schema=False)
DRAWN = 20_000
"""Steps and instances above which a page has only their sums."""
MANY = 2000
"""Above, the page renews itself less often."""
FIELDS = 12
"""Parameters that can be changed in the form; the command line takes any number."""


DOWNLOADS = (
    ("record", "Result records of its steps (JSON)"),
    ("capsule", "Capsule, to be run again elsewhere (zip)"),
    ("crate", "RO-Crate (zip)"),
)


@router.get("/workflows/{run_id}")
async def page(request: Request, run_id: str, ask: str = "", step: str = "", after: str = "") -> Response:
    """The page of one run."""

    async def show(caller: Caller) -> Response:
        run = await run_of(request, caller, number(run_id) or 0)
        steps = await runs_of(request).steps(run.id) if run.total <= DRAWN else []
        token = form_token(request)
        asked = question(ask, run)
        root = f"{request.app.state.settings.prefix}/"
        live = not run.state.ended
        made = made_by(steps)
        # A script of another page of the same origin may fetch this one: it gets no forms, and no images.
        images = await _images(request, made) if not live and token else []
        values = await asyncio.to_thread(_shown, run, steps, root, step, number(after) or 0)
        return render(
            request,
            caller,
            "workflow",
            title=f"run {run.id}",
            here="workflows",
            renewed=(15 if run.total > MANY else 4) if live and asked is None else None,
            run=run,
            token=token,
            asked=asked,
            verbs=[(verb, QUESTIONS[verb].text, QUESTIONS[verb].meaning) for verb in verbs_of(run)],
            made=made[:ROWS],
            made_more=max(0, len(made) - ROWS),
            images=images,
            **values,
        )

    return await visit(request, show)


def _shown(run: Run, steps: list[StepRun], root: str, only: str, after: int) -> dict[str, Any]:
    """What of the page follows from the run alone, at the time of its record."""
    now, workflow = time.time(), run.workflow
    rows: list[Row] = []
    following = None
    if workflow is not None and run.total <= DRAWN:
        if only in workflow.steps:
            rows = rows_of_step(workflow, only, steps)[after:]
            following = after + ROWS if len(rows) > ROWS else None
        else:
            rows, only = rows_of(workflow, steps), ""
    note = f"It has {run.total:,} steps: too many to be shown here." if run.total > DRAWN else ""
    return {
        "pictures": pictures(run, steps, root, now) if not note else [],
        "rows": rows[:ROWS],
        "left_out": 0 if following else max(0, len(rows) - ROWS),
        "following": following,
        "only": only if workflow is not None and only in workflow.steps else "",
        "note": note,
        "values": recorded(steps),
        "whys": whys(steps)[:ROWS],
        "downloads": DOWNLOADS if run.state.ended else DOWNLOADS[:1],
    }


def rows_of_step(workflow: Workflow, name: str, steps: list[StepRun]) -> list[Row]:
    """A row for each instance of one step."""
    one = workflow.steps[name].model_copy(update={"map": None})
    return [Row(step.label, standing_of(name, one, [step])) for step in steps if step.step == name]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked before a button does what it says; without `meaning` nothing is asked."""

    verb: str
    text: str
    question: str = ""
    meaning: str = ""
    fields: list[str] = field(default_factory=list)


QUESTIONS = {
    one.verb: one
    for one in (
        Question(
            "kill",
            "Kill",
            "Kill this run?",
            "All of its steps are stopped. What has succeeded stays; the rest can be run by resuming it.",
        ),
        Question(
            "resume",
            "Resume",
            "Resume this run?",
            "What has not succeeded runs once more, in a new run that takes the results of the others. "
            "What depends on a parameter that you change runs again too.",
        ),
        Question("hold", "Pause"),
        Question("release", "Continue"),
        Question("pin", "Keep its results"),
        Question("unpin", "Keep its results no longer"),
    )
}


def question(verb: str, run: Run) -> Question | None:
    """What is asked before `verb` is done to `run`; None when that cannot be done, or nothing is asked."""
    asked = QUESTIONS.get(verb) if verb in verbs_of(run) else None
    if asked is None or not asked.meaning:
        return None
    return replace(asked, fields=list(run.parameters)[:FIELDS]) if verb == "resume" else asked


def verbs_of(run: Run) -> list[str]:
    """What can be done to it in its state."""
    found = []
    if not run.state.ended:
        found = ["kill", "release" if run.state is State.HELD else "hold"]
    elif run.state is not State.SUCCEEDED:
        found = ["resume"]
    return [*found, "unpin" if run.pinned else "pin"]


@router.post("/workflows/{run_id}")
async def press(request: Request, run_id: str) -> Response:
    """One of its buttons."""

    async def show(caller: Caller) -> Response:
        fields = await pressed(request)
        run, verb = await run_of(request, caller, number(run_id) or 0), fields.get("verb", "")
        if verb not in QUESTIONS:
            raise UserError(f"there is no such button; there are: {', '.join(QUESTIONS)}")
        target = await _do(request, caller, run, verb, fields)
        root = f"{request.app.state.settings.prefix}/"
        return RedirectResponse(f"{root}workflows/{target}", 303)

    return await visit(request, show)


async def _do(request: Request, caller: Caller, run: Run, verb: str, fields: Mapping[str, str]) -> int:
    """Do it; the run whose page is to be seen then."""
    if verb == "resume":
        ended = await own_run(request, caller, run.id)
        given = given_parameters(ended.workflow, fields) if ended.workflow is not None else {}
        resumed = await begin(runs_of(request), run.owner, again(ended, given, None), resumed_from=run.id)
        return resumed.id
    return (await act(request, caller, run.id, cast("Verb", verb))).id


def given_parameters(workflow: Workflow, fields: Mapping[str, str]) -> dict[str, Any]:
    """Parameters as the form has them: text where the workflow says so, else JSON; none where it is empty."""
    found: dict[str, Any] = {}
    for name, known in workflow.parameters.items():
        text = fields.get(f"p.{name}", "").strip()
        if not text:
            continue
        try:
            found[name] = text if known.type == "text" else json.loads(text)
        except ValueError:
            error = FieldError(f"parameters.{name}", text[:80], f"must be {known.type}, written as JSON")
            raise InvalidSpecError(errors=[error]) from None
    return found


@router.get("/workflows/{run_id}/output")
async def output(request: Request, run_id: str, step: str, name: str) -> Response:
    """A file that a step made, to be saved; for a browser that was led here, and not for a script."""

    async def show(caller: Caller) -> Response:
        if request.headers.get("sec-fetch-mode", "navigate") != "navigate":
            raise ForbiddenError(
                "outputs are downloaded by links of the page; scripts use /api/v1 with a token"
            )
        run = await run_of(request, caller, number(run_id) or 0)
        found = (await runs_of(request).step(run.id, step)).outputs.get(name)
        if found is None or found.digest is None:
            raise NotFoundError(f"step {step[:200]} of run {run.id} has no file {name[:200]}")
        if found.digest.startswith("sha256-tree:"):
            raise UserError(f"{name} is a folder; perijove fetches it")
        return await saved(request.app.state.store, found.digest, found.name or name)

    return await visit(request, show)


@router.get("/workflows/{run_id}/record")
async def record(request: Request, run_id: str) -> Response:
    """The result records of its steps, as JSON to be saved; the first ten thousand."""

    async def show(caller: Caller) -> Response:
        _led_here(request)
        found = await records(request, caller, number(run_id) or 0, limit=10_000)
        name = f"{found.run.id}.record.json"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(found.model_dump_json(indent=2), media_type="application/json", headers=headers)

    return await visit(request, show)


@router.get("/workflows/{run_id}/capsule")
async def capsule(request: Request, run_id: str) -> Response:
    """The run as a capsule."""

    async def show(caller: Caller) -> Response:
        _led_here(request)
        return await capsule_of(request, caller, number(run_id) or 0)

    return await visit(request, show)


@router.get("/workflows/{run_id}/crate")
async def crate(request: Request, run_id: str) -> Response:
    """The run as an RO-Crate."""

    async def show(caller: Caller) -> Response:
        _led_here(request)
        return await crate_of(request, caller, number(run_id) or 0)

    return await visit(request, show)


def _led_here(request: Request) -> None:
    """Raise :class:`ForbiddenError` for scripts: behind a hub those of others have the same origin."""
    if request.headers.get("sec-fetch-mode", "navigate") != "navigate":
        raise ForbiddenError("files are saved by links of the page; scripts use /api/v1 with a token")


async def saved(store: Store, digest: str, name: str) -> Response:
    """A file of the store as a download."""
    file = await asyncio.to_thread(store.open, digest)

    def pieces() -> Iterator[bytes]:
        with file:
            while piece := file.read(1 << 20):
                yield piece

    # RFC 8187: a header has no letters of its own beyond ASCII.
    disposition = f"attachment; filename*=UTF-8''{quote(name.rpartition('/')[2], safe='')}"
    headers = {"Content-Disposition": disposition}
    return StreamingResponse(pieces(), media_type="application/octet-stream", headers=headers)


async def _images(request: Request, made: list[Made]) -> list[tuple[Made, str]]:
    """The first images among outputs, each as a part of the page."""
    store: Store = request.app.state.store
    found = []
    for one in [one for one in made if may_be_image(one)][:IMAGES]:
        try:
            data = await asyncio.to_thread(_read, store, one.output.digest or "")
        except PerijoveError:
            continue
        if kind := image_type(data):
            found.append((one, data_uri(kind, data)))
    return found


def _read(store: Store, digest: str) -> bytes:
    with store.open(digest) as file:
        data: bytes = file.read()
    return data
