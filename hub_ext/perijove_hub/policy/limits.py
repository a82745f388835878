"""What parts of the policy are made of: durations, sizes, limits."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from perijove.model import parse_duration, parse_size

Duration = Annotated[float, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Priority = Annotated[int, Field(ge=0, le=100)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Part(BaseModel):
    """A part of the policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(Part):
    """How much at most. What is not given is not limited."""

    # held at the same time: a job over one of these waits
    cpus: Amount | None = None
    memory: Size | None = None
    gpus: Count | None = None
    running: Count | None = None
    """Jobs on nodes at once."""
    # refused at submission
    pending: Count | None = None
    """Jobs waiting at once; each member of an array counts."""
    # over `window`, refused or waited for, as the policy's `over_budget` says; memory in GiB times hours
    cpu_hours: Amount | None = None
    gpu_hours: Amount | None = None
    memory_hours: Amount | None = None
    disk: Size | None = None
    store: Size | None = None
    """`disk`: all job directories together; `store`: what a user owns of the content store."""

    @property
    def any(self) -> bool:
        """Whether anything is limited."""
        return self.gated or self.pending is not None or self.disk is not None

    @property
    def gated(self) -> bool:
        """Whether anything that a start can break is limited."""
        # Asked for each job and each of its accounts.
        held = self.cpus is not None or self.memory is not None or self.gpus is not None
        return held or self.running is not None or self.budgeted

    @property
    def budgeted(self) -> bool:
        """Whether any use over the window is limited."""
        return not (self.cpu_hours is None and self.gpu_hours is None and self.memory_hours is None)
