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
    gpu_rhythm: float = EVERY
    """Seconds between two looks at how much the GPUs do."""
