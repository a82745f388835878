"""From instances that are ready to jobs: filled in, looked for among the results, admitted, on the board."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perijove.model import (
    Capabilities,
    InvalidSpecError,
    Job,
    JobSpec,
    Reason,
    ReasonCode,
    State,
    StepState,
    UnavailableError,
)
from perijove_hub.admission import admit
from perijove_hub.admission.images import choose_image
from perijove_hub.api.desk import asker_of, site_of
from perijove_hub.jobs.controller import Controller
from perijove_hub.policy.quotas import scopes
from perijove_hub.workflows import filling, keys
from perijove_hub.workflows.filling import Filled
from perijove_hub.workflows.images import digest_of, is_pinned, platform_of
from perijove_hub.workflows.live import Live, Unit
from perijove_hub.workflows.resolve import Unread, Unresolvable

if TYPE_CHECKING:
    from perijove_spawners.store import Manifest

MIDDLE = 50
"""The priority of a run that changes nothing about its steps'."""


@dataclass(slots=True)
class Draft:
    """An instance on its way to a job."""

    unit: Unit
    made: Filled
    spec: JobSpec | None = None
    wrong: str = ""
    """Why it cannot be a job."""


@dataclass(slots=True)
class Drafts:
    """Some instances of one run."""

    some: list[Draft] = field(default_factory=list)
    unread: set[str] = field(default_factory=set)
    """Digests whose content has to be read before the others can be filled in."""
    later: list[Unit] = field(default_factory=list)


def draft(live: Live, units: Iterable[Unit]) -> Drafts:
    """Fill in `units`."""
    found = Drafts()
    for unit in units:
        try:
            made = filling.fill(live.step_of(unit), live.scope(unit))
        except Unread as wanted:
            found.unread.add(wanted.digest)
            found.later.append(unit)
        except Unresolvable as wrong:
            found.some.append(Draft(unit, Filled(), wrong=str(wrong)))
        else:
            found.some.append(Draft(unit, made))
    return found


def priority_of(step: int, run: int) -> int:
    """Of a step's job: its own, moved by as much as the run's differs from the middle."""
    return min(100, max(0, step + run - MIDDLE))


def specify(live: Live, one: Draft) -> None:
    """Make the job's spec; what is wrong with it is noted in the draft."""
    unit, step, run = one.unit, live.step_of(one.unit), live.run
    if unit.step not in live.bases:
        live.bases[unit.step] = filling.base_of(step)
    base = live.bases[unit.step]
    more: dict[str, Any] = {
        "name": live.label(unit),
        "priority": priority_of(step.priority, run.priority),
    }
    if run.project is not None:
        more["project"] = run.project
    if step.notebook is not None and run.cache != "use":  # nor what an earlier run had saved on its way
        more["env"] = {"PERIJOVE_CHECKPOINTS": run.cache, **one.made.texts.get("env", step.env)}
    if run.labels:
        more["labels"] = {**run.labels, **step.labels}
    try:
        one.spec = filling.spec_of(step, base, one.made, **more)
    except InvalidSpecError as error:
        one.wrong = str(error)


def key_of(
    controller: Controller, live: Live, one: Draft, code: Any, image_digest: str | None = None
) -> None:
    """Note what determines its result, as far as that is known before it runs."""
    unit, step = one.unit, live.step_of(one.unit)
    constant = live.constants.get(unit.step) if one.made.image == step.image else None
    if constant is None:
        constant = constant_of(controller, live, one, code, image_digest)
        if one.made.image == step.image and constant is not None:
            live.constants[unit.step] = constant
    if constant is None:
        return
    try:
        if unit.step not in live.keys or live.keys[unit.step].fixed is not constant:
            live.keys[unit.step] = keys.Keys(constant)
        parts = keys.ingredients(constant, **filling.ingredients_of(one.made))
        unit.key, unit.ingredients = live.keys[unit.step].key_of(parts), parts
    except ValueError as error:
        one.wrong = str(error)


def constant_of(
    controller: Controller, live: Live, one: Draft, code: Any, image_digest: str | None = None
) -> Any:
    """What all instances of its step have in common; None while the image's digest is not known."""
    step, nodes = live.step_of(one.unit), controller.ledger.nodes
    fields = live.bases.setdefault(one.unit.step, filling.base_of(step))
    alike = JobSpec.model_construct(
        command=["true"], launcher=step.launcher, node=step.node, constraints=step.constraints
    )
    launcher = site_of(controller).launcher(alike)
    if launcher.containers and image_digest is None:
        image_digest = digest_of(image_of(controller, live, launcher, one, fields), nodes)
        if image_digest is None:
            return None
    return keys.constant(
        step,
        image_digest=image_digest if launcher.containers else None,
        platform=platform_of(alike, launcher.name, nodes),
        launcher=launcher.name,
        code=code,
    )


def image_of(
    controller: Controller, live: Live, launcher: Capabilities, one: Draft, fields: Mapping[str, Any]
) -> str:
    """The image that admission will choose; what it refuses has no result to be looked for."""
    asker, image = asker_of(controller, live.run.owner), one.made.image or fields.get("image")
    project = live.run.project or asker.default_project
    alike = JobSpec.model_construct(command=["true"], image=image, project=project)
    chosen = choose_image(alike, launcher, site_of(controller), asker)
    return chosen.image or image or controller.settings.default_image


def ran_in(unit: Unit, job: Job) -> None:
    """Its key names the image that it really ran in: a tag may have meant another one before."""
    image, parts = job.spec.image, unit.ingredients
    if parts is None or image is None or job.image_digest is None or is_pinned(image):
        return
    if parts["image"] != job.image_digest:
        unit.ingredients = {**parts, "image": job.image_digest}
        unit.key = keys.key_of(unit.ingredients)


def room(controller: Controller, live: Live) -> int:
    """How many more jobs of this run may wait in the queue."""
    board, run = controller.board, live.run
    most = controller.settings.max_pending - board.waiting
    for scope in scopes(board.policy, run.owner, run.project, controller.core.terms_of(run.owner)):
        if scope.limits.pending is not None:
            most = min(most, scope.limits.pending - board.standing.account(*scope.key).pending)
    return max(0, most)


def admitted(controller: Controller, live: Live, some: Sequence[Draft]) -> list[Job]:
    """Jobs, with ids of the board, of those that can be; for the others what is wrong is noted."""
    owner, now = live.run.owner, controller.clock()
    identity, asker, site = controller.identify(owner), asker_of(controller, owner), site_of(controller)
    jobs: list[Job] = []
    for one in some:
        if one.spec is None:
            continue
        try:
            good = admit(one.spec, asker, identity, site, now=now, known={})
        except (InvalidSpecError, UnavailableError) as error:
            one.wrong = str(error)
            continue
        if errors := controller.board.standing.refusals(owner, [(good.spec, 1)], now):
            one.wrong = "; ".join(map(str, errors))
            continue
        [number] = controller.board.new_ids([0])
        job = Job(
            id=number,
            owner=owner,
            name=good.spec.title,
            state=State.PENDING,
            launcher=good.launcher,
            partition=good.partition,
            submitted=now,
            run=live.run.id,
            step=live.label(one.unit),
            spec=good.spec,
        )
        live.attach(one.unit, job)
        one.unit.submitted = now
        live.move(one.unit, StepState.PENDING)
        jobs.append(job)
    return jobs


async def put(store: Any, some: Sequence[Draft]) -> None:
    """Have the store keep what the jobs take and nobody has put there."""
    literals: dict[str, bytes] = {}
    folders: dict[str, Manifest] = {}
    for one in some:
        literals |= one.made.literals
        folders |= one.made.folders

    def write() -> None:
        there = store.exists_many([*literals, *folders])
        for digest, content in literals.items():
            if digest in there:
                store.refresh(digest)
            else:
                store.put([content])
        for digest, manifest in folders.items():
            if digest not in there:
                store.put_tree(manifest.entries)

    if literals or folders:
        await asyncio.to_thread(write)


def refused(message: str) -> Reason:
    """Of a step that could not be a job."""
    return Reason(code=ReasonCode.LAUNCH_FAILED, message=message)
