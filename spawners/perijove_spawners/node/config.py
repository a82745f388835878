"""What a node is and has, as its agent is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perijove.model import Gpu, Slot
from perijove_spawners.node.engine import POLL
from perijove_spawners.node.gpuuse import EVERY
from perijove_spawners.node.outbox import REPEAT


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What a node is and has."""

    name: str
    directory: Path
    cpus: float
    memory: int
    gpus: tuple[Gpu, ...] = ()
    resources: Mapping[str, int] = field(default_factory=dict)
    slots: Mapping[str, Sequence[Slot]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    poll: float = POLL
    repeat: float = REPEAT
    scratch: int = 0
    """Bytes of scratch space to give out; see :mod:`~perijove_spawners.node.scratch`."""
    scratch_sparse: bool = False
    publish_ports: str = ""
    """A range of this host's ports for those of containers; see :mod:`~perijove_spawners.node.publishing`."""
    publish_address: str = "0.0.0.0"  # noqa: S104 -- the operator's choice
    gpu_rhythm: float = EVERY
    """Seconds between two looks at how much the GPUs do."""
