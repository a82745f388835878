"""Result records: what is worth knowing of one computation afterwards, made of what the service keeps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from perijove.model import Job, JobEvent, Machine, Output, ReasonCode, ResultRecord, Run, State, StepRun
from perijove_hub.identity import HIDDEN

SECRET = re.compile(r"(?i)token|secret|passw|credential|(^|_)key$|api_?key")
"""Names of variables whose values go into nothing that is made to be handed on."""
_STATUS = {
    ReasonCode.TIME_LIMIT: "timeout",
    ReasonCode.KILLED_BY_USER: "killed",
    ReasonCode.NODE_LOST: "lost",
}


def record_of(
    job: Job,
    history: Sequence[JobEvent] = (),
    *,
    base: str = "/api/v1",
    input_bytes: int | None = None,
    locations: Mapping[str, Sequence[str]] | None = None,
) -> ResultRecord:
    """The record of a job; of one that has not ended, what is known so far.

    `history`: its events, which say on what machine it ended; `base`: the URL of the REST interface, below
    which outputs are found; `locations`: digest -> more URLs.
    """
    outputs = {name: _output(job, name, digest) for name, digest in job.outputs.items()}
    exit_code = job.exit_code
    by_itself = _code(job) in {None, ReasonCode.NON_ZERO_EXIT}
    return ResultRecord(
        job=job,
        run=job.run,
        step=job.step or "",
        inputs=inputs_of(job),
        outputs=outputs,
        output_locations=_locations(job, base, locations or {}),
        image=job.spec.image,
        image_digest=job.image_digest,
        image_manifest=job.image_manifest,
        machine=machine_of(job, history),
        status=status_of(job),
        exit_code=exit_code,
        signal=exit_code - 128 if exit_code is not None and exit_code > 128 and not by_itself else None,
        out_of_memory=_code(job) is ReasonCode.OUT_OF_MEMORY,
        wall_seconds=_wall(job),
        cpu_seconds=job.cpu_seconds if job.started else None,
        gpu_seconds=job.gpu_seconds if job.started else None,
        memory_peak=job.memory_peak or None,
        input_bytes=input_bytes,
        output_bytes=sum(job.sizes.values()) if job.state.ended else None,
        values=job.values,
    )


def record_of_step(step: StepRun, run: int, made_by: ResultRecord | None) -> ResultRecord:
    """The record of a step: that of its job, or, when its result was taken, of the job that had made it.

    `made_by` is None where there is no such job any more, or never was.
    """
    record = made_by or ResultRecord()
    if made_by is not None and made_by.job is not None and made_by.job.step is None:
        # A warm job made it, beside many others: what that used is not this one's.
        made_by = None
        record = ResultRecord(
            image=record.image,
            image_digest=record.image_digest,
            image_manifest=record.image_manifest,
            machine=record.machine,
        )
    changes: dict[str, Any] = {"run": run, "step": step.label, "key": step.key, "outputs": step.outputs}
    if step.cached_from is not None:
        changes |= {"status": "cached", "cached_from": step.cached_from}
    elif made_by is None:
        changes["status"] = _STEP_STATUS.get(step.state.value, step.state.value)
        if step.started is not None and step.ended is not None:
            changes["wall_seconds"] = step.ended - step.started
    changes["values"] = {
        **record.values,
        **{name: one.value for name, one in step.outputs.items() if one.valued},
    }
    return record.model_copy(update=changes)


_STEP_STATUS = {"succeeded": "ok"}


def status_of(job: Job) -> str:
    """``ok``, ``failed``, ``timeout``, ``killed``, ``lost``, ``rejected``; before its end the state."""
    if not job.state.ended:
        return job.state.value
    if job.state is State.SUCCEEDED:
        return "ok"
    if job.state is State.FAILED:
        code = _code(job)
        return _STATUS.get(code, "failed") if code is not None else "failed"
    return job.state.value


def inputs_of(job: Job) -> dict[str, str]:
    """Name -> digest of all files that it was given, its code among them."""
    function = {"function": job.spec.function} if job.spec.function else {}
    return {**function, **job.spec.inputs}


def machine_of(job: Job, history: Iterable[JobEvent]) -> Machine | None:
    """Facts of the host as they were when its last attempt ended there."""
    found = [line.detail.get("machine") for line in history if line.attempt == job.attempt]
    facts = [one for one in found if one]
    return Machine.model_validate(facts[-1]) if facts else None


def without_secrets(env: Mapping[str, str]) -> dict[str, str]:
    """An environment as it may be handed on."""
    return {name: HIDDEN if SECRET.search(name) else value for name, value in env.items()}


def shareable(record: ResultRecord) -> ResultRecord:
    """A record as it may be handed on."""
    if record.job is None or not record.job.spec.env:
        return record
    spec = record.job.spec.model_copy(update={"env": without_secrets(record.job.spec.env)})
    return record.model_copy(update={"job": record.job.model_copy(update={"spec": spec})})


def shareable_run(run: Run) -> Run:
    """A run with its document as that may be handed on."""
    if run.workflow is None:
        return run
    steps = {
        name: step.model_copy(update={"env": without_secrets(step.env)}) if step.env else step
        for name, step in run.workflow.steps.items()
    }
    # Each step has the defaults.
    workflow = run.workflow.model_copy(update={"steps": steps, "defaults": {}})
    return run.model_copy(update={"workflow": workflow})


def _output(job: Job, name: str, digest: str) -> Output:
    place = job.spec.outputs.get(name, "")
    kind, _, rest = place.partition(":")
    value = job.values.get(rest) if kind == "record" else None
    valued = kind == "record" and rest in job.values
    file = rest.rpartition("/")[2] if kind in {"file", "dir"} else name
    return Output(digest=digest, size=job.sizes.get(name), value=value, valued=valued, name=file)


def _locations(job: Job, base: str, locations: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    return {
        name: [f"{base}/jobs/{job.label}/outputs/{quote(name, safe='')}", *locations.get(digest, ())]
        for name, digest in job.outputs.items()
    }


def _code(job: Job) -> ReasonCode | None:
    return job.reason.code if job.reason is not None else None


def _wall(job: Job) -> float | None:
    if job.started is None or job.ended is None:
        return None
    return max(0.0, job.ended - job.started - job.suspended_seconds)
