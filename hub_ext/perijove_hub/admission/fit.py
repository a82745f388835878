"""Whether the nodes could ever run a job; if not, what the nearest would be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perijove.model import FieldError, GpuRequest, JobSpec, format_size
from perijove.model.spec import MIB, TMP_DISK
from perijove_hub.admission.capacity import Capacity, Mask
from perijove_hub.admission.site import Shape, Site
from perijove_hub.placement.request import amount

EPSILON = 1e-6
"""Cores are fractions."""


def fit_errors(shape: Shape, site: Site) -> tuple[FieldError, ...]:
    """Every error of size and place that holds whatever else runs."""
    if (known := site.verdicts.get(shape)) is not None:
        return known
    return site.remember(shape, tuple(_judge(shape, site)))


def _judge(shape: Shape, site: Site) -> list[FieldError]:
    spec, capacity = shape.request, site.capacity
    mask = capacity.offering(shape.launcher)
    for narrow in (_in_partition, _in_reservation, _of_system, _labelled, _named):
        mask, errors = narrow(shape, site, mask)
        if errors:
            return errors
    if not shape.devices:
        for name in spec.units:
            without = mask & ~capacity.devices.get(name, capacity.none())
            if mask.any() and not without.any():
                text = f"its units are devices, which launcher {shape.launcher} hands into no job"
                return [FieldError(f"resources.{name}", str(spec.units[name]), text)]
            mask = without
    return _sizes(spec, capacity, mask)


Narrowed = tuple[Mask, list[FieldError]]


def _in_partition(shape: Shape, site: Site, mask: Mask) -> Narrowed:
    if shape.partition is None:
        return mask, []
    found = mask & site.capacity.called(site.policy.partitions[shape.partition].nodes)
    text = f"none of its nodes offers launcher {shape.launcher}"
    return found, [] if found.any() else [FieldError("partition", shape.partition, text)]


def _in_reservation(shape: Shape, site: Site, mask: Mask) -> Narrowed:
    if shape.reservation is None:
        return mask, []
    found = mask & site.capacity.called(site.policy.reservations[shape.reservation].nodes)
    within = f" of partition {shape.partition}" if shape.partition else ""
    text = f"it keeps no node{within} that offers launcher {shape.launcher}"
    return found, [] if found.any() else [FieldError("reservation", shape.reservation, text)]


def _of_system(shape: Shape, site: Site, mask: Mask) -> Narrowed:
    if shape.os is None:
        return mask, []
    found = mask & site.capacity.labelled("os", shape.os)
    known = ", ".join(site.capacity.values("os")[:20]) or "none that is known"
    errors = [FieldError("os", shape.os, f"no node bears these labels: os={shape.os}; there is: {known}")]
    return found, [] if found.any() else errors


def _labelled(shape: Shape, site: Site, mask: Mask) -> Narrowed:
    capacity, found = site.capacity, mask
    for key, value in shape.constraints:
        found = found & capacity.labelled(key, value)
    if found.any() or not shape.constraints:
        return found, []
    wish = ", ".join(f"{key}={value}" for key, value in shape.constraints)
    for key, value in shape.constraints:
        if not (mask & capacity.labelled(key, value)).any():
            others = [v for v in capacity.values(key) if (mask & capacity.labelled(key, v)).any()][:20]
            known = f"values of {key}: {', '.join(others)}" if others else f"labels: {_keys(capacity)}"
            return found, [FieldError("constraints", wish, f"no node bears these labels; {known}")]
    return found, [FieldError("constraints", wish, "no node bears these labels together")]


def _keys(capacity: Capacity) -> str:
    return ", ".join(capacity.keys()[:20]) or "none"


def _named(shape: Shape, site: Site, mask: Mask) -> Narrowed:
    if shape.node is None:
        return mask, []
    capacity, found = site.capacity, site.capacity.none()
    if (i := capacity.index.get(shape.node)) is not None:
        found[i] = mask[i]
    names = capacity.some(mask)
    more = int(mask.sum()) - len(names)
    known = ", ".join(names) + (f" and {more} more" if more > 0 else "")
    what = "there is no such node" if i is None else "it is none of those that suit this job"
    return found, [] if found.any() else [FieldError("node", shape.node, f"{what}; there are: {known}")]


def _sizes(spec: JobSpec, capacity: Capacity, mask: Mask) -> list[FieldError]:
    gpus = capacity.gpus(spec.gpus)
    parts = {
        "cpu": capacity.cpus + EPSILON >= spec.cpu,
        "memory": capacity.memory >= spec.memory,
        "gpus": gpus >= spec.gpus.count,
        **{name: capacity.resource(name) >= count for name, count in spec.units.items()},
    }
    able = mask.copy()
    for part in parts.values():
        able &= part
    count = int(able.sum())
    if count >= spec.nodes:
        return []
    errors = _too_large(spec, capacity, mask, gpus)
    if errors:
        return errors
    if count == 0:
        return [_nearest(spec, capacity, mask, gpus)]
    return [_too_many(spec, capacity, mask, able)]


def _too_large(spec: JobSpec, capacity: Capacity, mask: Mask, gpus: NDArray[np.int64]) -> list[FieldError]:
    """What no node has by itself, each against the largest."""
    errors = []
    if spec.cpu > (most := float(capacity.cpus[mask].max(initial=0))) + EPSILON:
        text = f"no node has {spec.cpu:g} CPUs; the largest has {most:g}"
        errors.append(FieldError("cpu", f"{spec.cpu:g}", text))
    if spec.memory > (memory := int(capacity.memory[mask].max(initial=0))):
        text = f"no node has {format_size(spec.memory)} of memory; the largest has {format_size(memory)}"
        errors.append(FieldError("memory", format_size(spec.memory), text))
    if spec.gpus.count > (devices := int(gpus[mask].max(initial=0))):
        errors.append(_gpus(spec.gpus, capacity, mask, devices))
    for key, count in spec.units.items():
        if count > (most_of := int(capacity.resource(key)[mask].max(initial=0))):
            errors.append(_units(key, count, most_of, capacity, mask))
    return errors


def _units(key: str, count: int, most: int, capacity: Capacity, mask: Mask) -> FieldError:
    if key == TMP_DISK:
        text = f"no node has {amount(key, count)}; the largest has {format_size(most * MIB)}"
        text = text if most else "no node gives out scratch space (perijove node --scratch)"
        return FieldError(TMP_DISK, format_size(count * MIB), text)
    known = sorted(name for name, counts in capacity.resources.items() if counts[mask].any())
    other = f" (there are: {', '.join(known[:20]) or 'none'})" if not most else ""
    text = f"no node has {count} {key}; the largest has {most}{other}"
    return FieldError(f"resources.{key}", str(count), text)


def _field(key: str) -> str:
    return key if key == TMP_DISK else f"resources.{key}"


def _gpus(request: GpuRequest, capacity: Capacity, mask: Mask, most: int) -> FieldError:
    model = f" {request.model}" if request.model else ""
    size = f" with {format_size(request.memory)}" if request.memory else ""
    plural = "s" if request.count > 1 else ""
    text = f"no node has {request.count}{model} GPU{plural}{size}; the largest has {most}"
    known = sorted(
        f"{kind or 'unnamed'} of {format_size(memory)}" if memory else kind or "unnamed"
        for (kind, memory), counts in capacity.models.items()
        if counts[mask].any()
    )
    if (request.model or request.memory) and not most:
        text += f"; there are: {', '.join(known[:20]) or 'none'}"
    return FieldError("gpus", str(request.count), text)


def _nearest(spec: JobSpec, capacity: Capacity, mask: Mask, gpus: NDArray[np.int64]) -> FieldError:
    """Each part is somewhere, all of them nowhere: the node that lacks the least."""
    short = np.maximum(1 - capacity.cpus / spec.cpu, 1 - capacity.memory / spec.memory)
    wanted, has = [f"{spec.cpu:g} CPUs", format_size(spec.memory)], []
    if spec.gpus.count:
        short = np.maximum(short, 1 - gpus / spec.gpus.count)
    for key, count in spec.units.items():
        short = np.maximum(short, 1 - capacity.resource(key) / count)
    best = int(np.argmin(np.where(mask, short, np.inf)))
    has = [f"{capacity.cpus[best]:g} CPUs", format_size(int(capacity.memory[best]))]
    if spec.gpus.count:
        model = f" {spec.gpus.model}" if spec.gpus.model else ""
        wanted.append(f"{spec.gpus.count}{model} GPUs")
        has.append(f"{gpus[best]}{model} GPUs")
    for key, count in spec.units.items():
        wanted.append(amount(key, count))
        has.append(amount(key, int(capacity.resource(key)[best])))
    fields = ["cpu", "memory", *(["gpus"] if spec.gpus.count else [])]
    fields += [_field(key) for key in spec.units]
    text = f"no single node has all of this; the nearest is {capacity.names[best]} with {', '.join(has)}"
    return FieldError(", ".join(fields), ", ".join(wanted), text)


def _too_many(spec: JobSpec, capacity: Capacity, mask: Mask, able: Mask) -> FieldError:
    """A gang of more nodes than are large enough."""
    count, suitable = int(able.sum()), int(mask.sum())
    text = f"only {count} {'node has' if count == 1 else 'nodes have'} this much; ask for nodes={count}"
    if suitable >= spec.nodes:
        cpus = float(np.sort(capacity.cpus[mask])[-spec.nodes])
        memory = int(np.sort(capacity.memory[mask])[-spec.nodes])
        text += f", or for less of each: {spec.nodes} nodes have {cpus:g} CPUs or {format_size(memory)}"
    return FieldError("nodes", str(spec.nodes), text)
