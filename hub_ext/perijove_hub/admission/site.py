"""What admission knows: of the site, and of who asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from perijove.model import Capabilities, FieldError, InvalidSpecError, JobSpec, Node, UnavailableError
from perijove_hub.admission.capacity import Capacity
from perijove_hub.policy.document import Policy
from perijove_hub.settings import Settings

SHAPES_KEPT = 20_000
"""Verdicts about sizes that are remembered."""


class Asker:
    """Whose the job will be, and what the policy grants them; looked up once for all jobs of a request.

    `groups`: system groups, which a policy may name as ``@GROUP``.
    """

    def __init__(self, policy: Policy, name: str, groups: frozenset[str] = frozenset()) -> None:
        self.policy, self.name, self.groups = policy, name, groups
        self._may_use: dict[tuple[str, str | None], bool] = {}

    @cached_property
    def projects(self) -> list[str]:
        """In which they may have jobs: as a member. Leading one is not enough."""
        return sorted(self.policy.projects_of(self.name, self.groups))

    @cached_property
    def default_project(self) -> str | None:
        """Of jobs that name none."""
        return self.policy.project_of(self.name, self.groups)

    def may_use(self, partition: str, project: str | None) -> bool:
        """Whether their jobs of `project` may be in the partition, which need not exist."""
        key = (partition, project)
        if key not in self._may_use:
            known = partition in self.policy.partitions
            self._may_use[key] = known and self.policy.may_use(partition, self.name, project, self.groups)
        return self._may_use[key]

    def partitions(self, project: str | None) -> list[str]:
        """Partitions that jobs of `project` may be in."""
        return sorted(name for name in self.policy.partitions if self.may_use(name, project))


class Site:
    """Settings, policy and nodes as they are now. It keeps its answers: make a new one when they change."""

    def __init__(self, settings: Settings, policy: Policy, nodes: Sequence[Node]) -> None:
        self.settings, self.policy = settings, policy
        self.capacity = Capacity(nodes)
        self.verdicts: dict[Shape, tuple[FieldError, ...]] = {}

    @cached_property
    def default_launcher(self) -> str | None:
        """Of jobs that name none."""
        return self.settings.default_launcher or next(iter(self.capacity.launchers), None)

    def launcher(self, spec: JobSpec) -> Capabilities:
        """The one that will run `spec`. Raises :class:`InvalidSpecError` when no node offers it."""
        if not len(self.capacity):
            raise UnavailableError("no node has joined yet; try again in a few seconds")
        wanted = spec.launcher or self.default_launcher
        offered = self.capacity.launchers
        if wanted is None or wanted not in offered:
            known = ", ".join(sorted(offered)) or "none"
            error = FieldError("launcher", str(wanted), f"no node offers it; offered: {known}")
            raise InvalidSpecError(errors=[error])
        return offered[wanted]

    def remember(self, shape: Shape, errors: tuple[FieldError, ...]) -> tuple[FieldError, ...]:
        """Keep a verdict for the next job of this shape."""
        if len(self.verdicts) >= SHAPES_KEPT:
            self.verdicts.clear()
        self.verdicts[shape] = errors
        return errors


@dataclass(frozen=True, slots=True)
class Shape:
    """All of a job that decides whether the nodes could ever run it."""

    launcher: str
    devices: bool
    """Whether the launcher hands devices into jobs."""
    partition: str | None
    reservation: str | None
    os: str | None
    node: str | None
    constraints: tuple[tuple[str, str], ...]
    cpu: float
    memory: int
    gpus: tuple[int, str | None, int | None]
    resources: tuple[tuple[str, int], ...]
    nodes: int
    request: JobSpec = field(compare=False)
    """Any job of this shape."""


def shape_of(spec: JobSpec, launcher: Capabilities, partition: str | None) -> Shape:
    """The shape of `spec` in a partition."""
    return Shape(
        launcher=launcher.name,
        devices="devices" in launcher.features,
        partition=partition,
        reservation=spec.reservation,
        os=spec.os,
        node=spec.node,
        constraints=tuple(sorted(spec.constraints.items())),
        cpu=spec.cpu,
        memory=spec.memory,
        gpus=(spec.gpus.count, spec.gpus.model, spec.gpus.memory),
        resources=tuple(sorted(spec.resources.items())),
        nodes=spec.nodes,
        request=spec,
    )
