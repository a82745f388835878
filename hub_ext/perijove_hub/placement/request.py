"""What one member of an entry asks of a node, in the units in which nodes are counted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from perijove.model import Gpu, GpuRequest, JobSpec, format_size
from perijove.model.spec import MIB, TMP_DISK

CORE = 1_000_000
"""Cores are counted in millionths, as whole numbers: sums stay exact in whatever order jobs come and go."""

Model = tuple[str, int]
"""A sort of GPU: its model as requests name it, and bytes of memory."""


def microcores(cpus: float) -> int:
    """Cores as millionths."""
    return round(cpus * CORE)


def amount(name: str, count: int) -> str:
    """Units of a countable resource, for people."""
    return f"{format_size(count * MIB)} of scratch space" if name == TMP_DISK else f"{count} {name}"


def model_of(gpu: Gpu) -> Model:
    """Its sort."""
    return gpu.model.casefold().replace(" ", "-"), gpu.memory


@dataclass(frozen=True, slots=True)
class GpuNeed:
    """How many devices of which sort."""

    count: int = 0
    model: str | None = None
    """A part of the model's name, in lower case."""
    memory: int = 0
    """Bytes that each has at least."""

    @classmethod
    def of(cls, request: GpuRequest) -> GpuNeed:
        """What a spec asks for."""
        return cls(request.count, request.model.casefold() if request.model else None, request.memory or 0)

    def accepts(self, model: Model) -> bool:
        """Whether a device of that sort will do."""
        return (self.model is None or self.model in model[0]) and model[1] >= self.memory

    def among(self, gpus: Iterable[Gpu]) -> list[Gpu]:
        """Those of `gpus` that will do."""
        if self.model is None and not self.memory:
            return list(gpus)
        return [gpu for gpu in gpus if self.accepts(model_of(gpu))]


def matching(request: GpuRequest, gpus: Iterable[Gpu]) -> list[Gpu]:
    """The devices that will do; a part of the model's name is enough, in any case."""
    return GpuNeed.of(request).among(gpus)


@dataclass(frozen=True, slots=True)
class Request:
    """One member's."""

    cpu: int
    """Millionths of a core."""
    memory: int
    gpus: GpuNeed = GpuNeed()
    resources: tuple[tuple[str, int], ...] = ()
    exclusive: bool = False

    @classmethod
    def of(cls, spec: JobSpec) -> Request:
        """What a spec asks of each of its nodes."""
        resources = tuple(sorted(spec.units.items()))
        return cls(microcores(spec.cpu), spec.memory, GpuNeed.of(spec.gpus), resources, spec.exclusive)
