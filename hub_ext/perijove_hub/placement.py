"""Queue and free resources -> plan: which job starts where, and why the others do not.

First in, first out within a priority. A job that fits nowhere now lays claim to what is free on the node that
could run it soonest, so that those behind it use only what it does not need, and what becomes
free goes to it first: small jobs go on around a big one and never starve it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from perijove.model import Gpu, GpuRequest, Job, JobSpec, Reason, ReasonCode, format_size
from perijove_hub.ledger import EPSILON, Free

CLAIMS = 100
"""So many waiting jobs lay claims in one pass; the rest wait behind them (Slurm's ``bf_max_job_test``)."""


@dataclass(frozen=True, slots=True)
class Placement:
    """`job` starts on `node` with `gpus`."""

    job: int
    node: str
    gpus: tuple[Gpu, ...] = ()


@dataclass(slots=True)
class Plan:
    """What one pass decided. Jobs it did not come to are in neither: they wait for those before them."""

    placements: list[Placement] = field(default_factory=list)
    reasons: dict[int, Reason] = field(default_factory=dict)


def plan(queue: Iterable[Job], free: Sequence[Free]) -> Plan:
    """Place what can start now, in the order of `queue`.

    `queue` is consumed only as far as needed. `free` is used up: pass a copy to keep it.
    """
    result = Plan()
    for job in queue:
        nodes = [node for node in free if suits(job, node)]
        ready = [node for node in nodes if node.up and fits(job.spec, node)]
        if ready:
            node = max(ready, key=lambda n: _spare(job.spec, n))
            gpus = take(job.spec, node)
            result.placements.append(Placement(job.id, node.node, gpus))
            continue
        result.reasons[job.id] = why(job.spec, nodes)
        reachable = [node for node in nodes if node.up]
        if reachable:
            _claim(job.spec, min(reachable, key=lambda n: _shortfall(job.spec, n)))
        if len(result.reasons) >= CLAIMS:
            break
        if not any(node.up and node.cpu > EPSILON for node in free):
            break
    return result


def suits(job: Job, node: Free) -> bool:
    """Whether the node is of the kind the job asks for, however full it is."""
    spec = job.spec
    return (
        job.launcher in node.launchers
        and (spec.node is None or spec.node == node.node)
        and (spec.os is None or node.labels.get("os") == spec.os)
        and all(node.labels.get(key) == value for key, value in spec.constraints.items())
    )


def fits(spec: JobSpec, node: Free) -> bool:
    """Whether what is free is enough."""
    return (
        spec.cpu <= node.cpu + EPSILON
        and spec.memory <= node.memory
        and spec.gpus.count <= len(matching(spec.gpus, node.gpus))
        and all(count <= node.resources.get(key, 0) for key, count in spec.resources.items())
    )


def matching(request: GpuRequest, gpus: Iterable[Gpu]) -> list[Gpu]:
    """The devices of the model asked for; a part of the model's name is enough, in any case."""
    if request.model is None:
        return list(gpus)
    wanted = request.model.casefold()
    return [gpu for gpu in gpus if wanted in gpu.model.casefold().replace(" ", "-")]


def take(spec: JobSpec, node: Free) -> tuple[Gpu, ...]:
    """Use up what `spec` asks for; the devices it got."""
    gpus = tuple(matching(spec.gpus, node.gpus)[: spec.gpus.count])
    taken = {gpu.uuid for gpu in gpus}
    node.cpu -= spec.cpu
    node.memory -= spec.memory
    node.gpus = [gpu for gpu in node.gpus if gpu.uuid not in taken]
    for key, count in spec.resources.items():
        node.resources[key] -= count
    return gpus


def _claim(spec: JobSpec, node: Free) -> None:
    """Keep what is free, as far as `spec` needs it, from those behind."""
    node.cpu = max(0.0, node.cpu - spec.cpu)
    node.memory = max(0, node.memory - spec.memory)
    kept = {gpu.uuid for gpu in matching(spec.gpus, node.gpus)[: spec.gpus.count]}
    node.gpus = [gpu for gpu in node.gpus if gpu.uuid not in kept]
    for key, count in spec.resources.items():
        node.resources[key] = max(0, node.resources.get(key, 0) - count)


def _spare(spec: JobSpec, node: Free) -> tuple[int, float]:
    """Prefer nodes whose GPUs the job leaves alone, then the emptiest."""
    return (-len(node.gpus) if spec.gpus.count == 0 else 0, node.cpu)


def _shortfall(spec: JobSpec, node: Free) -> float:
    """How far the node is from being able to run `spec`: the worst of its missing shares, 0 to 1."""
    shares = [
        _missing(spec.cpu, node.cpu),
        _missing(spec.memory, node.memory),
        _missing(spec.gpus.count, len(matching(spec.gpus, node.gpus))),
        *(_missing(count, node.resources.get(key, 0)) for key, count in spec.resources.items()),
    ]
    return max(shares)


def _missing(asked: float, free: float) -> float:
    return 0.0 if asked <= 0 else max(0.0, asked - max(0.0, free)) / asked


def why(spec: JobSpec, nodes: Sequence[Free]) -> Reason:
    """Why none of the nodes that suit can start it now, in one sentence with the figures."""
    up = [node for node in nodes if node.up]
    if not up:
        names = ", ".join(node.node for node in nodes) or "none is known"
        return Reason(code=ReasonCode.NODE_DOWN, message=f"no node that could run it is up ({names})")
    best = min(up, key=lambda node: _shortfall(spec, node))
    short = []
    if spec.cpu > best.cpu + EPSILON:
        short.append(f"{spec.cpu:g} CPUs ({max(0.0, best.cpu):g} free)")
    if spec.memory > best.memory:
        short.append(f"{format_size(spec.memory)} of memory ({format_size(max(0, best.memory))} free)")
    if spec.gpus.count > len(devices := matching(spec.gpus, best.gpus)):
        model = f" {spec.gpus.model}" if spec.gpus.model else ""
        short.append(f"{spec.gpus.count}{model} GPUs ({len(devices)} free)")
    for key, count in spec.resources.items():
        if count > best.resources.get(key, 0):
            short.append(f"{count} {key} ({max(0, best.resources.get(key, 0))} free)")
    return Reason(code=ReasonCode.RESOURCES, message=f"waits for {' and '.join(short)} on {best.node}")
